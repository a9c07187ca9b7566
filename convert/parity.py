"""Whether a converted model answers like the trained one, measured with the device's own code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edge.card import Card
from edge.model import softmax


@dataclass(frozen=True)
class Tolerance:
    """How far a converted model may stray.

    Attributes
    ----------
    prob_difference : float
        Largest difference of any probability on any window.
    agreement : float
        Least share of windows with the same likeliest label, or one that is as likely (`TIE`).
    uar_loss : float
        Most UAR, in points, that may be lost on the held-out clips.
    """

    prob_difference: float
    agreement: float
    uar_loss: float


TIE = 0.01  # Assumed: nearer than this, two labels are as likely, and rounding chooses one of them.

# Assumed: what rounding alone explains. float32 and float16 only reorder and round. int8 weights
# move windows that lie between two labels; int8 activations also saturate on a window that is
# louder than anything the ranges were measured on, so a single one may differ by more.
TOLERANCES = {
    "float32": Tolerance(1e-4, 1.0, 0.0),
    "float16": Tolerance(0.02, 0.995, 0.5),
    "dynamic": Tolerance(0.1, 0.95, 2.0),
    "int8": Tolerance(0.25, 0.95, 2.0),
    "half": Tolerance(0.02, 0.995, 0.5),
    "linear8": Tolerance(0.1, 0.95, 2.0),
    "palette6": Tolerance(0.1, 0.95, 2.0),
    "palette4": Tolerance(0.25, 0.95, 2.0),
    # Required: what a front end in float32 may cost.
    "waveform": Tolerance(0.01, 0.99, 0.0),
}


@dataclass(frozen=True)
class Parity:
    """What was measured; figures of recall are in percent, over clips (means of their windows),
    and None where nobody knows the truth."""

    n_windows: int
    n_clips: int
    prob_difference: float
    agreement: float
    uar: float | None
    uar_keras: float | None
    within: bool

    def to_json(self) -> dict[str, Any]:
        """Return the figures, rounded."""
        return {k: round(v, 6) if isinstance(v, float) else v for k, v in asdict(self).items()}


def measure(
    probs_of: Callable[[np.ndarray], np.ndarray],
    held_out: dict[str, np.ndarray],
    card: Card,
    tolerance: Tolerance,
) -> Parity:
    """Compare a model with the Keras model's answers in ``held_out`` (a run's windows.npz).

    ``probs_of`` maps one of ``held_out["windows"]`` to probabilities, (n_labels,).
    """
    owners, labels = held_out["owners"], held_out.get("labels")
    expected = softmax(held_out["logits"] / card.temperature)
    found = np.stack([probs_of(window) for window in held_out["windows"]])
    difference = float(np.abs(found - expected).max())
    said = expected[np.arange(len(found)), found.argmax(axis=1)]
    behind = expected.max(axis=1) - said
    agreement = float(np.mean(behind == 0))
    uar = uar_keras = None
    lost = 0.0
    if labels is not None:
        uar, uar_keras = (_clip_uar(probs, owners, labels) for probs in (found, expected))
        lost = uar_keras - uar
    within = (
        difference <= tolerance.prob_difference
        and np.mean(behind <= TIE) >= tolerance.agreement
        and lost <= tolerance.uar_loss
    )
    n_clips = len(np.unique(owners))
    return Parity(len(found), n_clips, difference, agreement, uar, uar_keras, within)


def _clip_uar(probs: np.ndarray, owners: np.ndarray, labels: np.ndarray) -> float:
    from sklearn.metrics import recall_score

    estimated = [probs[owners == clip].mean(axis=0).argmax() for clip in range(len(labels))]
    return 100 * float(recall_score(labels, estimated, average="macro", labels=np.unique(labels)))
