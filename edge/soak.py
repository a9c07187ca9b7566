"""``python -m edge soak``: a day of audio as fast as it goes, every sample accounted for.

A stretch of speech, noise, silence and a gap is heard again and again, by one recognizer in blocks
of all sizes and by another in one piece. They must say the same, memory must stay where it was
after the first minutes, and heard plus lost must be all that there was.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from edge import demo, machine
from edge.audio import read_file
from edge.errors import SerError, above_0, exit_code
from edge.events import Event
from edge.gate import CHUNK_SAMPLES, SpeechGate
from edge.model import Model
from edge.recognizer import Recognizer
from edge.storage import write_json

RESULT = Path(__file__).parent / "results" / "soak.json"
ALLOWED_MB = 2.0  # how much memory may grow after the first minute
GAP_S = 5.0
WARM = 2  # repetitions, of two minutes each, until everything has its place in memory
PAUSE_S = 40.0  # of silence in every repetition


def stretch(rate_hz: int) -> np.ndarray:
    """Return about two minutes: the demo clips, noise between them, and a long quiet end."""
    rng = np.random.default_rng(0)
    parts = []
    for clip in demo.clips():
        parts.append(read_file(clip.path, rate_hz))
        parts.append(
            10 ** rng.uniform(-5, -2) * rng.normal(size=round(rng.uniform(1, 5) * rate_hz))
        )
    parts.append(np.zeros(round(PAUSE_S * rate_hz)))
    samples = np.concatenate(parts).astype(np.float32)
    return np.pad(samples, (0, -len(samples) % CHUNK_SAMPLES))


def in_blocks(samples: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield ``samples`` in blocks of all sizes."""
    start = 0
    while start < len(samples):
        size = int(rng.integers(1, 8000))
        yield samples[start : start + size]
        start += size


def hear(recognizer: Recognizer, blocks: Iterable[np.ndarray], gap_samples: int) -> list[Event]:
    """Return what is said of ``blocks`` and of the gap after them."""
    events: list[Event] = []
    for block in blocks:
        events += recognizer.push(block)
    return events + recognizer.lost(gap_samples, "soak")


def soak(model: Model, hours: float) -> dict[str, Any]:
    """Hear ``hours`` of audio; return what happened.

    Raises
    ------
    SerError
        If a sample is unaccounted for, the two recognizers disagree, or memory grows.
    """
    rate_hz = model.card.frontend.sample_rate_hz
    one, other = (Recognizer(model, SpeechGate(rate_hz=rate_hz)) for _ in range(2))
    samples, gap = stretch(rate_hz), round(GAP_S * rate_hz)
    rng = np.random.default_rng(0)
    n_stretches = max(WARM + 1, round(hours * 3600 * rate_hz / (len(samples) + gap)))
    memory: list[float] = []
    n_events, cpu_s = 0, 0.0
    for number in range(1, n_stretches + 1):
        started = time.process_time()
        events = hear(one, in_blocks(samples, rng), gap)
        cpu_s += time.process_time() - started
        n_events += len(events)
        if events != hear(other, [samples], gap):
            raise SerError(f"repetition {number} was heard differently in one piece")
        expected = number * (len(samples) + gap)
        if not one.n_samples == one.n_heard + one.n_lost == expected:
            raise SerError(f"{one.n_heard} heard and {one.n_lost} lost, expected {expected}")
        memory.append(machine.memory_mb())
    grown = max(memory[WARM:]) - memory[WARM - 1]
    if grown > ALLOWED_MB:
        raise SerError(f"memory grew by {grown:.1f} MB, expected at most {ALLOWED_MB:g}: {memory}")
    return {
        "date": date.today().isoformat(),
        "hardware": machine.description(),
        "audio_hours": round(one.n_samples / rate_hz / 3600, 3),
        "n_repetitions": n_stretches,
        "n_samples": one.n_samples,
        "n_heard": one.n_heard,
        "n_lost": one.n_lost,
        "n_speech": one.n_speech,
        "n_events": n_events,
        "cpu_s_per_audio_s": round(cpu_s * rate_hz / one.n_samples, 6),
        "memory_after_first_minutes_mb": memory[WARM - 1],
        "memory_grown_mb": round(grown, 2),
    }


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m edge soak", description=__doc__)
    add = parser.add_argument
    add("--hours", type=above_0, default=24.0, help="of audio; default: 24")
    add("--model", type=Path, metavar="FILE", help="default: the shipped one")
    add("--out", type=Path, default=RESULT, help="default: edge/results/soak.json")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser


def run(args: argparse.Namespace) -> None:
    result = soak(Model(args.model), args.hours)
    write_json(args.out, result)
    for name, value in result.items():
        print(f"{name}: {value}")


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return exit_code(lambda: run(args), args.debug)


if __name__ == "__main__":
    sys.exit(main())
