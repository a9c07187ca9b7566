"""``python -m train.table``: TIM-Net and its published variants, on random folds and on strangers.

Every preset is trained with the published front end on the ten published folds and with each
speaker left out, in a shorter schedule than the published 500 epochs (see `SCHEDULE`). The last
epoch counts. For some presets a random forest on the embedding of the same networks is measured
beside the networks. The result is one JSON file, written after every cell, and at the end a
picture of how EMO-DB's random folds were learned. A cell that is there with other epochs is
measured anew; one with fewer seeds gets those that are missing, and keeps forest, size and curves
of its first.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from edge.card import Card
from edge.errors import count, exit_code
from edge.frontend import PUBLISHED
from edge.machine import hardware
from edge.storage import write_json, write_with
from train import corpora, protocols
from train import run as training
from train.__main__ import KEPT, data_folder, default_jobs
from train.dataset import corpus_features, default_window_s, device_windows
from train.fit import recall
from train.presets import PRESETS, multiply_accumulates
from train.protocols import Fold
from train.report import fold_results

ROWS = (
    "timnet", "timnet-td", "timnet-td-sa", "timnet-td-sa-cl", "timnet-td-sh", "timnet-td-cl",
    "timnet-all",
)  # fmt: skip
CORPORA = ("emodb", "savee")
PROTOCOLS = {"sd10": protocols.sd10, "loso": protocols.loso}
EPOCHS = 30
# A quarter of the published batch makes four times the steps of an epoch; the rate falls to 0 from
# four times the published one. Assumed: of that and lower rates it left the least loss on the
# training clips of one fold.
SCHEDULE: dict[str, Any] = {"batch_size": 16, "schedule": "cosine", "learning_rate": 4e-3}
FORESTS = ("timnet", "timnet-all")
N_TREES = 500  # Assumed: more change nothing.
CURVES = ("loss", "uar", "test_loss", "test_uar")


def asked(args: argparse.Namespace) -> dict[str, Any]:
    """Return what a cell depends on besides its name."""
    return {"epochs": args.epochs, "schedule": SCHEDULE}


def spread(uars: list[float], wars: list[float]) -> dict[str, float]:
    """Return mean and deviation over folds."""
    return {
        "uar_mean": float(np.mean(uars)), "uar_std": float(np.std(uars)),
        "war_mean": float(np.mean(wars)), "war_std": float(np.std(wars)),
    }  # fmt: skip


def curves(values: np.ndarray) -> dict[str, list[float]]:
    """Return what was kept of every epoch, of shape (CURVES, epochs), by name."""
    return {name: np.round(row, 4).tolist() for name, row in zip(CURVES, values, strict=True)}


def rise(losses: np.ndarray) -> float:
    """Return how far a curve climbs, all in all, over how far it gets down; 0 if nowhere."""
    fall = losses[0] - losses.min()
    return float(np.diff(losses).clip(0).sum() / fall) if fall else 0.0


def forest(
    out: Path, folds: list[Fold], corpus: corpora.Corpus, window_samples: int
) -> dict[str, float]:
    """Return how a random forest does on what the output layers of ``out`` see."""
    from sklearn.ensemble import RandomForestClassifier

    features = list(corpus_features(corpus, PUBLISHED, window_samples))
    labels = np.array([corpus.labels.index(clip.label) for clip in corpus.clips])
    uars, wars = [], []
    for fold in folds:
        frontend = Card.read(out / fold.name / "card.json").frontend
        network = training.load_network(out / fold.name)
        windows, _ = device_windows(features, len(features[0][0].rows), frontend)
        embedding = np.concatenate([network.embed(w) for w in np.array_split(windows, 8)])
        taught, asked = list(fold.train), list(fold.test)
        trees = RandomForestClassifier(N_TREES, random_state=0, n_jobs=-1)
        said = trees.fit(embedding[taught], labels[taught]).predict(embedding[asked])
        uars.append(recall(labels[asked], said))
        wars.append(float((said == labels[asked]).mean()))
    return spread(uars, wars)


def int8_bytes(fold: Path, name: str) -> int:
    """Return the size of a fold's network as int8."""
    command = [sys.executable, "-m", "convert", str(fold), "--precision", "int8", "--name", name]
    # A conversion that strays too far ends with an error, but not before its size is known.
    subprocess.run(command, capture_output=True, check=False)
    parity = json.loads((fold / "tflite" / f"{name}.parity.json").read_text("utf-8"))
    return int(parity["models"]["int8"]["n_bytes"])


def folds_trained(
    corpus: corpora.Corpus,
    preset: str,
    protocol: str,
    seed: int,
    args: argparse.Namespace,
    console: Console,
) -> tuple[Path, list[dict[str, Any]]]:
    """Train the folds of a cell, or what is missing of them; return their run and results."""
    folds = PROTOCOLS[protocol](corpus)
    settings = training.Settings(
        corpus=corpus.name, clips_sha256=training.fingerprint(corpus), protocol=protocol,
        held_out=(), preset=preset,
        model=dataclasses.asdict(dataclasses.replace(PRESETS[preset], **SCHEDULE)),
        frontend=PUBLISHED.to_json(), window_s=default_window_s(corpus.name, PUBLISHED),
        epochs=args.epochs, seed=seed,
    )  # fmt: skip
    out = args.runs / f"{corpus.name}-{preset}-{protocol}-{args.epochs}-{seed}"
    n_jobs = min(len(folds), args.jobs or default_jobs())
    training.run(corpus, folds, settings, out, n_jobs, None, console)
    return out, list(fold_results(out, folds, corpus).values())


def measured_now() -> dict[str, str]:
    """Return when and on what a cell got its last seed."""
    return {"date": date.today().isoformat(), "hardware": hardware()}


def recalls(results: list[dict[str, Any]]) -> dict[str, float]:
    """Return mean and deviation over the folds of one seed."""
    return spread([r["uar"] for r in results], [r["war"] for r in results])


def cell(
    corpus: corpora.Corpus,
    preset: str,
    protocol: str,
    n_bytes: int | None,
    args: argparse.Namespace,
    console: Console,
) -> dict[str, Any]:
    """Return the figures of one cell of the table, with its first seed.

    ``n_bytes`` is the network's size as int8; None if no other cell has it yet.
    """
    out, results = folds_trained(corpus, preset, protocol, 0, args, console)
    folds = PROTOCOLS[protocol](corpus)
    window_samples = round(default_window_s(corpus.name, PUBLISHED) * PUBLISHED.sample_rate_hz)
    histories = [result["history"] for result in results]
    return {
        "seeds": [recalls(results)],
        "forest": forest(out, folds, corpus, window_samples) if preset in FORESTS else None,
        "n_parameters": results[0]["n_parameters"],
        "n_macs": multiply_accumulates(
            PRESETS[preset], PUBLISHED.n_rows(window_samples), PUBLISHED.n_features,
            len(corpus.labels),
        ),
        "int8_bytes": n_bytes or int8_bytes(out / folds[0].name, preset),
        **asked(args),
        "curves": curves(np.mean([[h[name] for name in CURVES] for h in histories], axis=0)),
        "first_fold": curves(np.array([histories[0][name] for name in CURVES])),
        "rise": float(np.mean([rise(np.array(h["test_loss"])) for h in histories])),
        **measured_now(),
    }  # fmt: skip


def draw(path: Path, cells: dict[str, Any]) -> None:
    """Draw how the plain model, the improved one and static attention learn."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4), layout="constrained")
    panels = (
        ("UAR in %, mean of the folds; training dotted", ("timnet", "timnet-all"),
         "curves", ("test_uar", "uar")),
        ("loss on the test clips of one fold", ("timnet", "timnet-all"),
         "first_fold", ("test_loss",)),
        ("training UAR in %, mean of the folds", ("timnet-td", "timnet-td-sa"),
         "curves", ("uar",)),
    )  # fmt: skip
    for axes, (title, presets, kind, names) in zip(
        figure.subplots(1, len(panels)), panels, strict=True
    ):
        for preset, colour in zip(presets, ("tab:blue", "tab:orange"), strict=True):
            if not (found := cells.get(f"emodb {preset} sd10")):
                continue
            for name, line in zip(names, "-:", strict=False):
                # The loss on test clips is a plain cross-entropy, whatever was trained with.
                values = np.array(found[kind][name]) * (1 if name == "test_loss" else 100)
                label = preset if name == names[0] else None
                epochs = np.arange(1, len(values) + 1)
                axes.plot(epochs, values, line, color=colour, label=label)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    figure.savefig(path, dpi=100)


def save(path: Path, cells: dict[str, Any]) -> None:
    write_json(path, {"command": "python -m train.table --out FILE", "cells": cells})


def run(args: argparse.Namespace) -> None:
    console = Console(stderr=True)
    cells: dict[str, Any] = {}
    if args.out.exists():
        cells = json.loads(args.out.read_text("utf-8"))["cells"]
    for name in args.corpus:
        corpus = corpora.load(name, data_folder(name, None if not args.data else args.data / name))
        for protocol in args.protocol:
            for preset in args.preset:
                key = f"{name} {preset} {protocol}"
                if key not in cells or not cells[key].items() >= asked(args).items():
                    console.print(key)
                    alike = (c for k, c in cells.items() if k.startswith(f"{name} {preset} "))
                    n_bytes = next((c["int8_bytes"] for c in alike), None)
                    cells[key] = cell(corpus, preset, protocol, n_bytes, args, console)
                    save(args.out, cells)
                for seed in range(len(cells[key]["seeds"]), args.seeds):
                    console.print(f"{key}, seed {seed}")
                    _, results = folds_trained(corpus, preset, protocol, seed, args, console)
                    cells[key]["seeds"].append(recalls(results))
                    cells[key] |= measured_now()
                    save(args.out, cells)
    write_with(args.out.with_suffix(".png"), lambda path: draw(path, cells))


def main(argv: list[str] | None = None) -> int:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # workers inherit it
    parser = argparse.ArgumentParser(prog="python -m train.table", description=__doc__)
    add = parser.add_argument
    add("--corpus", nargs="+", choices=CORPORA, default=CORPORA)
    add("--protocol", nargs="+", choices=PROTOCOLS, default=tuple(PROTOCOLS))
    add("--preset", nargs="+", choices=ROWS, default=ROWS)
    add("--data", type=Path, metavar="DIR", help="the folder above the corpora; default: $SER_DATA")
    add("--epochs", type=count, default=EPOCHS, help=f"default: {EPOCHS}")
    add("--seeds", type=count, default=1, metavar="N", help="networks for each cell; default: 1")
    add("--jobs", type=count, metavar="N", help="folds at a time; default: one for each core")
    add("--runs", type=Path, default=Path("runs/table"), metavar="DIR", help="default: runs/table")
    add("--out", type=Path, required=True, metavar="FILE", help="JSON file; goes on with one")
    add("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_args(argv)
    return exit_code(lambda: run(args), args.debug, KEPT)


if __name__ == "__main__":
    sys.exit(main())
