"""Steady answers from estimates that jump: an average, a dwell, and an honest "uncertain"."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Smoothing:
    """How answers are steadied; ``python -m edge study`` measures what each setting does.

    The defaults leave about a quarter of the changes of label, and follow a change of emotion less
    than a second later than no smoothing at all.

    Attributes
    ----------
    average_s : float
        Time constant of the running average over estimates; about as much delay. 0 for none.
    dwell_s : float
        How long another label has to lead before it is shown; as much delay. 0 for none.
    uncertain_below : float or None
        Probability below which the likeliest label is called uncertain, without delay; None for
        the model's own, which its card states.
    """

    average_s: float = 0.25
    dwell_s: float = 0.5
    uncertain_below: float | None = None

    def __post_init__(self) -> None:
        for name in ("average_s", "dwell_s"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be at least 0, not {value}")
        if self.uncertain_below is not None and not 0 <= self.uncertain_below <= 1:
            raise ValueError(f"uncertain_below must be in [0, 1], not {self.uncertain_below}")


class Smoother:
    """`Smoothing` applied to the estimates of one utterance; `reset` before the next.

    Parameters
    ----------
    settings : Smoothing
    hop_s : float
        Seconds from one estimate to the next.
    """

    def __init__(self, settings: Smoothing, hop_s: float) -> None:
        self._keep = math.exp(-hop_s / settings.average_s) if settings.average_s else 0.0
        # The first estimate with another label counts: one dwell of a hop is two in a row.
        self._dwell = math.ceil(settings.dwell_s / hop_s - 1e-9)
        self.reset()

    def reset(self) -> None:
        """Forget all estimates."""
        self._sum: np.ndarray | float = 0.0
        self._weight = 0.0
        self._shown = -1
        self._leader, self._led = -1, 0

    def push(self, probs: np.ndarray) -> tuple[int, np.ndarray]:
        """Take a window's probabilities (n_labels,); return the label to show and the average."""
        # Weighted, not started with the first estimate: that one would count too much.
        self._sum = self._keep * self._sum + probs
        self._weight = self._keep * self._weight + 1
        average = self._sum / self._weight
        leader = int(average.argmax())
        self._led = self._led + 1 if leader == self._leader else 0
        self._leader = leader
        if self._shown < 0 or self._led >= self._dwell:
            self._shown = leader
        return self._shown, average
