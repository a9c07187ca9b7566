"""From clips to feature rows for training and testing, through the device's own code."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import soxr

from edge.audio import read_file
from edge.frontend import Frontend, mfcc
from edge.recognizer import HOP_S, hop_rows, window_starts
from edge.speaker import SpeakerNorm, Statistics, prior
from train.corpora import Corpus

# Cited: TIM-Net's published input lengths, in samples at 22 050 Hz. Assumed for other corpora.
PUBLISHED_SAMPLES = {"emodb": 96_000, "savee": 130_000, "iemocap": 310_000}
# Assumed: nearly every clip of EMODB is longer, so the model seldom sees filling.
STREAM_WINDOW_S = 2.0


def default_window_s(corpus: str, frontend: Frontend) -> float:
    """Return the window's length where the user asks for none."""
    if frontend.streamable:
        return STREAM_WINDOW_S
    return PUBLISHED_SAMPLES.get(corpus, PUBLISHED_SAMPLES["emodb"]) / frontend.sample_rate_hz


@dataclass(frozen=True)
class Features:
    """Rows of one clip, not normalised.

    Attributes
    ----------
    train : tuple of float32, shape (at least n_rows, n_features)
        As it is, then at other speeds; training draws a window from one of them at random.
    test : float32, shape (at least n_rows, n_features)
        The windows that the device would see; see `device_windows`.
    statistics : tuple of Statistics
        Of each of ``train``, without filling.
    """

    train: tuple[np.ndarray, ...]
    test: np.ndarray
    statistics: tuple[Statistics, ...]


def clip_features(
    samples: np.ndarray, frontend: Frontend, window_samples: int, speeds: tuple[float, ...] = ()
) -> Features:
    """Return the features of one clip, float32 (n_samples,) at the front end's rate.

    A recipe that needs the whole clip gets what TIM-Net's authors gave it: the clip cropped or
    filled with zeros on both sides to the window, which is then the only one. A streamable recipe
    keeps the clip as it is. Where that is shorter than the window, training hears it anywhere in
    a window of silence, and testing as the device does: from the start, then silence.

    ``speeds`` are the other speeds, factors of tempo and pitch alike (Ko et al., Interspeech
    2015): to training, a clip played faster or slower is another speaker's.
    """
    if not frontend.streamable:
        rows = mfcc(_centred(samples, window_samples), frontend)
        return Features((rows,), rows, (Statistics.of(rows),))
    rate = frontend.sample_rate_hz
    train, statistics = [], []
    for speed in (1.0, *speeds):
        # To play faster is to claim a higher rate and resample to the one that the recipe expects.
        played = samples if speed == 1 else soxr.resample(samples, rate * speed, rate)
        rows = mfcc(played, frontend)
        missing = window_samples - len(played)
        filled = mfcc(np.pad(played, missing), frontend) if missing > 0 else rows
        train.append(filled)
        statistics.append(Statistics.of(rows if len(rows) else filled))
    test = mfcc(np.pad(samples, (0, max(0, window_samples - len(samples)))), frontend)
    return Features(tuple(train), test, tuple(statistics))


def _centred(samples: np.ndarray, n_samples: int) -> np.ndarray:
    """Return ``samples`` cropped or filled with zeros on both sides alike."""
    missing = n_samples - len(samples)
    if missing < 0:
        start = -missing // 2
        return samples[start : start + n_samples]
    return np.pad(samples, (missing // 2, missing - missing // 2))


def corpus_features(
    corpus: Corpus, frontend: Frontend, window_samples: int, speeds: tuple[float, ...]
) -> Iterator[Features]:
    """Yield the features of every clip of ``corpus``, in order."""
    for clip in corpus.clips:
        samples = read_file(clip.path, frontend.sample_rate_hz)
        yield clip_features(samples, frontend, window_samples, speeds)


def measured(frontend: Frontend, clips: list[Features], speakers: list[str]) -> Frontend:
    """Return the front end with the mean and scale of the training clips, as they are.

    The scale of an adaptive front end is the deviation within a speaker: what the speakers' means
    add to it is what adaptation takes away.
    """
    frontend = frontend.with_normalization(np.concatenate([clip.train[0] for clip in clips]))
    if not frontend.adapt_s:
        return frontend
    variances = [own.variance for own in speaker_statistics(clips, speakers, 0).values()]
    scale = np.sqrt(np.mean(variances, axis=0))
    return dataclasses.replace(frontend, scale=tuple(scale.tolist()))


def speaker_statistics(
    clips: list[Features], speakers: list[str], variant: int
) -> dict[str, Statistics]:
    """Return the statistics of all clips of each speaker, in the given variant of ``train``."""
    gathered: dict[str, Statistics] = {}
    for clip, speaker in zip(clips, speakers, strict=True):
        own = clip.statistics[variant]
        gathered[speaker] = gathered[speaker].merged(own) if speaker in gathered else own
    return gathered


class TrainingWindows:
    """Draws a window of each clip, an epoch at a time.

    An adaptive front end is at a random point of getting to know the speaker: it has heard the
    window alone, a few clips more, or all clips of the speaker (a third of the draws each,
    assumed). A clip at another speed is another speaker's.

    Parameters
    ----------
    clips, speakers : list
    frontend : Frontend
        With mean and scale.
    n_rows : int
        Length of a window.
    """

    def __init__(
        self, clips: list[Features], speakers: list[str], frontend: Frontend, n_rows: int
    ) -> None:
        self._clips, self._speakers, self._n_rows = clips, speakers, n_rows
        self._prior, self._adaptive = prior(frontend), bool(frontend.adapt_s)
        self._n_variants = len(clips[0].train)
        self._all = [speaker_statistics(clips, speakers, v) for v in range(self._n_variants)]
        self._clips_of = {
            speaker: [i for i, other in enumerate(speakers) if other == speaker]
            for speaker in set(speakers)
        }

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Return one normalised window of each clip, float32 (n_clips, n_rows, n_features)."""
        return np.stack([self._window(clip, rng) for clip in range(len(self._clips))])

    def _window(self, clip: int, rng: np.random.Generator) -> np.ndarray:
        variant = int(rng.integers(self._n_variants)) if self._n_variants > 1 else 0
        rows = self._clips[clip].train[variant]
        start = int(rng.integers(len(rows) - self._n_rows + 1))
        window = rows[start : start + self._n_rows]
        if not self._adaptive:
            return self._prior.normalize(window)
        return self._prior.merged(self._heard(clip, variant, window, rng)).normalize(window)

    def _heard(
        self, clip: int, variant: int, window: np.ndarray, rng: np.random.Generator
    ) -> Statistics:
        speaker, choice = self._speakers[clip], rng.integers(3)
        if choice == 0:
            return self._all[variant][speaker]
        own = self._clips[clip].statistics[variant]
        heard = own if own.n_rows < self._n_rows else Statistics.of(window)  # never the filling
        if choice == 1:
            others = self._clips_of[speaker]
            for other in rng.choice(others, min(len(others), int(rng.integers(1, 12))), False):
                if other != clip:
                    heard = heard.merged(self._clips[other].statistics[variant])
        return heard


def device_windows(
    clips: list[Features], n_rows: int, frontend: Frontend, known: list[Statistics] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return what a `Recognizer` with the default hop gives its model, and whose it is.

    Parameters
    ----------
    clips : list of Features
    n_rows : int
    frontend : Frontend
        With mean and scale.
    known : list of Statistics, optional
        All that was ever heard of the speaker of each clip. Otherwise every clip is a stranger's,
        and an adaptive front end knows what it has heard of the clip by the end of the window.

    Returns
    -------
    float32, shape (n_windows, n_rows, n_features)
        Normalised.
    int, shape (n_windows,)
        Index of the clip that each window belongs to.
    """
    hop = hop_rows(HOP_S, frontend.hop_samples / frontend.sample_rate_hz)
    windows, owners = [np.empty((0, n_rows, frontend.n_features), np.float32)], []
    for number, clip in enumerate(clips):
        norm, heard = SpeakerNorm(frontend, None if known is None else known[number]), 0
        for start in window_starts(len(clip.test), n_rows, hop):
            if known is None:
                end = min(start + n_rows, int(clip.statistics[0].n_rows))  # never the filling
                norm.hear(clip.test[heard:end])
                heard = end
            windows.append(norm.normalize(clip.test[start : start + n_rows])[None])
            owners.append(number)
    return np.concatenate(windows), np.array(owners, int)
