"""Normalisation that gets to know whoever speaks: running statistics of their own speech.

A voice and a microphone shift and stretch every feature; how far a feature lies from what is usual
for this voice says more about an emotion than its value. Nothing but the statistics is kept.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass

import numpy as np

from edge.frontend import Frontend, mel_centres_hz

# Assumed: minutes of speech after which what was heard earlier fades, so that the statistics
# follow another speaker at the same microphone, and stay what they are on a device that runs
# for months.
MEMORY_S = 600.0
TELEPHONE_HZ = (300.0, 3400.0)  # Cited: the band of ITU-T G.712
# Assumed: deviations by which the training set's mean differs from a speaker's at most; what is
# further off is another microphone.
FURTHEST = 1.0


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


@functools.lru_cache
def prior(frontend: Frontend) -> Statistics:
    """Return what is assumed of a speaker of whom nothing has been heard yet."""
    if not frontend.mean:
        raise ValueError("front end: mean and scale have not been measured yet")
    row_s = frontend.hop_samples / frontend.sample_rate_hz
    return Statistics(
        frontend.adapt_s / row_s, np.array(frontend.mean), np.array(frontend.scale) ** 2
    )


@functools.lru_cache
def level_weights(frontend: Frontend) -> tuple[np.ndarray, np.ndarray]:
    """Return two rows of weights, float64, shape (n_features,).

    The first, times a row, is its level: the mean over the bands that a telephone leaves. The
    second is 1 for every feature that rises with the level, which pitch and voicing do not.
    """
    hz = mel_centres_hz(frontend)
    rises = np.zeros(frontend.n_features)
    rises[: frontend.n_mels] = 1.0
    passed = np.zeros(frontend.n_features)
    passed[: frontend.n_mels] = (hz >= TELEPHONE_HZ[0]) & (hz <= TELEPHONE_HZ[1])
    return passed / passed.sum(), rises


def adapted(frontend: Frontend, heard: Statistics) -> Statistics:
    """Return what is known of a speaker after ``heard``.

    How loud a speaker is tells of the distance to the microphone, so the level is taken from what
    was heard alone; the training set counts for the spectrum's shape, the pitch and the deviations.
    A band that lies `FURTHEST` away, as where a telephone leaves nothing, pulls no harder for lying
    further.
    """
    before = prior(frontend)
    passed, rises = level_weights(frontend)
    level = float(passed @ (heard.mean - before.mean))
    most = FURTHEST * np.sqrt(before.variance)
    pull = np.clip(before.mean + level * rises - heard.mean, -most, most)
    return Statistics(before.n_rows, heard.mean + pull, before.variance).merged(heard)


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
        self._known = known
        prior(frontend)  # which refuses a front end that has not been measured
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
            return prior(self.frontend)
        return adapted(self.frontend, self.heard)

    def normalize(self, rows: np.ndarray) -> np.ndarray:
        """Return what the model is given for ``rows``: float32, shape (..., n_features)."""
        return self.statistics.normalize(rows)
