"""The README's tables about the live recognizer, from the result files in ``edge/results/``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edge.smoothing import Smoothing

RESULTS = Path(__file__).parent / "results"


def load(name: str) -> dict[str, Any]:
    """Return one result file."""
    content: dict[str, Any] = json.loads((RESULTS / name).read_text(encoding="utf-8"))
    return content


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def _where(result: dict[str, Any]) -> str:
    hardware = result["hardware"]
    return (
        f"{hardware['processor']}, {hardware['n_cores']} cores, {hardware['machine']}, "
        f"{result['date']}"
    )


def profile() -> str:
    """Return what each stage costs, and the ratios to the peers of the same run."""
    result = load("profile.json")
    run, cold = result["runs"][0], result["cold_start"]
    keys = ("p50_ms", "p95_ms", "p99_ms", "max_ms")
    rows = [
        [name, *(f"{stage[key]:.2f}" for key in keys),
         f"{1e3 * stage['cpu_s_per_audio_s']:.2f}" if name != "hop" else ""]
        for name, stage in run["stages"].items()
    ]  # fmt: skip
    lines = _table(["stage", "p50 ms", "p95", "p99", "max", "CPU ms per s of audio"], rows)
    lines += [
        "",
        f"All together {1e3 * run['speech_cpu_s_per_audio_s']:.1f} ms of processor time for a "
        f"second of speech and {1e3 * run['silence_cpu_s_per_audio_s']:.2f} ms for a second of "
        f"silence; {cold['total_cpu_s']:.2f} s of it from nothing to the first estimate "
        f"({cold['imports_cpu_s']:.2f} s are imports); peak memory "
        f"{cold['peak_memory_mb']:.0f} MB. `{run['model']}`, {result['runtime']}, one thread; "
        f"{_where(result)}.",
        "",
    ]
    lines += _table(
        ["in the same sitting", "ratio"],
        [[name, f"{value:.3g}"] for name, value in result["ratios"].items()],
    )
    return "\n".join(lines)


def gate() -> str:
    """Return what the gate finds in speech, alone and in noise, and what it makes of noise."""
    result = load("study.json")
    rows = []
    for name, gate in result["gate"].items():
        noise = {k: v for k, v in gate["noise"].items() if k != "digital silence"}
        worst = max(noise, key=lambda k: noise[k])
        room = gate.get("room")  # where there was a response to measure with
        rows.append(
            [
                name,
                *(
                    f"{100 * gate[condition][key]:.1f}"
                    for condition in ("clean", "10 dB")
                    for key in ("speech_found", "silence_taken_for_speech")
                ),
                f"{100 * room['speech_found']:.1f} ({room['clips_missed']})" if room else "-",
                f"{gate['clean']['utterances_per_clip']:.2f}",
                f"{gate['clean']['start_delay_s']:.2f} / {gate['clean']['end_delay_s']:.2f}",
                f"{100 * sum(noise.values()) / len(noise):.1f} ({worst} {100 * noise[worst]:.0f})",
                f"{gate['cost']:.2f}",
            ]
        )
    head = [
        "gate", "speech found %", "silence taken for speech %", "found, 10 dB SNR %",
        "noise around it taken for speech %", "found in a room % (clips missed)",
        "utterances per clip", "delay of start / end s",
        "noise alone taken for speech %", "cost in speech, of the default's",
    ]  # fmt: skip
    return "\n".join([*_table(head, rows), "", f"{_where(result)}."])


def steadiness() -> str:
    """Return what smoothing does to the labels, and how early the first one can be.

    Of the smoothings: none, and those that share one setting with the default.
    """
    result = load("study.json")
    chosen = {"average": f"{Smoothing().average_s:g} s", "dwell": f"{Smoothing().dwell_s:g} s"}
    rows = [
        [*name.split(", "), f"{s['changes_per_minute']:.1f}", f"{100 * s['estimates_right']:.1f}",
         "-" if s["reaction_s"] is None else f"{s['reaction_s']:.2f}"]
        for name, s in result["smoothing"].items()
        if chosen["average"] == name.split(", ")[0] or chosen["dwell"] == name.split(", ")[1]
        or name == "0 s, 0 s"
    ]  # fmt: skip
    lines = _table(
        ["average", "dwell", "changes of label a minute", "estimates right %", "reaction s"], rows
    )
    lines += ["", *_table(
        ["heard of an utterance", "UAR, repeated to a window", "UAR, filled up with silence"],
        [[name, f"{f['repeated']:.1f}", f"{f['silence']:.1f}"]
         for name, f in result["first"].items()],
    )]  # fmt: skip
    return "\n".join([*lines, "", f"{_where(result)}."])


def soak() -> str:
    """Return what a day of audio leaves."""
    result = load("soak.json")
    return (
        f"{result['audio_hours']:.1f} hours, {result['n_samples']:,} samples: "
        f"{result['n_heard']:,} heard, {result['n_lost']:,} reported lost, none missing; "
        f"in blocks of all sizes heard just as in one piece; memory grew by "
        f"{max(0.0, result['memory_grown_mb']):.1f} MB after the first minutes. {_where(result)}."
    )


TABLES = (profile, gate, steadiness, soak)
