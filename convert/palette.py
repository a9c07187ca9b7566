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
    """Second moments of what every convolution and linear layer of a program is given, in order.

    Parameters
    ----------
    program : MLProgram
    windows : float32, shape (n, n_rows, n_features)
        Normalised windows of training clips.
    """

    def __init__(self, program: MLProgram, windows: np.ndarray) -> None:
        self.moments: dict[str, np.ndarray] = {}
        (name,) = program.inputs
        for window in windows:
            program.predict(self._see, **{name: window[None]})

    def _see(self, kind: str, output: str, arguments: dict[str, Any]) -> None:
        if kind == "conv":
            columns = unfolded(**arguments)
        elif kind == "linear":
            columns = arguments["x"]
        else:
            return
        moment = columns.T.astype(np.float64) @ columns
        self.moments[output] = self.moments.get(output, 0) + moment


def unfolded(
    x: np.ndarray, weight: np.ndarray, strides: np.ndarray, pad_type: str, pad: np.ndarray,
    dilations: np.ndarray, groups: np.ndarray, bias: Any = None,
) -> np.ndarray:  # fmt: skip
    """Return what each output is computed from, shape (n_frames * n_bands, channels * taps)."""
    del groups, bias
    pads = np.asarray(pad).tolist() if pad_type == "custom" else [0, 0, 0, 0]
    padded = np.pad(x[0], [(0, 0), pads[:2], pads[2:]])
    spans = 1 + np.asarray(dilations) * (np.array(weight.shape[2:]) - 1)
    view = np.lib.stride_tricks.sliding_window_view
    seen = view(padded, spans.tolist(), axis=(1, 2))  # type: ignore[call-overload]
    seen = seen[:, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]
    return seen.transpose(1, 2, 0, 3, 4).reshape(-1, weight[0].size)


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
