"""TIM-Net and its variants (`train.presets`) as one Keras model.

Ye et al., "Temporal Modeling Matters: A Novel Temporal Emotional Modeling Approach for Speech
Emotion Recognition", ICASSP 2023 (arXiv 2211.08233). Written from the paper.

Two walks through the same weights stand side by side in every layer:

``call``
    A batch, laid out (channels, clips, frames). Then a kernel-2 convolution is one matrix product
    over ``[x[t - d], x[t]]`` whose long side lies contiguous in memory; `train.benchmark` measures
    what that is worth.
``deploy``
    One window, laid out (1, frames, 1, channels), batch normalisation folded into the kernel, so
    that TFLite sees a padding and a dilated convolution and nothing else. Traced for conversion
    only; a test holds the two walks equal.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from train.presets import Config, ConvShape, rows_per_frame

BATCH_NORM_EPSILON = 1e-3  # Assumed: the default of Keras.
BATCH_NORM_MOMENTUM = 0.99  # Assumed: the default of Keras.


def spatial_dropout(z: tf.Tensor, rate: float, seed: tf.Tensor) -> tf.Tensor:
    """Silence whole channels of single clips in ``z`` (channels, clips, frames)."""
    if rate == 0:
        return z
    kept = tf.random.stateless_uniform((z.shape[0], z.shape[1], 1), seed) >= rate
    return z * (tf.cast(kept, z.dtype) / (1 - rate))


def clipped(y: tf.Tensor) -> tf.Tensor:
    """Return ``y`` between -3 and 3, as a ReLU6, which TFLite takes into the convolution."""
    return tf.nn.relu6(y + 3.0) - 3.0


class Normalized(keras.layers.Layer):
    """What all convolutions share: one matrix product, batch normalisation, ReLU and dropout.

    Parameters
    ----------
    n_filters : int
    dropout : float
        Rate of the spatial dropout behind it.
    activation : function or None
        In place of the ReLU; None for a bias and nothing else behind the product.
    """

    def __init__(
        self,
        n_filters: int,
        dropout: float = 0.0,
        activation: Callable[[tf.Tensor], tf.Tensor] | None = tf.nn.relu,
    ) -> None:
        super().__init__()
        self.n_filters, self.dropout_rate, self.activation = n_filters, dropout, activation

    def build(self, n_inputs: int) -> None:
        """Make the weights for ``n_inputs`` numbers, taps times channels, an output."""
        shape = (self.n_filters,)
        # Zeros until `TimNet.build` draws all kernels.
        self.kernel = self.add_weight(shape=(n_inputs, self.n_filters), initializer="zeros")
        self.beta = self.add_weight(shape=shape, initializer="zeros")
        if self.activation is not None:
            self.gamma = self.add_weight(shape=shape, initializer="ones")
            self.mean = self.add_weight(shape=shape, initializer="zeros", trainable=False)
            self.variance = self.add_weight(shape=shape, initializer="ones", trainable=False)
        self.built = True

    def product(self, taps: list[tf.Tensor], seed: tf.Tensor | None) -> tf.Tensor:
        """Map the input as each tap sees it, (channels, clips, ...), to (n_filters, clips, ...)."""
        z = taps[0] if len(taps) == 1 else tf.concat(taps, axis=0)
        y = tf.matmul(self.kernel, tf.reshape(z, (z.shape[0], -1)), transpose_a=True)
        shape = (self.n_filters, -1, *z.shape[2:])
        if self.activation is None:
            return tf.reshape(y + self.beta[:, None], shape)
        if seed is None:
            mean, variance = tf.convert_to_tensor(self.mean), tf.convert_to_tensor(self.variance)
        else:
            # One pass over y for both moments: a second pass costs more than the rounding.
            mean = tf.reduce_mean(y, axis=1)
            variance = tf.maximum(tf.reduce_mean(y * y, axis=1) - mean * mean, 0)
            for moving, batch in ((self.mean, mean), (self.variance, variance)):
                moving.assign(moving + (1 - BATCH_NORM_MOMENTUM) * (batch - moving))
        gain = self.gamma * tf.math.rsqrt(variance + BATCH_NORM_EPSILON)
        y = self.activation(y * gain[:, None] + (self.beta - mean * gain)[:, None])
        y = tf.reshape(y, shape)
        return y if seed is None else spatial_dropout(y, self.dropout_rate, seed)

    def folded(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Return kernel and bias with the normalisation inside."""
        if self.activation is None:
            return tf.convert_to_tensor(self.kernel), tf.convert_to_tensor(self.beta)
        gain = self.gamma * tf.math.rsqrt(self.variance + BATCH_NORM_EPSILON)
        return self.kernel * gain, self.beta - self.mean * gain

    def activated(self, y: tf.Tensor) -> tf.Tensor:
        """Return what comes behind product and bias at inference."""
        return y if self.activation is None else self.activation(y)


class Conv(Normalized):
    """A convolution over time with one or two taps.

    Parameters
    ----------
    n_filters : int
    dilation : int
        Frames between the two taps; 0 for one tap.
    reverse : bool
        Whether the second tap looks ahead instead of back, which is the same as a causal
        convolution over the reversed frames, without reversing anything.
    dropout, activation
        See `Normalized`.
    """

    def __init__(
        self,
        n_filters: int,
        dilation: int = 0,
        reverse: bool = False,
        dropout: float = 0.0,
        activation: Callable[[tf.Tensor], tf.Tensor] | None = tf.nn.relu,
    ) -> None:
        super().__init__(n_filters, dropout, activation)
        self.dilation, self.reverse = dilation, reverse
        self.pads = (0, dilation) if reverse else (dilation, 0)

    def build(self, n_channels: int) -> None:
        super().build(n_channels * (2 if self.dilation else 1))

    def call(self, z: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
        """Map (channels, clips, frames) to (n_filters, clips, frames); ``seed`` means training."""
        if not self.dilation:
            return self.product([z], seed)
        n_frames = z.shape[2]
        z = tf.pad(z, [[0, 0], [0, 0], self.pads])
        return self.product([z[:, :, :n_frames], z[:, :, self.dilation :]], seed)

    def deploy(self, z: tf.Tensor) -> tf.Tensor:
        """Map one window (1, frames, 1, channels) to (1, frames, 1, n_filters)."""
        kernel, bias = self.folded()
        kernel = tf.reshape(kernel, (2 if self.dilation else 1, 1, -1, self.n_filters))
        if self.dilation >= z.shape[1]:  # the far tap only ever meets padding
            kernel = kernel[:1] if self.reverse else kernel[1:]
        elif self.dilation:
            z = tf.pad(z, [[0, 0], self.pads, [0, 0], [0, 0]])
        y = tf.nn.conv2d(z, kernel, 1, "VALID", dilations=[1, max(1, self.dilation), 1, 1])
        return self.activated(y + bias)


class BandConv(Normalized):
    """A convolution over time and frequency: what it learns of one band it knows of all.

    Zeros around the window keep one output for every stride, as in TensorFlow's "SAME".
    """

    def __init__(
        self,
        n_filters: int,
        time_taps: int,
        band_taps: int,
        time_stride: int,
        band_stride: int,
        activation: Callable[[tf.Tensor], tf.Tensor] = tf.nn.relu,
    ) -> None:
        super().__init__(n_filters, activation=activation)
        self.taps, self.strides = (time_taps, band_taps), (time_stride, band_stride)

    def build(self, n_channels: int) -> None:
        super().build(n_channels * self.taps[0] * self.taps[1])

    def n_out(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return how many frames and bands come out where ``size`` go in."""
        return -(-size[0] // self.strides[0]), -(-size[1] // self.strides[1])

    def pads(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        """Return the zeros before and after the frames and the bands."""
        ends = []
        for n, n_out, taps, stride in zip(
            size, self.n_out(size), self.taps, self.strides, strict=True
        ):
            missing = max(0, (n_out - 1) * stride + taps - n)
            ends.append((missing // 2, missing - missing // 2))
        return ends

    def call(self, z: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
        """Map (channels, clips, frames, bands) to as many of n_filters; ``seed``: training."""
        size = (z.shape[2], z.shape[3])
        spans = [(n - 1) * s + 1 for n, s in zip(self.n_out(size), self.strides, strict=True)]
        z = tf.pad(z, [(0, 0), (0, 0), *self.pads(size)])
        taps = [
            z[:, :, i : i + spans[0] : self.strides[0], j : j + spans[1] : self.strides[1]]
            for i in range(self.taps[0])
            for j in range(self.taps[1])
        ]
        return self.product(taps, seed)

    def deploy(self, z: tf.Tensor) -> tf.Tensor:
        """Map one window (1, frames, bands, channels) to (1, frames, bands, n_filters)."""
        kernel, bias = self.folded()
        kernel = tf.reshape(kernel, (*self.taps, -1, self.n_filters))
        z = tf.pad(z, [(0, 0), *self.pads((z.shape[1], z.shape[2])), (0, 0)])
        return self.activated(tf.nn.conv2d(z, kernel, [1, *self.strides, 1], "VALID") + bias)


class Stem(keras.layers.Layer):
    """The convolutions before the streams; see `train.presets.Config`."""

    def __init__(self, convs: tuple[ConvShape, ...], config: Config) -> None:
        super().__init__()
        self.beside, self.stride = config.beside, rows_per_frame(convs)
        relu = tf.nn.relu6 if config.bounded else tf.nn.relu
        self.convs = [BandConv(*conv, relu) for conv in convs]

    def build(self, size: tuple[int, int]) -> None:
        """Make the weights for windows of ``size`` (n_rows, n_features)."""
        n_channels, size = 1, (size[0], size[1] - self.beside)
        for conv in self.convs:
            conv.build(n_channels)
            n_channels, size = conv.n_filters, conv.n_out(size)
        self.n_frames = size[0]
        self.n_channels = n_channels * size[1] + self.beside * self.stride
        self.built = True

    def call(self, windows: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
        """Map (clips, rows, features) to (channels, clips, frames); ``seed`` means training."""
        bands, others = self._split(windows)
        z = bands[None]
        for number, conv in enumerate(self.convs):
            z = conv(z, seed=_fold(seed, 1010 + number))
        z = tf.transpose(z, (3, 0, 1, 2))
        z = tf.reshape(z, (z.shape[0] * z.shape[1], -1, self.n_frames))
        if others is None:
            return z
        return tf.concat([z, tf.transpose(others, (2, 0, 1))], axis=0)

    def deploy(self, window: tf.Tensor) -> tf.Tensor:
        """Map one window (1, rows, features) to (1, frames, 1, channels)."""
        bands, others = self._split(window)
        z = bands[..., None]
        for conv in self.convs:
            z = conv.deploy(z)
        z = tf.reshape(z, (1, self.n_frames, 1, -1))
        return z if others is None else tf.concat([z, others[:, :, None]], axis=3)

    def _split(self, windows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Return the bands, and what goes past: all rows of a frame side by side."""
        if not self.beside:
            return windows, None
        n_rows, n_bands = windows.shape[1], windows.shape[2] - self.beside
        missing = self.n_frames * self.stride - n_rows
        others = tf.pad(windows[:, :, n_bands:], [(0, 0), (0, missing), (0, 0)])
        others = tf.reshape(others, (-1, self.n_frames, self.stride * self.beside))
        return windows[:, :, :n_bands], others


class Stream(keras.layers.Layer):
    """A chain of temporal-aware blocks; each gates its own input: ``F[j+1] = A(F[j]) * F[j]``."""

    def __init__(self, config: Config, reverse: bool) -> None:
        super().__init__()
        relu = tf.nn.relu6 if config.bounded else tf.nn.relu
        self.entry = Conv(config.n_filters, activation=clipped if config.bounded else None)
        self.blocks = [
            [Conv(config.n_filters, 2**j, reverse, config.dropout_of(j), relu) for _ in range(2)]
            for j in range(config.n_blocks)
        ]

    def build(self, n_channels: int) -> None:
        self.entry.build(n_channels)
        for block in self.blocks:
            for conv in block:
                conv.build(self.entry.n_filters)
        self.built = True

    def call(self, z: tf.Tensor, seed: tf.Tensor | None = None) -> list[tf.Tensor]:
        """Return the mean of each block's output over time, shape (clips, n_filters)."""
        z = self.entry(z, seed=_fold(seed, 1020))
        pooled = []
        for j, block in enumerate(self.blocks):
            attention = z
            for half, conv in enumerate(block):
                attention = conv(attention, seed=_fold(seed, 2 * j + half))
            z = z * tf.sigmoid(attention)
            pooled.append(tf.transpose(tf.reduce_mean(z, axis=2)))
        return pooled

    def deploy(self, z: tf.Tensor, shares: list[np.ndarray] | None) -> list[tf.Tensor]:
        """Return the same for one window, (n_filters, 1) of each block.

        ``shares`` are factors for each block's, shape (n_filters,).
        """
        entered = z = self.entry.deploy(z)
        gates, pooled = None, []
        for j, block in enumerate(self.blocks):
            gate = tf.sigmoid(block[1].deploy(block[0].deploy(z)))
            # F[0] times the product of all gates, not F[j] times one: the same numbers, but in int8
            # F would be rounded again in every block, and values that are halved each time stick
            # at one step instead of vanishing.
            gates = gate if gates is None else gates * gate
            z = entered * gates
            # Frames around 0 have a small mean, which int8 keeps only if they are made large
            # before they are averaged.
            pooled.append(mean_deployed(z if shares is None else z * shares[j]))
        return pooled


def mean_deployed(z: tf.Tensor) -> tf.Tensor:
    """Return the mean over the frames of one window ``z`` (1, frames, 1, channels), (channels, 1).

    A product with a constant matrix: in tflite-runtime 2.14 an int8 mean of this size takes several
    times as long.
    """
    n_frames = z.shape[1]
    # In this order Core ML, which lays channels first, has nothing to do.
    rows = tf.reshape(tf.transpose(z, (0, 3, 1, 2)), (-1, n_frames))
    return tf.matmul(rows, np.full((n_frames, 1), 1 / n_frames, np.float32))


def _fold(seed: tf.Tensor | None, number: int) -> tf.Tensor | None:
    return None if seed is None else tf.random.experimental.stateless_fold_in(seed, number)


class Fusion(keras.layers.Layer):
    """The pooled block outputs of all streams as one vector.

    dynamic
        A learned weight for each block (the paper's multi-scale dynamic fusion).
    static
        Attention with one learned query; the block outputs are keys and values.
    self
        Scaled dot-product attention among the blocks of each stream, averaged over the blocks.
    cross
        The same, but every stream asks and the next stream answers (with two streams: forward
        asks backward and backward asks forward).

    The first two see the sum over the streams, and start as the plain average over the blocks
    (assumed); the last two sum the streams' answers.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def build(self, n_blocks: int, n_filters: int) -> None:
        if self.kind == "dynamic":
            start = keras.initializers.Constant(1 / n_blocks)
            self.weight = self.add_weight(shape=(n_blocks,), initializer=start)
        elif self.kind == "static":
            self.query = self.add_weight(shape=(n_filters,), initializer="zeros")
        self.built = True

    def call(self, streams: list[list[tf.Tensor]]) -> tf.Tensor:
        """Map each stream's blocks, (clips, n_filters) each, to one (clips, n_filters)."""
        if self.kind in ("self", "cross"):
            asking = [tf.stack(blocks, axis=1) for blocks in streams]
            answering = asking if self.kind == "self" else asking[1:] + asking[:1]
            return sum(_attend(q, kv) for q, kv in zip(asking, answering, strict=True))
        # Summed one by one and not as one stacked tensor: the blocks' outputs shrink from block to
        # block, and in int8 a stack gives all of them the coarse steps of the largest.
        blocks = [sum(outputs) for outputs in zip(*streams, strict=True)]
        if self.kind == "dynamic":
            weights = tf.unstack(tf.convert_to_tensor(self.weight))
        else:
            scores = [tf.reduce_sum(b * self.query, axis=-1, keepdims=True) for b in blocks]
            scores = tf.concat(scores, axis=-1) / np.sqrt(blocks[0].shape[-1])
            weights = tf.split(tf.nn.softmax(scores), len(blocks), axis=-1)
        return sum(w * block for w, block in zip(weights, blocks, strict=True))


def _attend(queries: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    scores = tf.matmul(queries, values, transpose_b=True) / np.sqrt(queries.shape[-1])
    return tf.reduce_mean(tf.matmul(tf.nn.softmax(scores), values), axis=1)


class Member(keras.layers.Layer):
    """One TIM-Net: a stem or none, the streams, their fusion and the output layers.

    Parameters
    ----------
    config : Config
    stem : tuple of convolutions, one of ``config.stems``
    n_labels : int
    """

    def __init__(self, config: Config, stem: tuple[ConvShape, ...], n_labels: int) -> None:
        super().__init__()
        self.config = config
        self.stem = Stem(stem, config) if stem else None
        self.streams = [Stream(config, reverse=False), Stream(config, reverse=True)]
        if config.shuffle:
            self.streams.append(Stream(config, reverse=False))
        self.fusion = Fusion(config.fusion)
        self.hidden = None
        if config.n_hidden:
            self.hidden = keras.layers.Dense(config.n_hidden, activation="relu")
        self.output_layer = keras.layers.Dense(n_labels)

    def build(self, size: tuple[int, int]) -> None:
        """Make the weights for windows of ``size`` (n_rows, n_features)."""
        self.n_frames, width = size
        if self.stem is not None:
            self.stem.build(size)
            self.n_frames, width = self.stem.n_frames, self.stem.n_channels
        for stream in self.streams:
            stream.build(width)
        width = self.config.n_filters
        self.fusion.build(self.config.n_blocks, width)
        if self.hidden is not None:
            self.hidden.build((None, width))
            width = self.config.n_hidden
        self.output_layer.build((None, width))
        self.built = True

    @property
    def order(self) -> np.ndarray:
        """The order in which the shuffled stream hears the frames at inference."""
        # One seed for all models: a retrained model differs in its weights only.
        return np.random.default_rng(46).permutation(self.n_frames)

    def pooled(self, windows: tf.Tensor, seed: tf.Tensor | None = None) -> list[list[tf.Tensor]]:
        """Return what each block of each stream leaves, shape (clips, n_filters) each."""
        windows = tf.convert_to_tensor(windows)
        z = tf.transpose(windows, (2, 0, 1)) if self.stem is None else self.stem(windows, seed)
        if seed is not None:
            z = spatial_dropout(z, self.config.input_dropout, _fold(seed, 1000))
        inputs = [z] * len(self.streams)
        if self.config.shuffle:
            order = tf.constant(self.order, tf.int32)
            if seed is not None:
                # Sorting noise is a shuffle that XLA can compile.
                order = tf.argsort(tf.random.stateless_uniform((z.shape[2],), _fold(seed, 1001)))
            inputs[2] = tf.gather(z, order, axis=2)
        return [
            stream(z, seed=_fold(seed, number))
            for number, (stream, z) in enumerate(zip(self.streams, inputs, strict=True))
        ]

    def answer(self, pooled: list[list[tf.Tensor]], seed: tf.Tensor | None = None) -> tf.Tensor:
        """Return the logits for what `pooled` returned."""
        vector = self.fusion(pooled)
        if seed is not None and self.config.head_dropout:
            rate, seed = self.config.head_dropout, _fold(seed, 1002)
            vector = spatial_dropout(tf.transpose(vector)[:, :, None], rate, seed)
            vector = tf.transpose(vector[:, :, 0])
        return self._answer(vector)

    def _answer(self, vector: tf.Tensor) -> tf.Tensor:
        return self.output_layer(vector if self.hidden is None else self.hidden(vector))

    def shares(self, windows: np.ndarray) -> list[Any]:
        """Return the factors that `deploy` gives to each stream's blocks, by training windows."""
        if self.config.fusion != "dynamic":
            return [None] * len(self.streams)
        return [[_shares(block) for block in blocks] for blocks in self.pooled(windows)]

    def deploy(self, window: tf.Tensor, shares: list[Any]) -> tf.Tensor:
        """Map one window (1, rows, features) to logits (1, n_labels)."""
        if self.stem is not None:
            z = self.stem.deploy(window)
        else:
            z = tf.reshape(window, (1, self.n_frames, 1, -1))
        inputs = [z] * len(self.streams)
        if self.config.shuffle:
            inputs[2] = tf.gather(z, self.order, axis=1)
        each = zip(self.streams, inputs, shares, strict=True)
        return self._deploy_head([stream.deploy(z, share) for stream, z, share in each], shares)

    def _deploy_head(self, pooled: list[list[tf.Tensor]], shares: list[Any]) -> tf.Tensor:
        if self.config.fusion != "dynamic":
            flat = [[tf.reshape(block, (1, -1)) for block in blocks] for blocks in pooled]
            return self._answer(self.fusion(flat))
        # The weighted sum and the layer after it are one matrix product over all blocks' outputs;
        # in int8 that saves rounding the sum. All of them share one scale there, which is why they
        # were made equally large; and as a convolution the product has a scale for each output.
        dense = self.hidden or self.output_layer
        weights = tf.unstack(tf.convert_to_tensor(self.fusion.weight)) * len(pooled)
        kernel = tf.concat(
            [
                weight * dense.kernel / share[:, None]
                for weight, share in zip(weights, itertools.chain(*shares), strict=True)
            ],
            axis=0,
        )
        blocks = list(itertools.chain(*pooled))
        vector = tf.reshape(tf.concat(blocks, axis=0), (1, 1, 1, -1))
        answer = tf.nn.conv2d(vector, kernel[None, None], 1, "VALID") + dense.bias
        answer = tf.squeeze(answer, [1, 2])
        return answer if self.hidden is None else self.output_layer(tf.nn.relu(answer))


def _shares(pooled: tf.Tensor) -> np.ndarray:
    """Return factors, (n_filters,), that make ``pooled`` (clips, n_filters) equally large.

    Large is what lies between the peak, which would leave a larger one no room, and the root
    mean square, which would leave a steady one coarse steps.
    """
    values = np.asarray(pooled)
    sizes = np.sqrt(np.abs(values).max(axis=0) * np.sqrt(np.mean(values**2, axis=0)))
    # Assumed: what is smaller than that carries little.
    sizes = np.maximum(sizes, max(sizes.max() / 32, 1e-6))
    # int8 keeps the factors in 127 steps; so that it keeps them exactly, they are whole steps.
    step = (1 / sizes).max() / 127
    return np.rint(1 / sizes / step) * step


def _mean(logits: list[tf.Tensor]) -> tf.Tensor:
    """Return the mean of the members' logits; one member's go out without an operator more."""
    return logits[0] if len(logits) == 1 else sum(logits) / len(logits)


@keras.saving.register_keras_serializable("ser")
class TimNet(keras.Model):
    """TIM-Net, or several that answer together, for windows of a fixed size.

    Parameters
    ----------
    config : Config or dict of its fields
        There is a member for each of its stems.
    n_rows, n_features : int
        Shape of one window of normalised features.
    n_labels : int
        Outputs; they are logits, the mean of the members'.
    seed : int
        Of the initial weights.
    """

    def __init__(
        self,
        config: Config | dict[str, Any],
        n_rows: int,
        n_features: int,
        n_labels: int,
        seed: int = 0,
        **keras_arguments: Any,
    ) -> None:
        super().__init__(**keras_arguments)
        self.config = config if isinstance(config, Config) else Config(**config)
        self.n_rows, self.n_features, self.n_labels, self.seed = n_rows, n_features, n_labels, seed
        self.members = [Member(self.config, stem, n_labels) for stem in self.config.stems]
        self.build((None, n_rows, n_features))

    def build(self, input_shape: tuple[int | None, int, int]) -> None:
        for member in self.members:
            member.build((self.n_rows, self.n_features))
        # Drawn here, not by Keras's initializers: those share one generator with everything else
        # in the process, so that a fold would depend on what ran before or beside it.
        rng = np.random.default_rng(self.seed)
        for variable in self.trainable_variables:
            if len(variable.shape) == 2:
                limit = np.sqrt(6 / sum(variable.shape))  # Cited: Glorot and Bengio (2010)
                variable.assign(rng.uniform(-limit, limit, variable.shape))
        self.built = True

    def get_config(self) -> dict[str, Any]:
        return {
            "config": dataclasses.asdict(self.config),
            "n_rows": self.n_rows,
            "n_features": self.n_features,
            "n_labels": self.n_labels,
            "seed": self.seed,
        }

    def each(
        self, windows: tf.Tensor, seed: tf.Tensor | None = None
    ) -> list[tuple[list[tf.Tensor], tf.Tensor]]:
        """Return what the blocks of each member leave, all streams', and its logits.

        ``seed``, int32 of shape (2,), draws dropout and shuffling and means training.
        """
        found = []
        for number, member in enumerate(self.members):
            own = _fold(seed, 1030 + number)
            pooled = member.pooled(windows, own)
            found.append((list(itertools.chain(*pooled)), member.answer(pooled, own)))
        return found

    def call(self, windows: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
        """Return the logits (clips, n_labels) of windows (clips, n_rows, n_features)."""
        return _mean([logits for _, logits in self.each(windows, seed)])

    def embed(self, windows: tf.Tensor) -> tf.Tensor:
        """Return the fused vectors (clips, n_members * n_filters) that the output layers see."""
        vectors = [member.fusion(member.pooled(windows)) for member in self.members]
        return tf.concat(vectors, axis=1)

    def deploy(self, windows: np.ndarray) -> tf.types.experimental.ConcreteFunction:
        """Return the graph for one window: (1, n_rows, n_features) to logits (1, n_labels).

        ``windows``, float32 (n, n_rows, n_features), are training windows; the answers do not
        depend on them, but how well int8 keeps them does.
        """
        shares = [member.shares(windows) for member in self.members]

        def one_window(window: tf.Tensor) -> dict[str, tf.Tensor]:
            each = zip(self.members, shares, strict=True)
            return {"logits": _mean([member.deploy(window, share) for member, share in each])}

        shape = tf.TensorSpec((1, self.n_rows, self.n_features), tf.float32, name="window")
        return tf.function(one_window, autograph=False).get_concrete_function(shape)

    def save_deployed(self, folder: str, windows: np.ndarray) -> None:
        """Write the graph of `deploy` as a SavedModel, which needs none of this code to be read."""
        module = tf.Module()
        module.weights = [variable.value for variable in self.variables]
        tf.saved_model.save(module, folder, signatures=self.deploy(windows))
