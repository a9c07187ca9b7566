"""What each operator of an ML Program computes, in NumPy.

Written from the MIL operator reference (apple.github.io/coremltools, iOS 15 and 16). A function's
parameters are the operator's inputs by name, so an input that is not handled here is an error and
never ignored. Arithmetic is float32; `convert.mlprogram` rounds every result to the type that the
program declares, which is what float16 arithmetic with wide accumulators does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Array = np.ndarray


def _need(condition: bool, what: str) -> None:
    if not condition:
        raise NotImplementedError(what)


def conv(
    x: Array, weight: Array, strides: Array, pad_type: str, pad: Array, dilations: Array,
    groups: Array, bias: Array | float = 0.0,
) -> Array:  # fmt: skip
    """Cross-correlation of (n, c, h, w) with (out, c, kh, kw)."""
    _need(x.ndim == 4 and int(groups) == 1, "conv: other than 2-D and in one group")
    _need(pad_type in ("valid", "custom"), f"conv: pad_type {pad_type}")
    if pad_type == "custom":
        top, bottom, left, right = np.asarray(pad).tolist()
        x = np.pad(x, [(0, 0), (0, 0), (top, bottom), (left, right)])
    (sh, sw), (dh, dw) = np.asarray(strides).tolist(), np.asarray(dilations).tolist()
    n_out, _, kh, kw = weight.shape
    height = 1 + (x.shape[2] - dh * (kh - 1) - 1) // sh
    width = 1 + (x.shape[3] - dw * (kw - 1) - 1) // sw
    y = np.zeros((x.shape[0], n_out, height, width), np.float32)
    for i in range(kh):
        for j in range(kw):
            rows = slice(i * dh, i * dh + (height - 1) * sh + 1, sh)
            columns = slice(j * dw, j * dw + (width - 1) * sw + 1, sw)
            seen = x[:, :, rows, columns].reshape(*x.shape[:2], -1)
            y += (weight[:, :, i, j] @ seen).reshape(y.shape)
    return y + np.reshape(bias, (-1, 1, 1))


def pad(x: Array, pad: Array, mode: str, constant_val: Array) -> Array:
    """Constant padding; ``pad`` holds (before, after) of the last dimensions."""
    _need(mode == "constant", f"pad: mode {mode}")
    pairs = np.reshape(pad, (-1, 2)).tolist()
    pairs = [(0, 0)] * (x.ndim - len(pairs)) + [tuple(pair) for pair in pairs]
    return np.pad(x, pairs, constant_values=float(constant_val))


def linear(x: Array, weight: Array, bias: Array | float = 0.0) -> Array:
    """``x @ weight.T + bias``."""
    return x @ weight.T + bias


def matmul(x: Array, y: Array, transpose_x: bool = False, transpose_y: bool = False) -> Array:
    """Matrix product of the last two dimensions."""
    x = np.swapaxes(x, -1, -2) if transpose_x else x
    return x @ (np.swapaxes(y, -1, -2) if transpose_y else y)


def softmax(x: Array, axis: Array) -> Array:
    """Exponentials that sum to one along ``axis``."""
    e = np.exp(x - x.max(axis=int(axis), keepdims=True))
    return e / e.sum(axis=int(axis), keepdims=True)


def sigmoid(x: Array) -> Array:
    """The logistic function, without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * x))


def relu(x: Array) -> Array:
    """``max(x, 0)``."""
    return np.maximum(x, 0)


def relu6(x: Array) -> Array:
    """``min(max(x, 0), 6)``."""
    return np.clip(x, 0, 6)


def concat(values: Sequence[Array], axis: Array, interleave: Array) -> Array:
    """Join along ``axis``."""
    _need(not interleave, "concat: interleave")
    return np.concatenate(values, axis=int(axis))


def stack(values: Sequence[Array], axis: Array) -> Array:
    """Join along a new axis."""
    return np.stack(values, axis=int(axis))


def split(
    x: Array, axis: Array, num_splits: Array | None = None, split_sizes: Array | None = None
) -> list[Array]:
    """Part along ``axis``, evenly or in given sizes."""
    if split_sizes is None:
        _need(num_splits is not None, "split: neither num_splits nor split_sizes")
        return np.split(x, int(num_splits), axis=int(axis))  # type: ignore[arg-type]
    return np.split(x, np.cumsum(split_sizes)[:-1].tolist(), axis=int(axis))


def gather(
    x: Array, indices: Array, axis: Array, batch_dims: int = 0, validate_indices: bool = False
) -> Array:
    """Entries of ``x`` by number along ``axis``; every number must be within it."""
    _need(not batch_dims, "gather: batch_dims")
    _need(bool((np.asarray(indices) >= 0).all()), "gather: negative indices")
    return np.take(x, np.asarray(indices).astype(np.int64), axis=int(axis))


def reshape(x: Array, shape: Array) -> Array:
    """The same entries in another shape; 0 keeps a dimension."""
    sizes = [x.shape[i] if n == 0 else n for i, n in enumerate(np.asarray(shape).tolist())]
    return x.reshape(sizes)


def slice_by_index(
    x: Array, begin: Array, end: Array, stride: Array | None = None,
    begin_mask: Array | None = None, end_mask: Array | None = None,
    squeeze_mask: Array | None = None,
) -> Array:  # fmt: skip
    """NumPy's basic slicing; a mask's entry ignores that bound or drops that dimension."""
    none = [False] * x.ndim
    parts: list[Any] = []
    for i in range(x.ndim):
        step = 1 if stride is None else int(stride[i])
        if (none if squeeze_mask is None else squeeze_mask)[i]:
            parts.append(int(begin[i]))
            continue
        first = None if (none if begin_mask is None else begin_mask)[i] else int(begin[i])
        last = None if (none if end_mask is None else end_mask)[i] else int(end[i])
        parts.append(slice(first, last, step))
    return x[tuple(parts)]


def slice_by_size(x: Array, begin: Array, size: Array) -> Array:
    """From ``begin``, as many as ``size`` says; -1 is to the end."""
    pairs = zip(np.asarray(begin).tolist(), np.asarray(size).tolist(), strict=True)
    return x[tuple(slice(b, None if n == -1 else b + n) for b, n in pairs)]


def cast(x: Array, dtype: str) -> Array:
    """Another type."""
    types = {"fp16": np.float16, "fp32": np.float32, "int32": np.int32, "bool": np.bool_}
    return np.asarray(x).astype(types[dtype])


def classify(probabilities: Array, classes: Sequence[str]) -> tuple[str, dict[str, float]]:
    """The likeliest class and every class's probability."""
    values = np.ravel(probabilities).tolist()
    return classes[int(np.argmax(values))], dict(zip(classes, values, strict=True))


def constexpr_affine_dequantize(
    quantized_data: Array, zero_point: Array, scale: Array, axis: Array
) -> Array:
    """``(stored - zero_point) * scale``, both per entry of ``axis`` or for all."""
    shape = [1] * quantized_data.ndim
    shape[int(axis)] = -1
    zero = np.asarray(zero_point, np.float32)
    factor = np.asarray(scale, np.float32)
    zero = zero.reshape(shape) if zero.ndim else zero
    factor = factor.reshape(shape) if factor.ndim else factor
    return (quantized_data.astype(np.float32) - zero) * factor


def constexpr_lut_to_dense(indices: Array, lut: Array, shape: Array) -> Array:
    """Entries of a palette; indices are packed bits, lowest first."""
    n_bits = int(np.log2(len(lut)))
    n = int(np.prod(shape))
    bits = np.unpackbits(indices.astype(np.uint8), bitorder="little")[: n * n_bits]
    numbers = (bits.reshape(n, n_bits) << np.arange(n_bits)).sum(axis=1)
    return lut[numbers].reshape(np.asarray(shape).tolist())


def _reduce(function: Callable[..., Array]) -> Callable[..., Array]:
    def reduced(x: Array, axes: Array | None = None, keep_dims: Array = False) -> Array:  # type: ignore[assignment]
        axis = None if axes is None else tuple(np.asarray(axes).tolist())
        return function(x, axis=axis, keepdims=bool(keep_dims))

    return reduced


def _binary(function: Callable[..., Array]) -> Callable[..., Array]:
    return lambda x, y: function(x, y)


def _unary(function: Callable[..., Array]) -> Callable[..., Array]:
    return lambda x: function(x)


OPERATORS: dict[str, Callable[..., Any]] = {
    **{
        f.__name__: f
        for f in (
            conv, pad, linear, matmul, softmax, sigmoid, relu, relu6, concat, stack, split, gather,
            reshape, slice_by_index, slice_by_size, cast, classify, constexpr_affine_dequantize,
            constexpr_lut_to_dense,
        )
    },
    "add": _binary(np.add),
    "sub": _binary(np.subtract),
    "mul": _binary(np.multiply),
    "real_div": _binary(np.divide),
    "maximum": _binary(np.maximum),
    "minimum": _binary(np.minimum),
    "abs": _unary(np.abs),
    "tanh": _unary(np.tanh),
    "sqrt": _unary(np.sqrt),
    "square": _unary(np.square),
    "exp": _unary(np.exp),
    "rsqrt": lambda x, epsilon=0.0: 1 / np.sqrt(x + epsilon),
    "log": lambda x, epsilon=0.0: np.log(x + epsilon),
    "reduce_mean": _reduce(np.mean),
    "reduce_sum": _reduce(np.sum),
    "reduce_max": _reduce(np.max),
    "transpose": lambda x, perm: np.transpose(x, np.asarray(perm).tolist()),
    "expand_dims": lambda x, axes: np.expand_dims(x, tuple(np.asarray(axes).tolist())),
    "squeeze": lambda x, axes=None: np.squeeze(
        x, None if axes is None else tuple(np.asarray(axes).tolist())
    ),
}  # fmt: skip
