"""Whether a converted model answers like the trained one, measured with the device's own code."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edge.model import Model, softmax


@dataclass(frozen=True)
class Tolerance:
    """How far a converted model may stray.

    Attributes
    ----------
    prob_difference : float
        Largest difference of any probability on any window.
    agreement : float
        Least share of windows with the same likeliest label.
    uar_loss : float
        Most UAR, in points, that may be lost on the held-out clips.
    """

    prob_difference: float
    agreement: float
    uar_loss: float


# Assumed: what rounding alone explains. float32 and float16 only reorder and round. int8 weights
# move windows that lie between two labels; int8 activations also saturate on a window that is
# louder than anything the ranges were measured on, so a single one may differ by more.
TOLERANCES = {
    "float32": Tolerance(1e-4, 1.0, 0.0),
    "float16": Tolerance(0.02, 0.995, 0.5),
    "dynamic": Tolerance(0.1, 0.95, 2.0),
    "int8": Tolerance(0.25, 0.95, 2.0),
}


@dataclass(frozen=True)
class Parity:
    """What was measured; figures of recall are in percent, over clips (means of their windows)."""

    n_windows: int
    n_clips: int
    prob_difference: float
    agreement: float
    uar: float
    uar_keras: float
    within: bool

    def to_json(self) -> dict[str, Any]:
        """Return the figures, rounded."""
        return {k: round(v, 6) if isinstance(v, float) else v for k, v in asdict(self).items()}


def measure(model: Model, held_out: dict[str, np.ndarray], precision: str) -> Parity:
    """Compare ``model`` with the Keras model's answers in ``held_out`` (a run's windows.npz)."""
    owners, labels = held_out["owners"], held_out["labels"]
    expected = softmax(held_out["logits"])
    found = np.stack([model.probs(window) for window in held_out["windows"]])
    difference = float(np.abs(found - expected).max())
    agreement = float(np.mean(found.argmax(axis=1) == expected.argmax(axis=1)))
    uar, uar_keras = (_clip_uar(probs, owners, labels) for probs in (found, expected))
    tolerance = TOLERANCES[precision]
    within = (
        difference <= tolerance.prob_difference
        and agreement >= tolerance.agreement
        and uar_keras - uar <= tolerance.uar_loss
    )
    return Parity(len(found), len(labels), difference, agreement, uar, uar_keras, within)


def _clip_uar(probs: np.ndarray, owners: np.ndarray, labels: np.ndarray) -> float:
    from sklearn.metrics import recall_score

    estimated = [probs[owners == clip].mean(axis=0).argmax() for clip in range(len(labels))]
    return 100 * float(recall_score(labels, estimated, average="macro", labels=np.unique(labels)))
