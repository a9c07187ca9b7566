"""The front end as a graph, for models that hear samples (`convert.waveform`).

Everything is matrix products, so that TFLite needs builtin operators only and Core ML, which knows
no FFT, gets the same graph.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edge.frontend import (
    PITCH_FLOOR,
    PITCH_SHARPNESS,
    Frontend,
    dct_basis,
    feature_rows,
    hann,
    mel_filters,
    pitch_matrices,
)
from edge.speaker import FURTHEST, SpeakerNorm, level_weights, prior


def heard_first(samples: np.ndarray, frontend: Frontend) -> np.ndarray:
    """Return the window (n_rows, n_features) for samples that are all that was heard of a voice."""
    rows = feature_rows(samples, frontend)
    speaker = SpeakerNorm(frontend)
    speaker.hear(rows)
    return speaker.normalize(rows)


def features(samples: Any, frontend: Frontend, n_rows: int) -> Any:
    """Return what `heard_first` does, as TensorFlow."""
    import tensorflow as tf

    power = _power(_frames(samples, frontend, n_rows), frontend.n_fft)
    filters = _in_order(mel_filters(frontend), frontend.n_fft)
    mel = tf.maximum(tf.matmul(power, filters), np.float32(frontend.floor_power))
    db = tf.math.log(mel) * np.float32(10 / math.log(10))
    if frontend.top_db is not None:
        db = tf.maximum(db, tf.reduce_max(db) - np.float32(frontend.top_db))
    if frontend.n_mfcc:
        db = tf.matmul(db, _f32(dct_basis(frontend.n_mels, frontend.n_mfcc)))
    if frontend.pitch:
        db = tf.concat([db, _pitch(power, frontend)], axis=1)
    if not frontend.adapt_s:
        return (db - _f32(np.array(frontend.mean))) / _f32(np.array(frontend.scale))
    return _adapted(db, frontend, n_rows)


def _pitch(power: Any, frontend: Frontend) -> Any:
    """Return what `edge.frontend.pitch` does, of the power in the order of `_bins`."""
    import tensorflow as tf

    cosines, total, semitones, preference = pitch_matrices(frontend)
    magnitude = tf.sqrt(power + np.float32(PITCH_FLOOR))
    at_0 = tf.matmul(magnitude, _in_order(total, frontend.n_fft))
    periodicity = tf.matmul(magnitude, _in_order(cosines, frontend.n_fft)) / at_0
    weights = tf.nn.softmax(np.float32(PITCH_SHARPNESS) * (periodicity + _f32(preference)))
    voicing = tf.reduce_sum(weights * periodicity, axis=1, keepdims=True)
    return tf.concat([tf.matmul(weights, _f32(semitones[:, None])), voicing], axis=1)


def _adapted(rows: Any, frontend: Frontend, n_rows: int) -> Any:
    """Return rows normalised by `edge.speaker.adapted` of themselves."""
    import tensorflow as tf

    before = prior(frontend)
    mean = tf.reduce_mean(rows, axis=0, keepdims=True)
    variance = tf.reduce_mean(tf.square(rows - mean), axis=0, keepdims=True)
    share = n_rows / (before.n_rows + n_rows)
    difference = mean - _f32(before.mean[None])
    # The level is taken from what was heard alone.
    passed, rises = level_weights(frontend)
    level = tf.reduce_sum(difference * _f32(passed), axis=1, keepdims=True)
    most = _f32(FURTHEST * np.sqrt(before.variance))
    shift = tf.clip_by_value(difference - level * _f32(rises), -most, most)
    centre = mean - np.float32(1 - share) * shift
    spread = (
        _f32((1 - share) * before.variance[None])
        + np.float32(share) * variance
        + np.float32(share * (1 - share)) * tf.square(shift)
    )
    return (rows - centre) / tf.sqrt(spread)


def _frames(samples: Any, frontend: Frontend, n_rows: int) -> Any:
    """Return every frame under the Hann window, shape (n_rows, n_fft)."""
    import tensorflow as tf

    if frontend.centred:
        half = frontend.n_fft // 2
        samples = tf.pad(samples, [[half, half]])
    # Gathered in pieces that neighbouring frames share: far fewer indices than samples.
    piece = math.gcd(frontend.n_fft, frontend.hop_samples)
    n_pieces = (frontend.n_fft + (n_rows - 1) * frontend.hop_samples) // piece
    pieces = tf.reshape(samples[: n_pieces * piece], (n_pieces, piece))
    first = np.arange(n_rows)[:, None] * (frontend.hop_samples // piece)
    numbers = first + np.arange(frontend.n_fft // piece)
    frames = tf.reshape(
        tf.gather(pieces, numbers.astype(np.int32).ravel()), (n_rows, frontend.n_fft)
    )
    return frames * _f32(hann(frontend.n_fft))


def _factors(n: int) -> tuple[int, int]:
    """Return the two factors of ``n`` that are nearest to each other, the smaller first."""
    small = next(d for d in range(math.isqrt(n), 0, -1) if n % d == 0)
    return small, n // small


def _power(frames: Any, n: int) -> Any:
    """Return the power spectrum of frames (n_rows, n), in the order of `_bins`.

    Cooley and Tukey (1965), one step: with n = n1 * n2, sample a * n2 + b and bin c + n1 * d, a DFT
    over a, a factor for every pair (b, c), and a DFT over b. That costs n * (n1 + n2) instead of
    n * n, and needs two small matrices instead of a large one.
    """
    import tensorflow as tf

    n1, n2 = _factors(n)
    n_rows = frames.shape[0]
    n_d = _n_upper(n2)
    dft1 = np.exp(-2j * np.pi * np.outer(np.arange(n1), np.arange(n1)) / n1)
    twiddle = np.exp(-2j * np.pi * np.outer(np.arange(n1), np.arange(n2)) / n)
    dft2 = np.exp(-2j * np.pi * np.outer(np.arange(n2), np.arange(n_d)) / n2)
    z = tf.reshape(frames, (n_rows, n1, n2))
    stacked = np.concatenate([dft1.real, dft1.imag])
    # (2 c, a) @ (rows, a, b): real parts above imaginary ones.
    real, imag = tf.split(tf.matmul(np.broadcast_to(_f32(stacked), (1, 2 * n1, n1)), z), 2, axis=1)
    real, imag = (
        real * _f32(twiddle.real) - imag * _f32(twiddle.imag),
        real * _f32(twiddle.imag) + imag * _f32(twiddle.real),
    )
    both = tf.reshape(tf.concat([real, imag], axis=2), (n_rows * n1, 2 * n2))
    matrix = np.block([[dft2.real, dft2.imag], [-dft2.imag, dft2.real]])
    squares = tf.square(tf.matmul(both, _f32(matrix)))
    real, imag = tf.split(squares, 2, axis=1)
    return tf.reshape(real + imag, (n_rows, n1 * n_d))


def _n_upper(n2: int) -> int:
    """Return how many d of `_power` cover the bins up to half the rate."""
    return n2 // 2 + 1


def _bins(n: int) -> np.ndarray:
    """Return the numbers of the bins that `_power` gives, in its order."""
    n1, n2 = _factors(n)
    return (np.arange(n1)[:, None] + n1 * np.arange(_n_upper(n2))).ravel()


def _in_order(matrix: np.ndarray, n_fft: int) -> np.ndarray:
    """Return a matrix from bins in the order of `_bins`; above half the rate they count nothing."""
    bins = _bins(n_fft)
    ordered = np.zeros((len(bins), matrix.shape[1]))
    within = bins < len(matrix)
    ordered[within] = matrix[bins[within]]
    return _f32(ordered)


def _f32(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float32)
