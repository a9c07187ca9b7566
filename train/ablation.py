"""``python -m train.ablation --out FILE``: what each part of the recipe is worth.

The preset that ships is trained again and again with one thing changed, on EMO-DB without the two
speakers whom the shipped model is tested on; two of the other eight, a woman and a man, are left
out at a time. Strangers first, then the same with the speakers known, then strangers elsewhere:
each clip in a noise of its own, half of them in a room, a quarter over a telephone, a quarter too
loud, and all through another microphone, drawn as those of training are, but none of those. All
clips together. The cross-entropy of the answers, calibrated, moves less by chance than the share
that is right.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import sys
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from edge.audio import read_file
from edge.card import Card
from edge.errors import count, exit_code
from edge.frontend import LOG_MEL, Frontend
from edge.machine import hardware
from edge.model import softmax
from edge.storage import write_json
from train import corpora, protocols
from train import run as training
from train.__main__ import EPOCHS, KEPT, data_folder, default_jobs
from train.augment import circumstances, microphone
from train.calibrate import Answers, fit_temperature
from train.dataset import STREAM_WINDOW_S, Features, clip_features, device_windows
from train.fit import clip_means, recall
from train.presets import PRESETS
from train.protocols import Fold
from train.report import fold_results

HELD_OUT = ("03", "09")
PAIRS = (("08", "10"), ("11", "13"), ("12", "14"), ("15", "16"))
RECIPE = "the recipe"

# What is changed: fields of the preset and of the front end, and the window's seconds. Those that
# hear the same speeds and noises follow each other, since clips are then read once.
Changes = tuple[dict[str, Any], dict[str, Any], float]
CONVS = PRESETS["timnet-live"].stems[:1]
VARIANTS: dict[str, Changes] = {
    RECIPE: ({}, {}, STREAM_WINDOW_S),
    "one microphone": ({"microphones": 0.0}, {}, STREAM_WINDOW_S),
    "one network of 48 filters, behind convolutions": (
        {"stems": CONVS, "n_filters": 48}, {}, STREAM_WINDOW_S,
    ),
    "one network of 48 filters, without": (
        {"stems": ((),), "beside": 0, "n_filters": 48}, {}, STREAM_WINDOW_S,
    ),
    "the training set's mean and deviation for everybody": ({}, {"adapt_s": 0.0}, STREAM_WINDOW_S),
    "not taught by a larger network": ({"taught": 0.0}, {}, STREAM_WINDOW_S),
    "no noise": ({"n_noisy": 0}, {}, STREAM_WINDOW_S),
    "no other speeds": ({"speeds": ()}, {}, STREAM_WINDOW_S),
    "without pitch and voicing": ({"beside": 0}, {"pitch": False}, STREAM_WINDOW_S),
    "the lesson counting three times as much": ({"taught": 3.0}, {}, STREAM_WINDOW_S),
    "dropout as in the paper": ({"dropout": 0.1, "dropout_last": 0.1}, {}, STREAM_WINDOW_S),
    "two other speeds": ({"speeds": (0.9, 1.1)}, {}, STREAM_WINDOW_S),
    "every clip counted alike": ({"balanced": False}, {}, STREAM_WINDOW_S),
    "no windows that are not full yet": ({"short": 0.0}, {}, STREAM_WINDOW_S),
    "not bounded": ({"bounded": False}, {}, STREAM_WINDOW_S),
    "windows of 2 s": ({}, {}, 2.0),
    "8 blocks": ({"n_blocks": 8}, {}, STREAM_WINDOW_S),
}  # fmt: skip


def folds_of(corpus: corpora.Corpus) -> list[Fold]:
    """Return a fold for each of `PAIRS`."""
    return [
        dataclasses.replace(protocols.holdout(corpus, pair)[0], name="-".join(pair))
        for pair in PAIRS
    ]


def pooled(
    results: list[dict[str, Any]], labels: tuple[str, ...], prefix: str = ""
) -> dict[str, float]:
    """Return UAR in % and cross-entropy over the clips of all folds; nothing without answers.

    The cross-entropy is that at the best temperature for these clips.
    """
    clips = [clip for result in results for clip in result["clips"]]
    if f"{prefix}probs" not in clips[0]:
        return {}
    true = np.array([labels.index(clip["label"]) for clip in clips])
    probs = np.array([clip[f"{prefix}probs"] for clip in clips])
    answers = Answers(np.log(np.maximum(probs, 1e-7)), np.arange(len(probs)), true)
    right = answers.probs(fit_temperature(answers))[np.arange(len(probs)), true]
    return {
        f"{prefix}uar": round(100 * recall(true, probs.argmax(axis=1)), 1),
        f"{prefix}cross_entropy": round(float(-np.log(right).mean()), 3),
    }


@functools.lru_cache(maxsize=1)  # for the next variant, which may hear the same
def heard_elsewhere(corpus: corpora.Corpus, frontend: Frontend) -> list[Features]:
    """Return every clip in a noise of its own and through a microphone of its own."""
    heard: list[Features] = []
    for number, clip in enumerate(corpus.clips):
        others = circumstances(f"elsewhere {number}", frontend.sample_rate_hz, (), n_noisy=1)
        samples = read_file(clip.path, frontend.sample_rate_hz)
        _, noisy = clip_features(samples, frontend, 0, others, seed=number)
        added = microphone(frontend, np.random.default_rng(number))
        heard.append((dataclasses.replace(noisy, rows=noisy.rows + added),))
    return heard


def answers(folder: Path, clips: list[Features]) -> np.ndarray:
    """Return what a fold's network makes of ``clips``, every one a stranger's, (n, n_labels)."""
    network, card = training.load_network(folder), Card.read(folder / "card.json")
    windows, owners = device_windows(clips, card.n_rows, card.frontend)
    logits = [network(part).numpy() for part in np.array_split(windows, 8)]
    return clip_means(softmax(np.concatenate(logits)), owners, len(clips))


def variant(
    corpus: corpora.Corpus, changes: Changes, out: Path, args: argparse.Namespace, console: Console
) -> dict[str, Any]:
    """Train one variant, or what is missing of it, and return its figures."""
    model, hears, window_s = changes
    frontend = dataclasses.replace(LOG_MEL, **hears)
    settings = training.Settings(
        corpus=corpus.name, clips_sha256=training.fingerprint(corpus), protocol="pairs",
        held_out=(), preset="timnet-live",
        model=dataclasses.asdict(dataclasses.replace(PRESETS["timnet-live"], **model)),
        frontend=frontend.to_json(), window_s=window_s, epochs=args.epochs, seed=0,
    )  # fmt: skip
    folds = folds_of(corpus)
    n_jobs = min(len(folds), args.jobs or default_jobs())
    training.run(corpus, folds, settings, out, n_jobs, None, console)
    results = list(fold_results(out, folds, corpus).values())
    elsewhere = heard_elsewhere(corpus, dataclasses.replace(frontend, adapt_s=0.0))
    for fold, result in zip(folds, results, strict=True):
        probs = answers(out / fold.name, [elsewhere[i] for i in fold.test])
        for clip, own in zip(result["clips"], probs, strict=True):
            clip["elsewhere_probs"] = own
    return {
        "train_uar": round(100 * float(np.mean([r["history"]["uar"][-1] for r in results])), 1),
        "n_parameters": results[0]["n_parameters"],
        **pooled(results, corpus.labels),
        **pooled(results, corpus.labels, "adapted_"),
        **pooled(results, corpus.labels, "elsewhere_"),
    }


def run(args: argparse.Namespace) -> None:
    console = Console(stderr=True)
    everybody = corpora.load("emodb", data_folder("emodb", args.data))
    corpus = corpora.without(everybody, HELD_OUT)
    found: dict[str, Any] = {}
    for name, changes in VARIANTS.items():
        console.print(name)
        found[name] = variant(corpus, changes, args.runs / name.replace(" ", "-"), args, console)
        console.print(found[name])
        written = {"command": "python -m train.ablation --out FILE", "epochs": args.epochs}
        written |= {"hardware": hardware(), "date": date.today().isoformat(), "variants": found}
        write_json(args.out, written)


def main(argv: list[str] | None = None) -> int:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # workers inherit it
    parser = argparse.ArgumentParser(prog="python -m train.ablation", description=__doc__)
    add = parser.add_argument
    add("--data", type=Path, metavar="DIR", help="EMO-DB's folder; default: $SER_DATA/emodb")
    add("--epochs", type=count, default=EPOCHS, help=f"default: {EPOCHS}")
    add("--jobs", type=count, metavar="N", help="folds at a time; default: one for each core")
    add("--runs", type=Path, default=Path("runs/ablation"), metavar="DIR",
        help="default: runs/ablation")  # fmt: skip
    add("--out", type=Path, required=True, metavar="FILE", help="JSON file")
    add("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_args(argv)
    return exit_code(lambda: run(args), args.debug, KEPT)


if __name__ == "__main__":
    sys.exit(main())
