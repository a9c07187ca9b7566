"""From clips to feature rows for training and testing, through the device's own code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edge.audio import read_file
from edge.frontend import Frontend, mfcc
from edge.recognizer import HOP_S, hop_rows, window_starts
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
    train : float32, shape (at least n_rows, n_mfcc)
        Training draws a window from it at random.
    test : float32, shape (at least n_rows, n_mfcc)
        The windows that the device would see; see `test_windows`.
    """

    train: np.ndarray
    test: np.ndarray


def clip_features(samples: np.ndarray, frontend: Frontend, window_samples: int) -> Features:
    """Return the features of one clip, float32 (n_samples,) at the front end's rate.

    A recipe that needs the whole clip gets what TIM-Net's authors gave it: the clip cropped or
    filled with zeros on both sides to the window, which is then the only one. A streamable recipe
    keeps the clip as it is. Where that is shorter than the window, training hears it anywhere in
    a window of silence, and testing as the device does: from the start, then silence.
    """
    missing = window_samples - len(samples)
    if not frontend.streamable:
        if missing < 0:
            start = -missing // 2
            samples = samples[start : start + window_samples]
        else:
            samples = np.pad(samples, (missing // 2, missing - missing // 2))
        rows = mfcc(samples, frontend)
        return Features(rows, rows)
    if missing <= 0:
        rows = mfcc(samples, frontend)
        return Features(rows, rows)
    return Features(
        mfcc(np.pad(samples, missing), frontend), mfcc(np.pad(samples, (0, missing)), frontend)
    )


def corpus_features(corpus: Corpus, frontend: Frontend, window_samples: int) -> Iterator[Features]:
    """Yield the features of every clip of ``corpus``, in order."""
    for clip in corpus.clips:
        yield clip_features(read_file(clip.path, frontend.sample_rate_hz), frontend, window_samples)


def random_windows(clips: list[np.ndarray], n_rows: int, rng: np.random.Generator) -> np.ndarray:
    """Return one random window of each clip, float32 (n_clips, n_rows, n_mfcc)."""
    starts = [int(rng.integers(len(rows) - n_rows + 1)) for rows in clips]
    return np.stack([rows[s : s + n_rows] for rows, s in zip(clips, starts, strict=True)])


def test_windows(
    clips: list[np.ndarray], n_rows: int, frontend: Frontend
) -> tuple[np.ndarray, np.ndarray]:
    """Return the windows that a `Recognizer` with the default hop sees, and whose they are.

    Returns
    -------
    float32, shape (n_windows, n_rows, n_mfcc)
    int, shape (n_windows,)
        Index of the clip that each window belongs to.
    """
    hop = hop_rows(HOP_S, frontend.hop_samples / frontend.sample_rate_hz)
    windows, owners = [np.empty((0, n_rows, frontend.n_mfcc), np.float32)], []
    for number, rows in enumerate(clips):
        starts = window_starts(len(rows), n_rows, hop)
        windows.append(np.stack([rows[s : s + n_rows] for s in starts]))
        owners += [number] * len(starts)
    return np.concatenate(windows), np.array(owners, int)
