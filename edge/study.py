"""``python -m edge study``: what the settings of the gate and of the smoothing do, on corpora.

Speech: EMO-DB clips between two seconds of quiet noise, alone, in everyday noise and in a measured
room. Noise: ESC-10, digital silence and white noise. The smoothing is measured on the speakers whom
the model has never heard (its card names them).
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import sys
import time
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from edge import machine
from edge.audio import read_file
from edge.errors import SerError, exit_code
from edge.events import Estimate, SpeechEnd, SpeechStart, Utterance
from edge.frontend import feature_rows
from edge.gate import CHUNK_SAMPLES, GateSettings, SpeechGate
from edge.model import Model
from edge.recognizer import Recognizer
from edge.smoothing import Smoothing
from edge.storage import write_json

RESULT = Path(__file__).parent / "results" / "study.json"
RATE_HZ = 16_000
EMOTIONS = dict(
    W="anger", L="boredom", E="disgust", A="fear", F="happiness", T="sadness", N="neutral"
)
SNR_DB = 10.0
QUIET = 1e-4  # noise of a quiet room and recorder: -80 dB of full scale
SPEECH_DB = 30.0  # what is so far below a clip's loudest chunk is not counted as speech
N_TURNS = 5  # Assumed: of every gate with every clip, when their cost is measured.

GATES: dict[str, tuple[str, dict[str, Any]]] = {
    "default": ("voice", {}),
    "voice alone": ("voice", {"quiet_db": -200.0, "above_noise_db": -200.0}),
    "energy alone": ("energy", {}),
    "hold 0.4 s": ("voice", {"hold_s": 0.4}),
    "hold 0.8 s": ("voice", {"hold_s": 0.8}),
    "open at 0.5": ("voice", {"open_at": 0.5}),
    "open at 0.7 alone": ("voice", {"lasting_at": 1.0}),
    "keep at 0.2": ("voice", {"keep_at": 0.2}),
}
AVERAGES_S = (0.0, 0.25, 0.5, 1.0, 2.0)
DWELLS_S = (0.0, 0.25, 0.5, 1.0)
FIRSTS_S = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0)


@dataclasses.dataclass
class Clip:
    """A clip of EMO-DB."""

    speaker: str
    label: str
    samples: np.ndarray


def load_speech(data: Path) -> list[Clip]:
    """Return EMO-DB's clips."""
    paths = sorted((data / "emodb" / "wav").glob("*.wav"))
    if not paths:
        raise SerError(f"{data}/emodb/wav: expected EMO-DB's .wav files there")
    return [Clip(p.name[:2], EMOTIONS[p.name[5]], read_file(p, RATE_HZ)) for p in paths]


def esc10(data: Path, rate_hz: int, every: int = 1) -> dict[str, list[np.ndarray]]:
    """Return each class of ESC-10 in ``data``, of its recordings one in ``every``."""
    sounds = {
        folder.name.split(" - ")[-1].lower(): [
            read_file(path, rate_hz) for path in sorted(folder.glob("*.ogg"))[::every]
        ]
        for folder in sorted((data / "esc10").glob("[0-9]*"))
    }
    if not sounds or not all(sounds.values()):
        raise SerError(
            f"{data}/esc10: expected ESC-10's folders there, such as '001 - Dog bark', with .ogg "
            "files"
        )
    return sounds


def load_room(data: Path, rate_hz: int) -> np.ndarray | None:
    """Return the response ``rir/rir_clap.wav`` in ``data``, from its peak on, or None."""
    path = data / "rir" / "rir_clap.wav"
    if not path.exists():
        return None
    response = read_file(path, rate_hz)
    return response[int(np.abs(response).argmax()) :]


def in_room(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Return ``samples`` (n,) as a room of that impulse response leaves them, as long as before."""
    n = len(samples) + len(response) - 1
    return np.fft.irfft(np.fft.rfft(samples, n) * np.fft.rfft(response, n), n)[: len(samples)]


def load_noise(data: Path) -> dict[str, np.ndarray]:
    """Return a quarter of ESC-10, joined for each class, and two noises that need no recording."""
    noise = {name: np.concatenate(sounds) for name, sounds in esc10(data, RATE_HZ, 4).items()}
    rng = np.random.default_rng(0)
    minute = RATE_HZ * 60
    noise["white, -40 dB"] = (0.01 * rng.normal(size=minute)).astype(np.float32)
    noise["digital silence"] = np.zeros(minute, np.float32)
    return noise


def blocks(samples: np.ndarray) -> Iterable[np.ndarray]:
    """Yield ``samples`` as a microphone would."""
    return (samples[i : i + 1600] for i in range(0, len(samples), 1600))


def chunks_of(samples: np.ndarray) -> np.ndarray:
    """Return the whole chunks of the gate in ``samples``, shape (n, CHUNK_SAMPLES)."""
    n_chunks = len(samples) // CHUNK_SAMPLES
    return samples[: n_chunks * CHUNK_SAMPLES].reshape(n_chunks, CHUNK_SAMPLES)


def true_speech(samples: np.ndarray) -> np.ndarray:
    """Return for each chunk of a clean clip whether it is loud enough to be speech."""
    power = (chunks_of(samples) ** 2).mean(axis=1)
    return power >= power.max() / 10 ** (SPEECH_DB / 10)


def gate_study(
    model: Model, speech: list[Clip], noise: dict[str, np.ndarray], room: np.ndarray | None
) -> dict[str, Any]:
    """Return for each gate what it finds, what it makes up, how late it is, what it costs.

    The cost is processor time for speech, as a ratio to that of the first gate, the default.
    """
    rng = np.random.default_rng(0)
    pause = 2 * RATE_HZ // CHUNK_SAMPLES * CHUNK_SAMPLES
    every_noise = np.concatenate([n for name, n in noise.items() if "," not in name and n.any()])
    streams: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {"clean": [], f"{SNR_DB:g} dB": []}
    if room is not None:
        streams["room"] = []
    for clip in speech[::9]:
        padded = np.pad(clip.samples, pause)
        quiet = QUIET * rng.normal(size=len(padded))
        start = rng.integers(len(every_noise) - len(padded))
        loud = every_noise[start : start + len(padded)]
        power = (clip.samples**2).mean() / 10 ** (SNR_DB / 10)
        loud = loud * np.sqrt(power / max((loud**2).mean(), 1e-9))
        truth = true_speech(padded)
        streams["clean"].append(((padded + quiet).astype(np.float32), truth))
        streams[f"{SNR_DB:g} dB"].append(((padded + loud).astype(np.float32), truth))
        if room is not None:
            wet = in_room(padded, room / np.sqrt((room**2).sum()))
            streams["room"].append(((wet + quiet).astype(np.float32), truth))
    results, gates = {}, []
    for name, (kind, changes) in GATES.items():
        settings = dataclasses.replace(GateSettings(), **changes)
        gate = SpeechGate(kind, RATE_HZ, settings)
        gates.append(gate)
        recognizer = Recognizer(_Mute(model), gate, status_s=1e6)  # type: ignore[arg-type]
        result: dict[str, Any] = {"settings": changes, "kind": kind}
        for condition, pairs in streams.items():
            result[condition] = _on_speech(recognizer, pairs)
        result["noise"] = {
            kind: round(_speech_share(recognizer, samples), 4) for kind, samples in noise.items()
        }
        results[name] = result
    costs = _costs(gates, [clip.samples for clip in speech[::9]])
    for result, cost in zip(results.values(), costs, strict=True):
        result["cost"] = round(cost / costs[0], 3)
    return results


def _costs(gates: list[SpeechGate], clips: list[np.ndarray]) -> list[float]:
    """Return the processor seconds that each gate takes for the clips.

    The gates take turns with every clip, and the least of a few times is what it costs
    undisturbed.
    """
    costs = np.zeros(len(gates))
    for samples in clips:
        chunks = chunks_of(samples)
        costs += np.min([[_cpu_s(g, chunks) for g in gates] for _ in range(N_TURNS)], axis=0)
    return list(costs)


def _cpu_s(gate: SpeechGate, chunks: np.ndarray) -> float:
    gate.reset()
    started = time.process_time()
    for chunk in chunks:
        gate.push(chunk)
    return time.process_time() - started


class _Mute:
    """A model that says nothing, for what happens before it."""

    def __init__(self, model: Model) -> None:
        self.card = model.card
        self._logits = np.zeros(len(model.card.labels), np.float32)

    def logits(self, rows: np.ndarray) -> np.ndarray:
        return self._logits


def _on_speech(
    recognizer: Recognizer, pairs: list[tuple[np.ndarray, np.ndarray]]
) -> dict[str, float]:
    found = total = made_up = outside = 0
    n_utterances, start_delays, end_delays = [], [], []
    for samples, truth in pairs:
        recognizer.reset()
        heard = np.zeros(len(truth), bool)
        events = list(recognizer.events(blocks(samples)))
        for event in events:
            if isinstance(event, SpeechEnd):
                heard[event.start_sample // CHUNK_SAMPLES : event.end_sample // CHUNK_SAMPLES] = 1
        inside = np.flatnonzero(truth)
        found += int((heard & truth).sum())
        total += int(truth.sum())
        around = np.ones(len(truth), bool)
        around[inside[0] - 12 : inside[-1] + 12] = False  # padding may reach so far
        made_up += int((heard & around).sum())
        outside += int(around.sum())
        starts = [e.at_sample for e in events if isinstance(e, SpeechStart)]
        ends = [e.at_sample for e in events if isinstance(e, SpeechEnd)]
        n_utterances.append(len(starts))
        if starts:
            start_delays.append(starts[0] - inside[0] * CHUNK_SAMPLES)
            end_delays.append(ends[-1] - (inside[-1] + 1) * CHUNK_SAMPLES)
    return {
        "speech_found": round(found / total, 4),
        "silence_taken_for_speech": round(made_up / outside, 4),
        "utterances_per_clip": round(float(np.mean(n_utterances)), 3),
        "clips_missed": int(np.sum(np.array(n_utterances) == 0)),
        "start_delay_s": round(float(np.median(start_delays)) / RATE_HZ, 3),
        "end_delay_s": round(float(np.median(end_delays)) / RATE_HZ, 3),
    }


def _speech_share(recognizer: Recognizer, samples: np.ndarray) -> float:
    recognizer.reset()
    for _ in recognizer.events(blocks(samples)):
        pass
    return recognizer.n_speech / len(samples)


def first_study(model: Model, clips: list[Clip]) -> dict[str, Any]:
    """Return UAR in % of one window of the first seconds of each clip, by how it is filled up."""
    card = model.card
    silent = feature_rows(np.zeros(card.frontend.n_fft, np.float32), card.frontend)
    results: dict[str, Any] = {}
    for seconds in FIRSTS_S:
        right: dict[str, dict[str, list[bool]]] = {"repeated": {}, "silence": {}}
        for clip in clips:
            rows = feature_rows(clip.samples[: round(seconds * RATE_HZ)], card.frontend)[
                : card.n_rows
            ]
            missing = card.n_rows - len(rows)
            windows = {
                "repeated": np.resize(rows, (card.n_rows, rows.shape[1])),
                "silence": np.concatenate([rows, np.repeat(silent, missing, axis=0)]),
            }
            for name, window in windows.items():
                probs = model.probs(card.frontend.normalize(window))
                label = card.labels[int(probs.argmax())]
                right[name].setdefault(clip.label, []).append(label == clip.label)
        results[f"{seconds:g} s"] = {
            name: round(100 * float(np.mean([np.mean(r) for r in by_label.values()])), 1)
            for name, by_label in right.items()
        }
    return results


def smoothing_study(model: Model, clips: list[Clip]) -> dict[str, Any]:
    """Return for each smoothing how steady, how right and how late its labels are.

    ``reaction_s``: two clips of one speaker with different emotions, of which the model knows
    both, are joined without a pause; from the joint to the first estimate of the second emotion.
    """
    results = {}
    known = _recognized(model, clips)
    pairs = [
        (one, two)
        for one, two in itertools.permutations(known, 2)
        if one.speaker == two.speaker and one.label != two.label
    ][::7][:60]
    for average_s, dwell_s in itertools.product(AVERAGES_S, DWELLS_S):
        smoothing = Smoothing(average_s, dwell_s)
        recognizer = Recognizer(model, SpeechGate("off", RATE_HZ), smoothing, status_s=1e6)
        changes = n = right = 0
        seconds = 0.0
        for clip in clips:
            labels = [e.label for e in _estimates(recognizer, clip.samples)]
            changes += sum(a != b for a, b in itertools.pairwise(labels))
            right += sum(label == clip.label for label in labels)
            n += len(labels)
            seconds += len(clip.samples) / RATE_HZ
        delays = []
        for one, two in pairs:
            joined = np.concatenate([one.samples, two.samples])
            for event in _estimates(recognizer, joined):
                if event.at_sample > len(one.samples) and event.label == two.label:
                    delays.append((event.at_sample - len(one.samples)) / RATE_HZ)
                    break
        results[f"{average_s:g} s, {dwell_s:g} s"] = {
            "changes_per_minute": round(60 * changes / seconds, 1),
            "estimates_right": round(right / n, 4),
            "reaction_s": round(float(np.median(delays)), 2) if delays else None,
            "reacted": round(len(delays) / len(pairs), 3) if pairs else None,
        }
    return results


def _estimates(recognizer: Recognizer, samples: np.ndarray) -> list[Estimate]:
    recognizer.reset()
    return [e for e in recognizer.events(blocks(samples)) if isinstance(e, Estimate)]


def _recognized(model: Model, clips: list[Clip]) -> list[Clip]:
    recognizer = Recognizer(model, SpeechGate("off", RATE_HZ), status_s=1e6)
    known = []
    for clip in clips:
        recognizer.reset()
        heard = [e for e in recognizer.events(blocks(clip.samples)) if isinstance(e, Utterance)]
        if len(clip.samples) > 1.5 * RATE_HZ and heard and heard[-1].label == clip.label:
            known.append(clip)
    return known


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m edge study", description=__doc__)
    add = parser.add_argument
    add("--data", type=Path, default=os.environ.get("SER_DATA"), metavar="DIR",
        help="folder of emodb/, esc10/ and perhaps rir/; default: $SER_DATA")  # fmt: skip
    add("--model", type=Path, metavar="FILE", help="default: the shipped one")
    add("--out", type=Path, default=RESULT, help="default: edge/results/study.json")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser


def run(args: argparse.Namespace) -> None:
    if args.data is None:
        raise SerError("the study needs corpora: give --data DIR or set SER_DATA")
    model = Model(args.model)
    speech = load_speech(Path(args.data))
    unheard = model.card.provenance.get("held_out_speakers", [])
    clips = [clip for clip in speech if clip.speaker in unheard]
    if not clips:
        raise SerError(f"{model.path}: its card names no held-out speakers of EMO-DB")
    result = {
        "date": date.today().isoformat(),
        "hardware": machine.description(),
        "model": model.card.name,
        "first": first_study(model, clips),
        "smoothing": smoothing_study(model, clips),
        "gate": gate_study(
            model, speech, load_noise(Path(args.data)), load_room(Path(args.data), RATE_HZ)
        ),
    }
    write_json(args.out, result)
    print(f"wrote {args.out}")


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return exit_code(lambda: run(args), args.debug)


if __name__ == "__main__":
    sys.exit(main())
