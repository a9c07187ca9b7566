"""What a finished run says: ``report.json``, and its loss curves and confusion matrix as PNG."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge.card import Card
from edge.leaning import Leaning, logits_of
from edge.machine import hardware
from edge.model import softmax
from edge.storage import write_json, write_with
from train.corpora import Corpus, duration_s
from train.fit import recall
from train.presets import Config, multiply_accumulates
from train.protocols import Fold

# Of a fold: every clip a stranger's; with an adaptive front end also with the speakers known.
FIGURES = ("uar", "war", "adapted_uar", "adapted_war")


def fold_results(out: Path, folds: list[Fold], corpus: Corpus) -> dict[str, dict[str, Any]]:
    """Return what each fold of the run ``out`` left, by its name.

    "normalized_probs" of a clip are what it answered with the speaker's features normalised,
    "adapted_probs" are less the speaker's leaning too, as on the device.
    """
    results = {}
    for fold in folds:
        path = out / fold.name / "result.json"
        results[fold.name] = found = json.loads(path.read_text(encoding="utf-8"))
        clips, tested = found["clips"], [corpus.clips[i] for i in fold.test]
        if not clips or "adapted_probs" not in clips[0]:
            continue
        normalized = np.array([clip["adapted_probs"] for clip in clips])
        seconds = [duration_s(clip.path) for clip in tested]
        adapted = without_leanings(normalized, [clip.speaker for clip in tested], seconds)
        true = np.array([corpus.labels.index(clip["label"]) for clip in clips])
        found["adapted_uar"] = recall(true, adapted.argmax(axis=1))
        found["adapted_war"] = float((true == adapted.argmax(axis=1)).mean())
        for clip, before, after in zip(clips, normalized, adapted, strict=True):
            clip |= {"normalized_probs": before.tolist(), "adapted_probs": after.tolist()}
    return results


def without_leanings(
    probs: np.ndarray, speakers: Sequence[str], seconds: Sequence[float]
) -> np.ndarray:
    """Return ``probs`` (n_clips, n_labels) less what each speaker's clips together tell of it.

    A speaker's clips, which last ``seconds``, are heard once, in a random order.
    """
    adapted, rng = np.empty_like(probs), np.random.default_rng(0)
    for speaker in sorted(set(speakers)):
        own = np.flatnonzero(np.array(speakers) == speaker)
        leaning = Leaning.none(probs.shape[1])
        for clip in rng.permutation(own):
            leaning = leaning.after(probs[clip], seconds[clip])
        adapted[own] = softmax(logits_of(probs[own]) - leaning.shift)
    return adapted


def report(out: Path, protocol: list[Fold], corpus: Corpus, command: str) -> dict[str, Any]:
    """Gather the folds of the run ``out`` into ``report.json`` and pictures; return the report."""
    folds, labels = fold_results(out, protocol, corpus), corpus.labels
    cards = [Card.read(out / name / "card.json") for name in folds]
    settings = json.loads((out / "settings.json").read_text(encoding="utf-8"))
    content: dict[str, Any] = {
        "settings": settings,
        "command": command,
        # Of the training: a finished run may be reported again.
        "date": max(card.provenance["date"] for card in cards),
        "hardware": hardware(),
        "labels": list(labels),
        "n_parameters": next(iter(folds.values()))["n_parameters"],
        "n_macs": multiply_accumulates(
            Config(**settings["model"]), cards[0].n_rows, cards[0].frontend.n_features, len(labels)
        ),
        "folds": {
            name: {key: fold[key] for key in (*FIGURES, "start_s", "epoch_s") if key in fold}
            | {"train_uar": fold["history"]["uar"][-1], "n_test": len(fold["clips"])}
            for name, fold in folds.items()
        },
    }
    clips = [clip for fold in folds.values() for clip in fold["clips"]]
    if clips:
        true = np.array([labels.index(clip["label"]) for clip in clips])
        predicted = np.array([int(np.argmax(clip["probs"])) for clip in clips])
        confusion = np.zeros((len(labels), len(labels)), int)
        np.add.at(confusion, (true, predicted), 1)
        for figure in FIGURES:
            values = [fold[figure] for fold in folds.values() if figure in fold]
            if values:
                content[f"{figure}_mean"] = float(np.mean(values))
                content[f"{figure}_std"] = float(np.std(values))
        for kind in ("", "normalized_", "adapted_"):
            if f"{kind}probs" in clips[0]:
                said = np.array([int(np.argmax(clip[f"{kind}probs"])) for clip in clips])
                content[f"{kind}uar_pooled"] = recall(true, said)
                content[f"{kind}war_pooled"] = float((true == said).mean())
        content["confusion"] = confusion.tolist()
        write_with(out / "confusion.png", lambda path: draw_confusion(path, confusion, labels))
    histories = [fold["history"] for fold in folds.values()]
    write_with(out / "curves.png", lambda path: draw_curves(path, histories))
    write_json(out / "report.json", content)
    return content


def draw_confusion(path: Path, confusion: np.ndarray, labels: tuple[str, ...]) -> None:
    """Draw recall in percent, and clips, for each pair of true and estimated label."""
    from matplotlib.figure import Figure

    share = 100 * confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    side = 2.2 + 0.75 * len(labels)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("estimated")
    axes.set_ylabel("true")
    axes.set_title(f"All test clips, {confusion.sum()}: recall in %, clips below")
    for (row, column), percent in np.ndenumerate(share):
        text = f"{percent:.0f}\n({confusion[row, column]})"
        ink = "white" if percent > 55 else "black"
        axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=9)
    figure.savefig(path, dpi=120)


def draw_curves(path: Path, histories: list[dict[str, list[float]]]) -> None:
    """Draw loss and recall over epochs: mean over folds, with the folds' range shaded."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    loss_axes, recall_axes = figure.subplots(1, 2)
    panels = ((loss_axes, "loss", "loss", 1), (recall_axes, "uar", "UAR in %", 100))
    for axes, key, title, factor in panels:
        # Training figures are taken as training goes (with dropout), test figures without it.
        for name, colour, label in (
            (key, "tab:blue", "training"),
            (f"test_{key}", "tab:orange", "test"),
        ):
            curves = np.array([h[name] for h in histories if name in h]) * factor
            if not curves.size:
                continue
            epochs = np.arange(1, curves.shape[1] + 1)
            axes.plot(epochs, curves.mean(axis=0), color=colour, label=label)
            axes.fill_between(
                epochs, curves.min(axis=0), curves.max(axis=0), color=colour, alpha=0.15
            )
        axes.set_xlabel("epoch")
        axes.set_title(title)
        axes.grid(alpha=0.3)
        axes.legend()
    recall_axes.set_ylim(0, 102)
    figure.suptitle("Drawn to be looked at: the last epoch is what is reported", fontsize=10)
    figure.savefig(path, dpi=120)
