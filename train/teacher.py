"""What a large network, trained on far more speech, makes of a training clip.

The teacher is the lower half of the encoder of Whisper tiny (Radford et al., "Robust Speech
Recognition via Large-Scale Weak Supervision", ICML 2023), as Smart Turn 3.2 of Daily ships it in
int8 (BSD 2-Clause, see ``encoder-LICENSE.txt``): two convolutions and two of its four
transformer blocks. The network that is trained predicts a summary of what the teacher makes of the
same window, besides the label (a hint: Romero et al., "FitNets", ICLR 2015). The device needs
neither the teacher nor the prediction.

``encoder.onnx`` was cut out of the file in the wheel of pipecat-ai 1.14.0::

    onnx.utils.extract_model("smart-turn-v3.2-cpu.onnx", "encoder.onnx", ["input_features"],
                             ["add_146"], check_model=False)
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ENCODER = Path(__file__).with_name("encoder.onnx")

# Cited: what Whisper hears, and how Smart Turn cuts it.
RATE_HZ = 16_000
SPAN_SAMPLES = 8 * RATE_HZ
N_MELS, N_FFT, HOP_SAMPLES = 80, 400, 160
FRAME_SAMPLES = 2 * HOP_SAMPLES

LEAST_FRAMES = 5  # Assumed: a deviation over less says nothing.
N_DIRECTIONS = 48  # Assumed: most of what a linear model could tell emotions by.


def frames(samples: np.ndarray) -> np.ndarray:
    """Return what the teacher makes of speech, a row every 20 ms.

    Parameters
    ----------
    samples : float32, shape (n,)
        At `RATE_HZ`. More than the teacher hears at a time is heard in parts.

    Returns
    -------
    float16, shape (max(1, n // FRAME_SAMPLES), 384)
    """
    n_frames = max(1, len(samples) // FRAME_SAMPLES)
    rows: list[np.ndarray] = []
    for end in range(len(samples), 0, -SPAN_SAMPLES):
        part = samples[max(0, end - SPAN_SAMPLES) : end]
        span = np.pad(part, (SPAN_SAMPLES - len(part), 0))  # speech ends where the span does
        (answer,) = _session().run(None, {"input_features": _log_mel(span)[None]})
        rows.insert(0, answer[0, -len(part) // FRAME_SAMPLES :])
    return np.concatenate(rows)[-n_frames:].astype(np.float16)


def _log_mel(span: np.ndarray) -> np.ndarray:
    """Return Whisper's log-mel spectrogram of a span, float32 (N_MELS, 800)."""
    import librosa

    span = (span - span.mean()) / np.sqrt(span.var() + 1e-7)
    power = librosa.feature.melspectrogram(
        y=span, sr=RATE_HZ, n_fft=N_FFT, hop_length=HOP_SAMPLES, n_mels=N_MELS, pad_mode="reflect"
    )
    log = np.log10(np.maximum(power[:, :-1], 1e-10))
    return ((np.maximum(log, log.max() - 8) + 4) / 4).astype(np.float32)


@functools.cache
def _session() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # clips are read side by side
    # Further optimized it computes in int8, which saturates on x86 processors without VNNI (ONNX
    # Runtime's documentation of quantization). Measured: answers a third of their deviation off.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    return onnxruntime.InferenceSession(ENCODER, options, providers=["CPUExecutionProvider"])


class Lessons:
    """What is to be predicted of each window of the training clips.

    It is the mean and deviation of the teacher's rows in the window, without what is the speaker's
    own (the speaker's mean), along the directions in which the training clips differ most. Each
    direction counts by its deviation, and all together by one, so that 1 is the loss of a network
    that predicts nothing.

    Parameters
    ----------
    clips : sequence of arrays, shape (n, width)
        See `frames`.
    speakers : sequence of str
        Of each clip.
    """

    def __init__(self, clips: Sequence[np.ndarray], speakers: Sequence[str]) -> None:
        of = np.array(speakers)
        rows = [clip.astype(np.float64) for clip in clips]
        variances = []
        for speaker in sorted(set(speakers)):
            own = np.flatnonzero(of == speaker)
            every = np.concatenate([rows[i] for i in own])
            mean = every.mean(axis=0)
            variances.append(every.var(axis=0))
            for i in own:
                rows[i] -= mean
        scale = np.sqrt(np.mean(variances, axis=0)) + 1e-6
        # Sums up to each row, so that any window's mean and deviation are differences.
        self._sums = []
        for row in rows:
            row /= scale
            sums = np.cumsum(np.concatenate([row, row**2], axis=1), axis=0)
            self._sums.append(np.concatenate([np.zeros((1, sums.shape[1])), sums]))
        whole = np.stack([self._summary(n, 0, len(clip)) for n, clip in enumerate(clips)])
        self._mean = whole.mean(axis=0)
        _, sizes, directions = np.linalg.svd(whole - self._mean, full_matrices=False)
        deviations = sizes[:N_DIRECTIONS] / np.sqrt(len(clips))
        # Of as many clips as directions, the last directions may hold nothing.
        deviations = np.maximum(deviations, 1e-3 * deviations[0] + 1e-9)
        basis = directions[:N_DIRECTIONS].T / np.sqrt(deviations * deviations.mean())
        self._basis = np.pad(basis, ((0, 0), (0, N_DIRECTIONS - basis.shape[1])))

    def of(self, spans_s: np.ndarray) -> np.ndarray:
        """Return what is to be predicted of a window of each clip.

        Parameters
        ----------
        spans_s : shape (n_clips, 2)
            Where each window begins and ends, in seconds of the clip.

        Returns
        -------
        float32, shape (n_clips, N_DIRECTIONS)
            Fewer clips than directions leave zeros.
        """
        ends = np.rint(spans_s * (RATE_HZ / FRAME_SAMPLES)).astype(int)
        summaries = np.stack([self._summary(n, *pair) for n, pair in enumerate(ends.tolist())])
        return ((summaries - self._mean) @ self._basis).astype(np.float32)

    def _summary(self, clip: int, start: int, end: int) -> np.ndarray:
        sums = self._sums[clip]
        start = max(0, min(start, len(sums) - 1 - LEAST_FRAMES))
        end = min(max(end, start + LEAST_FRAMES), len(sums) - 1)
        mean, square = np.split((sums[end] - sums[start]) / (end - start), 2)
        return np.concatenate([mean, np.sqrt(np.maximum(square - mean**2, 0))])
