"""Palettes for weights that know what the weights are multiplied with.

Rounding every weight to the nearest of 16 values loses too much here. As in GPTQ (Frantar et al.,
ICLR 2023) the inputs of a layer are used: a column of its matrix is rounded, and the columns that
are still to come are changed so that the layer's output on real windows stays what it was.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from convert.mlprogram import MLProgram

# Cited: GPTQ's damping, as a share of the mean of the diagonal.
_DAMPING = 0.01


class Inputs:
    """Second moments of what every convolution and linear layer of a program is given.

    Parameters
    ----------
    program : MLProgram
    windows : float32, shape (n, n_rows, n_features)
        Normalised windows of training clips.
    """

    def __init__(self, program: MLProgram, windows: np.ndarray) -> None:
        self.moments: dict[str, np.ndarray] = {}
        self.linear: set[str] = set()
        (name,) = program.inputs
        for window in windows:
            program.predict(self._see, **{name: window[None]})

    def _see(self, kind: str, output: str, arguments: dict[str, Any]) -> None:
        if kind == "conv":
            columns = unfolded(**arguments)
        elif kind == "linear":
            columns = arguments["x"]
            self.linear.add(output)
        else:
            return
        moment = columns.T.astype(np.float64) @ columns
        self.moments[output] = self.moments.get(output, 0) + moment


def unfolded(
    x: np.ndarray, weight: np.ndarray, strides: np.ndarray, pad_type: str, pad: np.ndarray,
    dilations: np.ndarray, groups: np.ndarray, bias: Any = None,
) -> np.ndarray:  # fmt: skip
    """Return what each output frame is computed from, shape (n_frames, channels * taps)."""
    del groups, bias
    before, after = np.asarray(pad).tolist()[:2] if pad_type == "custom" else (0, 0)
    frames = np.pad(x[0, :, :, 0], [(0, 0), (before, after)])
    n_taps, stride, dilation = weight.shape[2], int(strides[0]), int(dilations[0])
    n_frames = 1 + (frames.shape[1] - dilation * (n_taps - 1) - 1) // stride
    taps = [
        frames[:, tap * dilation : tap * dilation + (n_frames - 1) * stride + 1 : stride]
        for tap in range(n_taps)
    ]
    return np.stack(taps, axis=1).reshape(-1, n_frames).T


def palette(weight: np.ndarray, moment: np.ndarray, n_bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a palette, (2 ** n_bits,) of weight's type, and the number of every weight's entry.

    ``weight`` has its outputs first; ``moment`` is (n_inputs, n_inputs), in the order of the rest.
    """
    rows = np.asarray(weight, np.float64).reshape(len(weight), -1)
    values = _means(rows.ravel(), 2**n_bits).astype(weight.dtype)
    damped = moment + _DAMPING * np.mean(np.diag(moment)) * np.eye(len(moment))
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    numbers = np.empty(rows.shape, np.int64)
    for column in range(rows.shape[1]):
        wanted = rows[:, column]
        numbers[:, column] = np.abs(wanted[:, None] - values).argmin(axis=1)
        error = (wanted - values[numbers[:, column]]) / upper[column, column]
        rows[:, column + 1 :] -= np.outer(error, upper[column, column + 1 :])
    return values, numbers.reshape(weight.shape)


def _means(values: np.ndarray, n: int, n_rounds: int = 50) -> np.ndarray:
    """Return ``n`` sorted centres of ``values`` (Lloyd's algorithm, from evenly spaced ranks)."""
    ordered = np.sort(values)
    centres = ordered[np.linspace(0, len(ordered) - 1, n).astype(int)]
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    for _ in range(n_rounds):
        edges = np.searchsorted(ordered, (centres[1:] + centres[:-1]) / 2)
        bounds = np.concatenate([[0], edges, [len(ordered)]])
        counts = np.diff(bounds)
        means = np.diff(sums[bounds]) / np.maximum(counts, 1)
        centres = np.where(counts, means, centres)
    return centres
