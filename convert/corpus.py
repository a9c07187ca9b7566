"""``python -m convert.corpus RUN_DIR --clips DIR``: converted models against the trained one.

Every clip of a corpus is heard as the device hears it, in the windows that a recognizer asks
about, and judged by their mean; by models that hear samples in windows of the clip as it is, filled
up with zeros. The trained model answers in float32 through TensorFlow. What is measured goes to
``convert/results/parity.json``, from which the README's table is made.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from convert.frontend import heard_first
from convert.mlprogram import answering
from convert.run import Run, fold_folder
from convert.waveform import coreml_probs, tflite_probs
from edge.audio import read_file
from edge.card import Card
from edge.errors import AudioError, exit_code
from edge.machine import hardware
from edge.model import Model, interpreter_module, softmax
from edge.recognizer import HOP_S, Recognizer, hop_rows, window_starts
from edge.storage import write_json

RESULTS = Path(__file__).parent / "results" / "parity.json"
Probs = Callable[[np.ndarray], np.ndarray]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m convert.corpus", description=__doc__)
    add = parser.add_argument
    add("run_dir", type=Path, help="with what python -m convert left in it, in all its ways")
    add("--clips", type=Path, required=True, metavar="DIR", help="holds .wav or .flac files")
    add("--out", type=Path, default=RESULTS, metavar="FILE", help=f"default: {RESULTS.name}")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser


class Ear:
    """Stands in for a model: keeps what a recognizer asks about, (n_rows, n_features) each."""

    def __init__(self, card: Card) -> None:
        self.card = card
        self.windows: list[np.ndarray] = []

    def logits(self, rows: np.ndarray) -> np.ndarray:
        """Keep a window; every answer is as good as any other."""
        self.windows.append(rows)
        return np.zeros(len(self.card.labels), np.float32)


def windows_heard(clips: list[np.ndarray], card: Card) -> list[list[np.ndarray]]:
    """Return the windows of each clip (n_samples,), every one a stranger's; clips that have any."""
    heard, ear = [], Ear(card)
    recognizer = Recognizer(ear)  # type: ignore[arg-type]
    for samples in clips:
        ear.windows = []
        recognizer.reset()
        for _ in recognizer.events([samples]):
            pass
        if ear.windows:
            heard.append(ear.windows)
    return heard


def windows_of(samples: np.ndarray, card: Card) -> list[np.ndarray]:
    """Return the windows (n_samples,) of a clip, as many a second as the recognizer asks about."""
    frontend = card.frontend
    n = frontend.n_samples(card.n_rows)
    samples = np.pad(samples, (0, max(0, n - len(samples))))
    hop = hop_rows(HOP_S, frontend.hop_samples / frontend.sample_rate_hz)
    starts = window_starts(frontend.n_rows(len(samples)), card.n_rows, hop)
    at = [start * frontend.hop_samples for start in starts]
    return [samples[a : a + n] for a in at]


def models(fold: Path) -> dict[str, tuple[Path, Probs, bool]]:
    """Return what was converted: by name its file, its answer, and whether it hears samples."""
    found: dict[str, tuple[Path, Probs, bool]] = {}
    for path in sorted((fold / "tflite").glob("*.tflite")):
        found[f"TFLite {path.stem.split('.')[-1]}"] = (path, Model(path).probs, False)
    for path in sorted((fold / "coreml").glob("*.mlpackage")):
        card = Card.read_for(path)
        found[f"Core ML {path.stem.split('.')[-1]}"] = (path, answering(path, card), False)
    for path in sorted((fold / "waveform").glob("*.tflite")):
        found["TFLite waveform"] = (path, tflite_probs(path), True)
    for path in sorted((fold / "waveform").glob("*.mlpackage")):
        found["Core ML waveform"] = (path, coreml_probs(path, Card.read_for(path)), True)
    return found


def compare(expected: list[np.ndarray], found: list[np.ndarray]) -> dict[str, Any]:
    """Return how two models' probabilities differ; one (n_windows, n_labels) for each clip."""
    one, other = np.concatenate(expected), np.concatenate(found)
    clips = [(a.mean(axis=0), b.mean(axis=0)) for a, b in zip(expected, found, strict=True)]
    return {
        "clip_agreement": float(np.mean([a.argmax() == b.argmax() for a, b in clips])),
        "window_agreement": float(np.mean(one.argmax(axis=1) == other.argmax(axis=1))),
        "clip_prob_difference": round(max(float(np.abs(a - b).max()) for a, b in clips), 7),
        "prob_difference": round(float(np.abs(one - other).max()), 7),
    }


def ratio(hears: Probs, split: Probs, windows: list[np.ndarray]) -> float:
    """Return the time of one way of answering over that of another, taken in turns.

    Every window is the same work, so the fastest of each is what it costs undisturbed.
    """
    times = []
    for samples in windows:
        moments = [time.perf_counter()]
        for probs in (hears, split):
            probs(samples)
            moments.append(time.perf_counter())
        times.append(np.diff(moments))
    first, second = np.min(times, axis=0)
    return float(first / second)


def run(args: argparse.Namespace) -> None:
    interpreter_module()  # before TensorFlow: see convert.tflite.to_tflite
    fold = fold_folder(args.run_dir)
    trained = Run(fold, "")
    card = trained.card
    paths = sorted(p for p in args.clips.glob("*") if p.suffix in (".wav", ".flac"))
    if not paths:
        raise AudioError(f"{args.clips}: expected .wav or .flac files")
    clips = [read_file(path, card.frontend.sample_rate_hz) for path in paths]
    heard, sound = windows_heard(clips, card), [windows_of(samples, card) for samples in clips]
    logits_of = trained.network()

    def answers(probs: Probs, clips: list[list[np.ndarray]]) -> list[np.ndarray]:
        return [np.stack([probs(window) for window in clip]) for clip in clips]

    def trained_probs(window: np.ndarray) -> np.ndarray:
        return softmax(logits_of(window) / card.temperature)

    expected = answers(trained_probs, heard)
    expected_of_sound = answers(lambda x: trained_probs(heard_first(x, card.frontend)), sound)
    figures: dict[str, Any] = {}
    made = models(fold)
    for name, (path, probs, hears_samples) in made.items():
        files = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]
        wanted, asked = (expected_of_sound, sound) if hears_samples else (expected, heard)
        figures[name] = {
            "n_bytes": sum(f.stat().st_size for f in files),
            **compare(wanted, answers(probs, asked)),
        }
        print(name, figures[name], file=sys.stderr)
    result: dict[str, Any] = {
        "command": "python -m convert.corpus RUN_DIR --clips " + args.clips.name,
        "date": datetime.date.today().isoformat(),
        "hardware": hardware(),
        "n_clips": len(heard),
        "n_windows": sum(map(len, heard)),
        "models": figures,
    }
    if {"TFLite waveform", "TFLite float32"} <= set(made):
        features, whole = made["TFLite float32"][1], made["TFLite waveform"][1]
        result["waveform_time_ratio"] = round(
            ratio(
                whole,
                lambda samples: features(heard_first(samples, card.frontend)),
                [samples for clip in sound for samples in clip],
            ),
            2,
        )
    write_json(args.out, result)


def main(argv: list[str] | None = None) -> int:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    args = build_parser().parse_args(argv)
    return exit_code(lambda: run(args), args.debug)


if __name__ == "__main__":
    sys.exit(main())
