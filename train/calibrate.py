"""``python -m train.calibrate LOSO_RUN MODEL_RUN``: let probabilities mean what they say.

Temperature and uncertainty threshold are fitted on people that the models of LOSO_RUN had not
heard, and written into the card of MODEL_RUN, which was trained on the same people. The speakers
that MODEL_RUN holds out are only measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from edge.card import Card
from edge.errors import SerError, exit_code
from edge.model import softmax
from edge.storage import write_json, write_with
from train.fit import clip_means, recall

N_BINS = 10  # Assumed: of confidence, equally wide, as most reliability diagrams have.
# Assumed: the surer half of the answers stands, the rest is called uncertain; of fewer, little
# would be left to see.
ANSWERED = 0.5


@dataclasses.dataclass(frozen=True)
class Answers:
    """What models said of clips that they had not heard.

    Attributes
    ----------
    logits : float32, shape (n_windows, n_labels)
    owners : int, shape (n_windows,)
        The clip that each window belongs to.
    labels : int, shape (n_clips,)
    """

    logits: np.ndarray
    owners: np.ndarray
    labels: np.ndarray

    def probs(self, temperature: float) -> np.ndarray:
        """Return each clip's probabilities, the mean over its windows."""
        return clip_means(softmax(self.logits / temperature), self.owners, len(self.labels))


def answers(folds: list[Path]) -> Answers:
    """Gather the held-out answers of ``folds``."""
    logits, owners, labels, n_clips = [], [], [], 0
    for fold in folds:
        with np.load(fold / "windows.npz") as stored:
            logits.append(stored["logits"])
            owners.append(stored["owners"] + n_clips)
            labels.append(stored["labels"])
        n_clips += len(labels[-1])
    return Answers(np.concatenate(logits), np.concatenate(owners), np.concatenate(labels))


def fit_temperature(found: Answers) -> float:
    """Return the temperature with the least cross-entropy over clips (Guo et al., ICML 2017)."""

    def cross_entropy(temperature: float) -> float:
        probs = found.probs(temperature)
        return float(-np.log(np.maximum(probs[np.arange(len(probs)), found.labels], 1e-12)).mean())

    return min(np.geomspace(0.1, 10, 401).tolist(), key=cross_entropy)  # steps of about 1 %


def reliability(probs: np.ndarray, labels: np.ndarray) -> list[dict[str, float]]:
    """Return for each bin of confidence that occurs: clips, mean confidence, share right."""
    confidence, right = probs.max(axis=1), probs.argmax(axis=1) == labels
    bins = np.minimum((confidence * N_BINS).astype(int), N_BINS - 1)
    return [
        {
            "n_clips": int((bins == b).sum()),
            "confidence": float(confidence[bins == b].mean()),
            "right": float(right[bins == b].mean()),
        }
        for b in np.unique(bins)
    ]


def calibration_error(diagram: list[dict[str, float]]) -> float:
    """Return the expected calibration error (Naeini et al., AAAI 2015) of a reliability diagram."""
    n_clips = sum(b["n_clips"] for b in diagram)
    return sum(b["n_clips"] / n_clips * abs(b["confidence"] - b["right"]) for b in diagram)


def coverage(probs: np.ndarray, labels: np.ndarray) -> list[dict[str, float]]:
    """Return accuracy against coverage: of the surest clips, how many are right."""
    confidence, right = probs.max(axis=1), probs.argmax(axis=1) == labels
    order = np.argsort(-confidence, kind="stable")
    accuracy = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    points = sorted({max(1, round(len(order) * share / 20)) for share in range(1, 21)})
    return [
        {
            "coverage": n / len(order),
            "right": float(accuracy[n - 1]),
            "confidence": float(confidence[order[n - 1]]),
        }
        for n in points
    ]


def threshold(curve: list[dict[str, float]]) -> float:
    """Return the confidence that the share `ANSWERED` of the clips reaches."""
    return min(curve, key=lambda point: abs(point["coverage"] - ANSWERED))["confidence"]


def left_out_probs(folds: list[Path]) -> np.ndarray:
    """Return the probabilities of all folds' clips, each fold's temperature from the others."""
    probs = []
    for fold in folds:
        temperature = fit_temperature(answers([other for other in folds if other != fold]))
        probs.append(answers([fold]).probs(temperature))
    return np.concatenate(probs)


def measured(found: Answers, probs: np.ndarray, uncertain_below: float) -> dict[str, Any]:
    """Return how well calibrated ``probs``, shape (n_clips, n_labels), are."""
    diagram, sure = reliability(probs, found.labels), probs.max(axis=1) >= uncertain_below
    right = probs.argmax(axis=1) == found.labels
    return {
        "n_clips": len(found.labels),
        "uar": recall(found.labels, probs.argmax(axis=1)),
        "calibration_error": calibration_error(diagram),
        "calibration_error_uncalibrated": calibration_error(
            reliability(found.probs(1.0), found.labels)
        ),
        "coverage_above_threshold": float(sure.mean()),
        "right_above_threshold": float(right[sure].mean()) if sure.any() else None,
        "reliability": diagram,
        "coverage": coverage(probs, found.labels),
    }


def draw(path: Path, studies: dict[str, dict[str, Any]]) -> None:
    """Draw the reliability diagrams and the curves of accuracy against coverage."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([0, 100], [0, 100], color="grey", linewidth=1, linestyle=":")
    for name, study in studies.items():
        for axes, points, x in (
            (left, study["reliability"], "confidence"),
            (right, study["coverage"], "coverage"),
        ):
            axes.plot(
                [100 * p[x] for p in points], [100 * p["right"] for p in points],
                marker="o", markersize=4, label=f"{name} ({study['n_clips']} clips)",
            )  # fmt: skip
    left.set(xlabel="confidence in %", ylabel="right in %", title="Reliability")
    right.set(xlabel="clips answered in %, the surest first", ylabel="right in %", title="Coverage")
    for axes in (left, right):
        axes.set(xlim=(0, 102), ylim=(0, 102))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)


def run(loso_run: Path, model_run: Path) -> None:
    folds = sorted(path.parent for path in loso_run.glob("speaker-*/result.json"))
    model = model_run / "model"
    if not folds or not (model / "result.json").exists():
        raise SerError(
            f"expected a finished loso run and a finished holdout run, not {loso_run} and "
            f"{model_run}"
        )
    settings = [json.loads((r / "settings.json").read_text()) for r in (loso_run, model_run)]
    for key in ("corpus", "model", "frontend", "window_s", "epochs"):
        if settings[0][key] != settings[1][key]:
            raise SerError(f"{loso_run} and {model_run} differ in {key}; train both alike")
    card = Card.read(model / "card.json")
    speakers = {fold.name.removeprefix("speaker-") for fold in folds}
    if wrong := speakers ^ set(card.provenance["speakers"]):
        raise SerError(
            f"expected in {loso_run} each speaker of {model_run} and nobody else; they differ in "
            f"{', '.join(sorted(wrong))}; run: python -m train --protocol loso --without THE_OTHERS"
        )
    found = answers(folds)
    temperature = fit_temperature(found)
    uncertain_below = threshold(coverage(found.probs(temperature), found.labels))
    studies = {"left out in turn": measured(found, left_out_probs(folds), uncertain_below)}
    if card.provenance["n_held_out_clips"]:
        new = answers([model])
        probs = new.probs(temperature)
        studies["speakers never heard"] = measured(new, probs, uncertain_below)
    dataclasses.replace(card, temperature=temperature, uncertain_below=uncertain_below).write(
        model / "card.json"
    )
    write_with(model_run / "calibration.png", lambda path: draw(path, studies))
    write_json(
        model_run / "calibration.json",
        {"temperature": temperature, "uncertain_below": uncertain_below, "studies": studies},
    )
    print(f"temperature {temperature:.3f}, uncertain below {uncertain_below:.3f}")
    for name, study in studies.items():
        right = study["right_above_threshold"]
        print(
            f"{name}: {study['n_clips']} clips, UAR {100 * study['uar']:.1f}, calibration error "
            f"{study['calibration_error']:.3f} ({study['calibration_error_uncalibrated']:.3f} "
            f"before); certain of {100 * study['coverage_above_threshold']:.0f} %"
            + ("" if right is None else f", and right in {100 * right:.0f} % of those")
        )


def main(argv: list[str] | None = None) -> int:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    parser = argparse.ArgumentParser(
        prog="python -m train.calibrate",
        description="Fit temperature and uncertainty threshold on speakers left out in turn.",
    )
    parser.add_argument("loso_run", type=Path, help="a loso run over the model's own speakers")
    parser.add_argument("model_run", type=Path, help="the holdout run whose card is written")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_args(argv)
    return exit_code(lambda: run(args.loso_run, args.model_run), args.debug)


if __name__ == "__main__":
    sys.exit(main())
