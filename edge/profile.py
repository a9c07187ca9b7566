"""``python -m edge profile``: what the recognizer costs, stage by stage, without a microphone.

Times are of one process on one thread, the garbage collector as always; every figure is also
given as a ratio to a peer if one is measured in the same sitting (``--peer``).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from edge import demo, machine
from edge.audio import BLOCK_S, Resampler, read_file
from edge.compare import STAGES, compare, picture
from edge.errors import count, exit_code
from edge.gate import SpeechGate
from edge.model import Model, default_model, runtime
from edge.peers import json_of, peer, published_recipe
from edge.recognizer import Recognizer
from edge.report import picture_path
from edge.storage import write_json

DEVICE_RATE_HZ = 48_000  # what most USB microphones offer
ROUNDS = 3


class Stopwatch:
    """Wall-clock and processor time of the calls of each stage, and of each block as a whole."""

    def __init__(self) -> None:
        self.wall_ms: dict[str, list[float]] = {}
        self.cpu_s: dict[str, float] = {}

    def measure(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``function``, timed under the name ``stage``."""
        times = self.wall_ms.setdefault(stage, [])
        self.cpu_s.setdefault(stage, 0.0)

        def timed(*arguments: Any) -> Any:
            started, cpu = time.perf_counter(), time.process_time()
            result = function(*arguments)
            self.cpu_s[stage] += time.process_time() - cpu
            times.append(1e3 * (time.perf_counter() - started))
            return result

        return timed


def scene(rate_hz: int) -> np.ndarray:
    """Return the demo clips one after the other, without pauses: continuous speech."""
    return np.concatenate([read_file(clip.path, rate_hz) for clip in demo.clips()])


def profile_model(path: Path, n_threads: int) -> dict[str, Any]:
    """Return the costs of one model: of each stage and of all, in speech and in silence."""
    model = Model(path, n_threads)
    recognizer = Recognizer(model, SpeechGate(rate_hz=model.card.frontend.sample_rate_hz))
    speech = scene(DEVICE_RATE_HZ)
    silence = (1e-4 * np.random.default_rng(0).normal(size=len(speech))).astype(np.float32)
    _run(recognizer, speech, None)  # warm: caches, lazy imports, the allocator
    stages = Stopwatch()
    _run(recognizer, np.tile(speech, ROUNDS), stages)
    seconds = ROUNDS * len(speech) / DEVICE_RATE_HZ
    # Taking the time costs time, so what a second of audio costs is measured without.
    speech_cpu_s = min(_cpu_s(recognizer, speech) for _ in range(ROUNDS)) / (seconds / ROUNDS)
    silence_cpu_s = min(_cpu_s(recognizer, silence) for _ in range(ROUNDS)) / (seconds / ROUNDS)
    return {
        "model": path.name,
        "n_threads": n_threads,
        "stages": {
            name: _quantiles(stages.wall_ms[name]) | {
                "cpu_s_per_audio_s": round(stages.cpu_s[name] / seconds, 6)
            }
            for name in (*STAGES, "block", "hop")
        },
        "speech_cpu_s_per_audio_s": round(speech_cpu_s, 6),
        "silence_cpu_s_per_audio_s": round(silence_cpu_s, 6),
    }  # fmt: skip


def _run(recognizer: Recognizer, samples: np.ndarray, stages: Stopwatch | None) -> None:
    """Hear ``samples`` at the device's rate; time every stage if there is a stopwatch."""
    rate_hz, n = recognizer.rate_hz, round(BLOCK_S * DEVICE_RATE_HZ)
    resampler = Resampler(DEVICE_RATE_HZ, rate_hz)
    recognizer.reset()
    blocks = [samples[i : i + n] for i in range(0, len(samples), n)]
    if stages is None:
        for block in blocks:
            recognizer.push(resampler.push(block))
        recognizer.finish()
        return
    watched: list[tuple[Any, str]] = [
        (recognizer.gate, "gate"), (recognizer.windows.features, "features"),
        (recognizer.smoother, "smoothing"),
    ]  # fmt: skip
    for owner, stage in watched:
        owner.push = stages.measure(stage, owner.push)
    recognizer.ask = stages.measure("model", recognizer.ask)  # type: ignore[method-assign]
    resample = stages.measure("resample", resampler.push)
    hear = stages.measure("block", lambda block: recognizer.push(resample(block)))
    hops = stages.wall_ms.setdefault("hop", [])
    stages.cpu_s["hop"] = 0.0
    for block in blocks:
        n_before = len(stages.wall_ms["model"])
        hear(block)
        n_estimates = len(stages.wall_ms["model"]) - n_before
        # Where an utterance ends, a block may hold two estimates: two hops.
        hops += [stages.wall_ms["block"][-1] / n_estimates] * n_estimates if n_estimates else []
    for owner, _ in watched:
        del owner.push
    del recognizer.ask  # type: ignore[method-assign]


def _cpu_s(recognizer: Recognizer, samples: np.ndarray) -> float:
    started = time.process_time()
    _run(recognizer, samples, None)
    return time.process_time() - started


def _quantiles(times_ms: list[float]) -> dict[str, float]:
    if not times_ms:
        return dict.fromkeys(("p50_ms", "p95_ms", "p99_ms", "max_ms"), 0.0)
    values = np.percentile(times_ms, [50, 95, 99, 100])
    names = ("p50_ms", "p95_ms", "p99_ms", "max_ms")
    return {name: round(float(v), 4) for name, v in zip(names, values, strict=True)}


# In a process of its own: what has to be loaded, and when the first estimate is there.
COLD = """
import time, json, sys
imports = time.process_time()
from pathlib import Path
from edge import demo
from edge.audio import file_blocks
from edge.events import Estimate
from edge.machine import peak_memory_mb
from edge.model import Model
from edge.peers import json_of, peer, published_recipe
from edge.recognizer import Recognizer
load = time.process_time()
recognizer = Recognizer(Model(Path(sys.argv[1])))
first = time.process_time()
for event in recognizer.events(file_blocks(demo.clips()[2].path, recognizer.rate_hz)):
    if isinstance(event, Estimate):
        break
done = time.process_time()
for clip in demo.clips():
    recognizer.reset()
    list(recognizer.events(file_blocks(clip.path, recognizer.rate_hz)))
print(json.dumps({"python_cpu_s": imports, "imports_cpu_s": load - imports,
    "model_cpu_s": first - load, "first_estimate_cpu_s": done - first, "total_cpu_s": done,
    "peak_memory_mb": peak_memory_mb()}))
"""


def cold_start(path: Path) -> dict[str, float]:
    """Return processor time from nothing to the first estimate, the best of some processes."""
    runs = [json_of([sys.executable, "-c", COLD, str(path.resolve())]) for _ in range(ROUNDS)]
    best = min(runs, key=lambda run: float(run["total_cpu_s"]))
    return {name: round(value, 4) for name, value in best.items()}


def table(result: dict[str, Any]) -> str:
    """Return a result for the terminal."""
    hardware = result["hardware"]
    lines = [
        f"{hardware['processor']}, {hardware['machine']}, {result['runtime']}, {result['date']}"
    ]
    for run in result["runs"]:
        lines.append(f"\n{run['model']}, {run['n_threads']} thread(s)")
        lines.append(
            f"{'':10} {'p50':>8} {'p95':>8} {'p99':>8} {'max':>8}  ms; CPU s per s of audio"
        )
        for name, stage in run["stages"].items():
            times = " ".join(
                f"{stage[key]:8.3f}" for key in ("p50_ms", "p95_ms", "p99_ms", "max_ms")
            )
            cost = f"{stage['cpu_s_per_audio_s']:9.5f}" if name != "hop" else ""
            lines.append(f"{name:10} {times} {cost}")
        lines.append(
            f"all: {run['speech_cpu_s_per_audio_s']:.5f} in speech, "
            f"{run['silence_cpu_s_per_audio_s']:.5f} in silence (CPU s per s of audio)"
        )
    cold = result["cold_start"]
    lines.append(
        f"\ncold start {cold['total_cpu_s']:.3f} CPU s: Python {cold['python_cpu_s']:.3f}, imports "
        f"{cold['imports_cpu_s']:.3f}, model {cold['model_cpu_s']:.3f}, first estimate "
        f"{cold['first_estimate_cpu_s']:.3f}; peak memory {cold['peak_memory_mb']:.1f} MB"
    )
    lines += [f"{name}: {value:.4g}" for name, value in result["ratios"].items()]
    return "\n".join(lines)


def ratios(result: dict[str, Any]) -> dict[str, float]:
    """Return the first run against the peers that were measured in the same sitting."""
    run = result["runs"][0]
    core = sum(
        run["stages"][stage]["cpu_s_per_audio_s"] for stage in ("features", "model", "smoothing")
    )
    found = {}
    if "peer" in result:
        cost = result["peer"]["cpu_s_per_audio_s"]
        found["features, model and smoothing / peer"] = core / cost
        found["everything in speech / peer"] = run["speech_cpu_s_per_audio_s"] / cost
        found["everything in silence / peer"] = run["silence_cpu_s_per_audio_s"] / cost
    for name, other in result.get("published", {}).items():
        ratio = other["cpu_s_per_audio_s"] / core
        found[f"published recipe, {name} / features, model and smoothing"] = ratio
    # Both from the pass that times the stages, which costs time itself.
    gate, block = (run["stages"][stage]["cpu_s_per_audio_s"] for stage in ("gate", "block"))
    found["gate / all the rest, in speech"] = gate / (block - gate)
    return {name: round(value, 4) for name, value in found.items()}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m edge profile", description=__doc__)
    add = parser.add_argument
    add("--model", type=Path, action="append", metavar="FILE",
        help="repeat it to compare precisions and formats; default: the shipped one")  # fmt: skip
    add("--threads", type=count, action="append", metavar="N", help="repeat it; default: 1")
    add("--peer", metavar="COMMAND", help="prints cpu_s_per_audio_s of a peer as JSON")
    add("--published", action="store_true", help="measure the published recipe (needs Keras)")
    add("--out", type=Path, metavar="FILE", help="write the result as JSON")
    add("--png", type=picture_path, metavar="FILE", help="draw the result, or those of --compare")
    add("--compare", type=Path, nargs="+", metavar="FILE", help="results to show side by side")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser


def run(args: argparse.Namespace) -> None:
    if args.compare:
        print(compare(args.compare))
        if args.png:
            picture(args.compare, args.png)
        return
    models, threads = args.model or [default_model()], args.threads or [1]
    result: dict[str, Any] = {
        "date": date.today().isoformat(),
        "hardware": machine.description(),
        "runtime": runtime(),
        "runs": [profile_model(path, n) for path in models for n in threads],
        "cold_start": cold_start(models[0]),
    }
    if args.peer:
        result["peer"] = peer(args.peer)
    if args.published:
        result["published"] = published_recipe()
    result["ratios"] = ratios(result)
    result["hardware_after"] = machine.condition()
    print(table(result))
    if args.out:
        write_json(args.out, result)
    if args.png and args.out:
        picture([args.out], args.png)


def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.png and not (args.out or args.compare):
        parser.error("--png draws what --out writes or --compare names")
    return exit_code(lambda: run(args), args.debug)


if __name__ == "__main__":
    sys.exit(main())
