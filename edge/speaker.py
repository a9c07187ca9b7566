"""Normalisation that gets to know whoever speaks: running statistics of their own speech.

A voice and a microphone shift and stretch every feature; how far a feature lies from what is usual
for this voice says more about an emotion than its value. Nothing but the statistics is kept.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from edge.frontend import Frontend

# Assumed: minutes of speech after which what was heard earlier fades, so that the statistics
# follow another speaker at the same microphone, and stay what they are on a device that runs
# for months.
MEMORY_S = 600.0


@dataclass(frozen=True)
class Statistics:
    """Mean and variance of feature rows.

    Attributes
    ----------
    n_rows : float
        How many rows they stand for.
    mean, variance : float64, shape (n_features,)
    """

    n_rows: float
    mean: np.ndarray
    variance: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> Statistics:
        """Return the statistics of ``rows``, shape (n, n_features), n at least 1."""
        rows = np.asarray(rows, np.float64)
        return cls(float(len(rows)), rows.mean(axis=0), rows.var(axis=0))

    def merged(self, other: Statistics) -> Statistics:
        """Return the statistics of both sets of rows together (Chan et al., 1979)."""
        n_rows = self.n_rows + other.n_rows
        share = other.n_rows / n_rows
        shift = other.mean - self.mean
        variance = (1 - share) * self.variance + share * other.variance
        return Statistics(
            n_rows, self.mean + share * shift, variance + share * (1 - share) * shift**2
        )

    def normalize(self, rows: np.ndarray) -> np.ndarray:
        """Return ``rows`` less their mean, over their deviation: float32, (..., n_features)."""
        mean, scale = self.mean.astype(np.float32), np.sqrt(self.variance).astype(np.float32)
        return ((rows - mean) / scale).astype(np.float32, copy=False)


def prior(frontend: Frontend) -> Statistics:
    """Return what is assumed of a speaker of whom nothing has been heard yet."""
    if not frontend.mean:
        raise ValueError("front end: mean and scale have not been measured yet")
    row_s = frontend.hop_samples / frontend.sample_rate_hz
    return Statistics(
        frontend.adapt_s / row_s, np.array(frontend.mean), np.array(frontend.scale) ** 2
    )


def adapted(prior: Statistics, heard: Statistics) -> Statistics:
    """Return what is known of a speaker after ``heard``.

    How loud a speaker is tells of the distance to the microphone, so the level is taken from what
    was heard alone; ``prior`` counts for the spectrum's shape and for the deviations.
    """
    level = float(np.mean(heard.mean - prior.mean))
    return Statistics(prior.n_rows, prior.mean + level, prior.variance).merged(heard)


class SpeakerNorm:
    """The statistics of one speaker, which grow as they speak.

    They begin as the training set's, which count like ``frontend.adapt_s`` seconds of speech; with
    ``adapt_s`` 0 they stay what they are.

    Parameters
    ----------
    frontend : Frontend
        With mean and scale.
    known : Statistics, optional
        What an enrolment found.
    """

    def __init__(self, frontend: Frontend, known: Statistics | None = None) -> None:
        self.frontend = frontend
        self._prior, self._known = prior(frontend), known
        self._most_rows = MEMORY_S * frontend.sample_rate_hz / frontend.hop_samples
        self.reset()

    def reset(self) -> None:
        """Forget what has been heard since the start."""
        self.heard = self._known

    def hear(self, rows: np.ndarray) -> None:
        """Take rows of speech (n, n_features), not normalised, into account."""
        if not self.frontend.adapt_s or not len(rows):
            return
        new = Statistics.of(rows)
        heard = new if self.heard is None else self.heard.merged(new)
        self.heard = dataclasses.replace(heard, n_rows=min(heard.n_rows, self._most_rows))

    @property
    def statistics(self) -> Statistics:
        """The mean and variance that `normalize` uses now."""
        if self.heard is None or not self.frontend.adapt_s:
            return self._prior
        return adapted(self._prior, self.heard)

    def normalize(self, rows: np.ndarray) -> np.ndarray:
        """Return what the model is given for ``rows``: float32, shape (..., n_features)."""
        return self.statistics.normalize(rows)
