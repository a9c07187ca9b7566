"""The streaming recognizer: samples in, estimates out.

block (n,) -> feature rows (k, n_features) -> window (n_rows, n_features)
-> probabilities (n_labels,)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge.frontend import MfccStream
from edge.model import Model
from edge.speaker import SpeakerNorm

HOP_S = 0.25  # Assumed: four estimates a second.


@dataclass(frozen=True)
class Estimate:
    """What the model says of one window.

    Attributes
    ----------
    start_s, end_s : float
        The window's place in the stream, in seconds of audio since the last reset.
    label : str
        The likeliest label.
    probs : float32, shape (n_labels,)
        Probability of each label, in the order of the card.
    """

    start_s: float
    end_s: float
    label: str
    probs: np.ndarray

    @property
    def confidence(self) -> float:
        """The probability of ``label``."""
        return float(self.probs.max())


class Recognizer:
    """Estimates from an endless stream of mono samples at the model's rate.

    The first estimate comes when one window of audio has been heard, then one every hop. Each row
    of features is computed once, whatever the window's length.

    Parameters
    ----------
    model : Model
    hop_s : float
        Seconds from one estimate to the next, rounded to whole rows.
    """

    def __init__(self, model: Model, hop_s: float = HOP_S) -> None:
        if not hop_s > 0:
            raise ValueError(f"hop_s must be above 0, not {hop_s}")
        frontend = model.card.frontend
        self.model = model
        self.hop_rows = hop_rows(hop_s, frontend.hop_samples / frontend.sample_rate_hz)
        self._stream = MfccStream(frontend)
        self.speaker = SpeakerNorm(frontend)
        self._window = np.zeros((model.card.n_rows, frontend.n_features), np.float32)
        self.reset()

    def reset(self) -> None:
        """Forget everything heard, as if nothing had been pushed."""
        self._stream.reset()
        self.speaker.reset()
        self.n_samples = 0
        self.n_estimates = 0
        self._n_rows = 0
        self._due_rows = self.model.card.n_rows
        self._sum = np.zeros(len(self.model.card.labels))

    def push(self, block: np.ndarray) -> list[Estimate]:
        """Take the next samples, float (n,) in [-1, 1]; return the estimates that came due."""
        self.n_samples += len(block)
        rows = self._stream.push(block)
        estimates = []
        while len(rows):
            taken, rows = np.split(rows, [min(self._due_rows - self._n_rows, len(rows))])
            self.speaker.hear(taken)
            self._keep(taken)
            if self._n_rows == self._due_rows:
                self._due_rows += self.hop_rows
                estimates.append(self._estimate())
        return estimates

    def finish(self) -> list[Estimate]:
        """Return the estimate, if any, for rows at the end of the stream that no window has seen.

        A stream shorter than one window is filled up with silence. Afterwards only `reset` and
        `overall` make sense.
        """
        if self.n_samples and not self.n_estimates:
            card = self.model.card
            missing = card.frontend.n_samples(card.n_rows) - self.n_samples
            self._keep(self._stream.push(np.zeros(missing, np.float32)))
            return [self._estimate()]
        if self.n_estimates and self._n_rows > self._due_rows - self.hop_rows:
            return [self._estimate()]
        return []

    def overall(self) -> Estimate | None:
        """Return the mean of all estimates since the last reset; None if there were none."""
        if not self.n_estimates:
            return None
        probs = (self._sum / self.n_estimates).astype(np.float32)
        return self._named(0.0, self.n_samples / self.model.card.frontend.sample_rate_hz, probs)

    def _keep(self, rows: np.ndarray) -> None:
        self._n_rows += len(rows)
        self._window = np.concatenate([self._window, rows])[-len(self._window) :]

    def _estimate(self) -> Estimate:
        frontend = self.model.card.frontend
        probs = self.model.probs(self.speaker.normalize(self._window))
        self._sum += probs
        self.n_estimates += 1
        end = frontend.n_samples(self._n_rows)
        start = end - frontend.n_samples(self.model.card.n_rows)
        rate = frontend.sample_rate_hz
        return self._named(start / rate, end / rate, probs)

    def _named(self, start_s: float, end_s: float, probs: np.ndarray) -> Estimate:
        return Estimate(start_s, end_s, self.model.card.labels[int(probs.argmax())], probs)


def hop_rows(hop_s: float, row_s: float) -> int:
    """Return how many rows of ``row_s`` seconds make a hop, at least one."""
    return max(1, round(hop_s / row_s))


def window_starts(n_rows: int, window_rows: int, hop: int) -> list[int]:
    """Return the first rows of the windows that a `Recognizer` sees in ``n_rows`` rows."""
    last = max(0, n_rows - window_rows)
    starts = list(range(0, last + 1, hop))
    return starts if starts and starts[-1] == last else [*starts, last]
