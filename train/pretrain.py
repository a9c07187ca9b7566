"""``python -m train.pretrain``: the weights that the recipe starts from, learnt from other voices.

A corpus of acted emotions has few speakers. What the teacher (`train.teacher`) makes of speech can
be learnt from anybody's, without labels; so the network first learns that alone, from the
characters of two games, and every training of the recipe then starts from there. Neither the
voices nor this command are needed for that: ``start.npz`` holds the weights, ``start.json`` says
where they come from.

The games' speech is in packages of Debian 12::

    apt-get download fillets-ng-data-cs fillets-ng-data-nl hedgewars-data
    for package in *.deb; do dpkg -x "$package" voices; done
    python -m train.pretrain --data voices
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import natsort
import numpy as np
from rich.console import Console
from rich.progress import track

from edge.errors import SerError, count, exit_code, stop_if_asked
from edge.frontend import LOG_MEL
from edge.machine import hardware
from edge.storage import write_json, write_with
from train.corpora import Clip, Corpus, duration_s
from train.presets import PRESETS

START = Path(__file__).with_name("start.npz")

PRESET = "timnet-live"
EPOCHS = 60  # Assumed: more was not tried.
LEAST_S = 0.6  # Assumed: what is shorter is a cry.
MOST_CLIPS = 250  # Assumed: of one voice.
# Who speaks, by a clip's path: the two fishes in each language, and every voice but the robot's.
PACKAGES = {
    "fillets-ng-data-cs": r"fillets-ng/sound/.+/cs/[^/]+-([mv])-[^/]+\.ogg",
    "fillets-ng-data-nl": r"fillets-ng/sound/.+/nl/[^/]+-([mv])-[^/]+\.ogg",
    "hedgewars-data": r"hedgewars/Data/Sounds/voices/((?!Robot)\w+)/[^/]+\.ogg",
}
LICENCE = "Fish Fillets NG: GPL 2; sounds of Hedgewars: GFDL 1.3"


def voices(root: Path) -> Corpus:
    """Return the voices in the unpacked packages under ``root``, without labels.

    Raises
    ------
    SerError
        If one of the packages is not there, or a clip cannot be read.
    """
    paths = natsort.natsorted(root.rglob("*.ogg"), key=str)
    every: list[Clip] = []
    for package, pattern in PACKAGES.items():
        matches = [(path, re.search(pattern, path.as_posix())) for path in paths]
        clips = [Clip(path, "", f"{package}-{match[1]}") for path, match in matches if match]
        if not clips:
            raise SerError(
                f"{root}: no voices of {package}; expected the packages that "
                f"train/pretrain.py names, unpacked with dpkg -x PACKAGE.deb {root}"
            )
        every += clips
    long = [clip for clip in every if duration_s(clip.path) >= LEAST_S]
    rng, chosen = np.random.default_rng(0), []
    for voice in dict.fromkeys(clip.speaker for clip in long):
        own = [clip for clip in long if clip.speaker == voice]
        chosen += [own[number] for number in np.sort(rng.permutation(len(own))[:MOST_CLIPS])]
    return Corpus("voices", ("",), tuple(chosen), LICENCE)


def start_weights(trunk: Sequence[Any]) -> list[np.ndarray]:
    """Return what the variables ``trunk`` of a network start from (`train.model.TimNet.trunk`).

    Raises
    ------
    SerError
        If they are those of another network.
    """
    with np.load(START) as stored:
        weights = [stored[f"weight_{number}"] for number in range(len(stored.files))]
    if [w.shape for w in weights] != [tuple(v.shape) for v in trunk]:
        raise SerError(
            f"{START.name} holds the start of {PRESET} as it ships, not of a network of another "
            "shape; train that one with --no-pretrained"
        )
    return weights


def about() -> dict[str, Any]:
    """Return where the weights to start from come from."""
    found: dict[str, Any] = json.loads(START.with_suffix(".json").read_text("utf-8"))
    return found


def run(args: argparse.Namespace) -> None:
    from train.dataset import STREAM_WINDOW_S, TrainingWindows, measured
    from train.fit import Trainer
    from train.run import read_clips
    from train.teacher import Lessons

    console = Console(stderr=True)
    corpus = voices(args.data)
    console.print(f"{len(corpus.clips)} clips of {len(corpus.speakers)} voices: {corpus.licence}")
    config = dataclasses.replace(PRESETS[PRESET], pretrained=False)
    features = read_clips(
        corpus, LOG_MEL, 0, config.speeds, config.n_noisy, True, os.cpu_count() or 1, console
    )
    speakers = [clip.speaker for clip in corpus.clips]
    frontend = measured(LOG_MEL, features, speakers)
    n_rows = frontend.n_rows(round(STREAM_WINDOW_S * frontend.sample_rate_hz))
    nobodys = np.zeros(len(features), int)
    windows = TrainingWindows(features, speakers, nobodys, frontend, n_rows, config)
    lessons = Lessons([np.asarray(clip[0].taught) for clip in features], speakers)
    trainer = Trainer(config, n_rows, frontend.n_features, n_labels=2)
    trainer.reset(0, labels=np.array([], int))  # no label counts
    rng, started = np.random.default_rng(0), time.monotonic()
    for epoch in track(range(args.epochs), "learning", console=console, transient=True):
        stop_if_asked()
        drawn, spans_s = windows.draw(rng)
        lesson = lessons.of(spans_s)
        trainer.epoch(drawn, nobodys, rng, epoch / args.epochs, lesson)
    unexplained = trainer.lesson_loss(drawn, lesson)
    console.print(f"{unexplained:.3f} of the lesson left")
    arrays = {f"weight_{n}": np.array(v) for n, v in enumerate(trainer.model.trunk)}
    written = {
        "command": "python -m train.pretrain",
        "n_clips": len(corpus.clips),
        "n_voices": len(corpus.speakers),
        "licence": corpus.licence,
        "epochs": args.epochs,
        "lesson_left": round(unexplained, 3),
        "train_s": round(time.monotonic() - started),
        "hardware": hardware(),
        "date": date.today().isoformat(),
    }
    write_with(args.out, lambda path: np.savez_compressed(path, **arrays))
    write_json(args.out.with_suffix(".json"), written)


def main(argv: list[str] | None = None) -> int:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # workers inherit it
    parser = argparse.ArgumentParser(
        prog="python -m train.pretrain",
        description="Learn the weights that the recipe starts from, from unlabelled voices.",
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="DIR", help="the packages, unpacked")
    add("--epochs", type=count, default=EPOCHS, help=f"default: {EPOCHS}")
    add("--out", type=Path, default=START, metavar="FILE.npz", help="default: train/start.npz")
    add("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_args(argv)
    return exit_code(lambda: run(args), args.debug, "stopped; nothing was written")


if __name__ == "__main__":
    sys.exit(main())
