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
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from train.presets import Config

BATCH_NORM_EPSILON = 1e-3  # Assumed: the default of Keras.
BATCH_NORM_MOMENTUM = 0.99  # Assumed: the default of Keras.


def spatial_dropout(z: tf.Tensor, rate: float, seed: tf.Tensor) -> tf.Tensor:
    """Silence whole channels of single clips in ``z`` (channels, clips, frames)."""
    if rate == 0:
        return z
    kept = tf.random.stateless_uniform((z.shape[0], z.shape[1], 1), seed) >= rate
    return z * (tf.cast(kept, z.dtype) / (1 - rate))


class Conv(keras.layers.Layer):
    """A convolution over time; unless ``plain``, with normalisation, ReLU and dropout behind it.

    Parameters
    ----------
    n_filters, n_taps : int
    dilation, stride : int
        Frames from tap to tap, and from one output to the next.
    pads : (int, int)
        Zeros before the first and after the last frame.
    dropout : float
        Rate of the spatial dropout behind it.
    plain : bool
        A bias and nothing else behind it.
    """

    def __init__(
        self,
        n_filters: int,
        n_taps: int = 1,
        dilation: int = 1,
        stride: int = 1,
        pads: tuple[int, int] = (0, 0),
        dropout: float = 0.0,
        plain: bool = False,
    ) -> None:
        super().__init__()
        self.n_filters, self.n_taps, self.dilation, self.stride = (
            n_filters, n_taps, dilation, stride,
        )  # fmt: skip
        self.pads, self.dropout_rate, self.plain = pads, dropout, plain

    @classmethod
    def temporal(cls, n_filters: int, dilation: int, reverse: bool, dropout: float) -> Conv:
        """Return half a temporal-aware block: dilated and causal, with two taps.

        ``reverse`` looks ahead instead of back, which is the same as a causal convolution over
        the reversed frames, without reversing anything.
        """
        pads = (0, dilation) if reverse else (dilation, 0)
        return cls(n_filters, 2, dilation, pads=pads, dropout=dropout)

    def build(self, n_channels: int) -> None:
        shape = (self.n_filters,)
        # Zeros until `TimNet.build` draws all kernels.
        self.kernel = self.add_weight(
            shape=(self.n_taps * n_channels, self.n_filters), initializer="zeros"
        )
        self.beta = self.add_weight(shape=shape, initializer="zeros")
        if not self.plain:
            self.gamma = self.add_weight(shape=shape, initializer="ones")
            self.mean = self.add_weight(shape=shape, initializer="zeros", trainable=False)
            self.variance = self.add_weight(shape=shape, initializer="ones", trainable=False)
        self.built = True

    def n_frames(self, n_frames: int) -> int:
        """Return how many frames come out where ``n_frames`` go in."""
        reach = (self.n_taps - 1) * self.dilation
        return 1 + (n_frames + sum(self.pads) - reach - 1) // self.stride

    def call(self, z: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
        """Map (channels, clips, frames) to (n_filters, clips, frames); ``seed`` means training."""
        n_frames = self.n_frames(z.shape[2])
        if self.n_taps > 1:
            z = tf.pad(z, [[0, 0], [0, 0], self.pads])
            span = (n_frames - 1) * self.stride + 1
            starts = [tap * self.dilation for tap in range(self.n_taps)]
            z = tf.concat([z[:, :, s : s + span : self.stride] for s in starts], axis=0)
        y = tf.matmul(self.kernel, tf.reshape(z, (z.shape[0], -1)), transpose_a=True)
        if self.plain:
            return tf.reshape(y + self.beta[:, None], (self.n_filters, -1, n_frames))
        if seed is None:
            mean, variance = tf.convert_to_tensor(self.mean), tf.convert_to_tensor(self.variance)
        else:
            # One pass over y for both moments: a second pass costs more than the rounding.
            mean = tf.reduce_mean(y, axis=1)
            variance = tf.maximum(tf.reduce_mean(y * y, axis=1) - mean * mean, 0)
            for moving, batch in ((self.mean, mean), (self.variance, variance)):
                moving.assign(moving + (1 - BATCH_NORM_MOMENTUM) * (batch - moving))
        gain = self.gamma * tf.math.rsqrt(variance + BATCH_NORM_EPSILON)
        y = tf.nn.relu(y * gain[:, None] + (self.beta - mean * gain)[:, None])
        y = tf.reshape(y, (self.n_filters, -1, n_frames))
        return y if seed is None else spatial_dropout(y, self.dropout_rate, seed)

    def deploy(self, z: tf.Tensor) -> tf.Tensor:
        """Map one window (1, frames, 1, channels) to (1, frames, 1, n_filters)."""
        kernel = tf.reshape(self.kernel, (self.n_taps, 1, -1, self.n_filters))
        if self.n_taps == 2 and self.dilation >= z.shape[1]:  # the far tap only ever meets padding
            kernel = kernel[:1] if self.pads[1] else kernel[1:]
        elif any(self.pads):
            z = tf.pad(z, [[0, 0], self.pads, [0, 0], [0, 0]])
        if self.plain:
            return tf.nn.conv2d(z, kernel, self.stride, "VALID") + self.beta
        gain = self.gamma * tf.math.rsqrt(self.variance + BATCH_NORM_EPSILON)
        y = tf.nn.conv2d(
            z, kernel * gain, [1, self.stride, 1, 1], "VALID", dilations=[1, self.dilation, 1, 1]
        )
        return tf.nn.relu(y + (self.beta - self.mean * gain))


class Stream(keras.layers.Layer):
    """A chain of temporal-aware blocks; each gates its own input: ``F[j+1] = A(F[j]) * F[j]``."""

    def __init__(self, config: Config, reverse: bool) -> None:
        super().__init__()
        self.pooling = config.pooling
        self.entry = Conv(config.n_filters, plain=True)
        self.blocks = [
            [Conv.temporal(config.n_filters, 2**j, reverse, config.dropout_of(j)) for _ in range(2)]
            for j in range(config.n_blocks)
        ]

    def build(self, n_channels: int) -> None:
        self.entry.build(n_channels)
        for block in self.blocks:
            for conv in block:
                conv.build(self.entry.n_filters)
        self.built = True

    def call(self, z: tf.Tensor, seed: tf.Tensor | None = None) -> list[tf.Tensor]:
        """Return each block's output pooled over time, shape (clips, n_pooled)."""
        z = self.entry(z)
        pooled = []
        for j, block in enumerate(self.blocks):
            attention = z
            for half, conv in enumerate(block):
                attention = conv(attention, seed=_fold(seed, 2 * j + half))
            z = z * tf.sigmoid(attention)
            pooled.append(tf.transpose(pool(z, [2], self.pooling)))
        return pooled

    def deploy(self, z: tf.Tensor) -> list[tf.Tensor]:
        """Return the same for one window, shape (1, n_pooled) each."""
        entered = z = self.entry.deploy(z)
        gates, pooled = None, []
        for block in self.blocks:
            gate = tf.sigmoid(block[1].deploy(block[0].deploy(z)))
            # F[0] times the product of all gates, not F[j] times one: the same numbers, but in int8
            # F would be rounded again in every block, and values that are halved each time stick
            # at one step instead of vanishing.
            gates = gate if gates is None else gates * gate
            z = entered * gates
            pooled.append(pool(z, [1, 2], self.pooling))
        return pooled


def pool(z: tf.Tensor, time_axes: list[int], kind: str) -> tf.Tensor:
    """Return the statistics of ``z`` over time: per clip and channel, or per channel and clip.

    "mean", or "deviation": the means, then the mean distances from them, along the channels.
    (A distance, and not its square as in a standard deviation, keeps the range that int8 has.)
    """
    mean = tf.reduce_mean(z, axis=time_axes)
    if kind == "mean":
        return mean
    # The mean again, but in a shape to be taken away: cheaper on the device than changing shapes.
    distance = tf.abs(z - tf.reduce_mean(z, axis=time_axes, keepdims=True))
    channel_axis = 0 if z.shape.rank == 3 else -1  # (channels, clips, frames), or one window
    return tf.concat([mean, tf.reduce_mean(distance, axis=time_axes)], axis=channel_axis)


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


@keras.saving.register_keras_serializable("ser")
class TimNet(keras.Model):
    """TIM-Net for windows of a fixed size.

    Parameters
    ----------
    config : Config or dict of its fields
    n_rows, n_features : int
        Shape of one window of normalised features.
    n_labels : int
        Outputs; they are logits.
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
        self.stem = [
            # Centred taps: an output stands for the frames around it.
            Conv(n_filters, n_taps, stride=stride, pads=((n_taps - 1) // 2, n_taps // 2))
            for n_filters, n_taps, stride in self.config.stem
        ]
        self.streams = [Stream(self.config, reverse=False), Stream(self.config, reverse=True)]
        if self.config.shuffle:
            self.streams.append(Stream(self.config, reverse=False))
        self.fusion = Fusion(self.config.fusion)
        self.hidden = None
        if self.config.n_hidden:
            self.hidden = keras.layers.Dense(self.config.n_hidden, activation="relu")
        self.output_layer = keras.layers.Dense(n_labels)
        self.build((None, n_rows, n_features))

    def build(self, input_shape: tuple[int | None, int, int]) -> None:
        width = self.n_features
        for conv in self.stem:
            conv.build(width)
            width = conv.n_filters
        for stream in self.streams:
            stream.build(width)
        width = self.config.n_pooled
        self.fusion.build(self.config.n_blocks, width)
        if self.hidden is not None:
            self.hidden.build((None, width))
            width = self.config.n_hidden
        self.output_layer.build((None, width))
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

    @property
    def order(self) -> np.ndarray:
        """The order in which the shuffled stream hears the frames at inference."""
        # One seed for all models: a retrained model differs in its weights only.
        n_frames = self.n_rows
        for conv in self.stem:
            n_frames = conv.n_frames(n_frames)
        return np.random.default_rng(46).permutation(n_frames)

    def call(self, windows: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
        """Return the logits (clips, n_labels) of windows (clips, n_rows, n_features).

        ``seed``, int32 of shape (2,), draws dropout and shuffling and means training.
        """
        vector = self.embed(windows, seed)
        if seed is not None and self.config.head_dropout:
            rate, seed = self.config.head_dropout, _fold(seed, 1002)
            vector = spatial_dropout(tf.transpose(vector)[:, :, None], rate, seed)
            vector = tf.transpose(vector[:, :, 0])
        return self._answer(vector)

    def embed(self, windows: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
        """Return the fused vector (clips, n_pooled) that the output layers see."""
        windows = tf.convert_to_tensor(windows)
        z = tf.transpose(windows, (2, 0, 1))
        if seed is not None:
            z = spatial_dropout(z, self.config.input_dropout, _fold(seed, 1000))
        for number, conv in enumerate(self.stem):
            z = conv(z, seed=_fold(seed, 1010 + number))
        inputs = [z] * len(self.streams)
        if self.config.shuffle:
            order = tf.constant(self.order, tf.int32)
            if seed is not None:
                # Sorting noise is a shuffle that XLA can compile.
                order = tf.argsort(tf.random.stateless_uniform((z.shape[2],), _fold(seed, 1001)))
            inputs[2] = tf.gather(z, order, axis=2)
        pooled = [
            stream(z, seed=_fold(seed, number))
            for number, (stream, z) in enumerate(zip(self.streams, inputs, strict=True))
        ]
        return self.fusion(pooled)

    def _answer(self, vector: tf.Tensor) -> tf.Tensor:
        return self.output_layer(vector if self.hidden is None else self.hidden(vector))

    def deploy(self) -> tf.types.experimental.ConcreteFunction:
        """Return the graph for one window: (1, n_rows, n_features) to logits (1, n_labels)."""

        def one_window(window: tf.Tensor) -> dict[str, tf.Tensor]:
            z = tf.reshape(window, (1, self.n_rows, 1, self.n_features))
            for conv in self.stem:
                z = conv.deploy(z)
            inputs = [z] * len(self.streams)
            if self.config.shuffle:
                inputs[2] = tf.gather(z, self.order, axis=1)
            pooled = [s.deploy(z) for s, z in zip(self.streams, inputs, strict=True)]
            return {"logits": self._deploy_head(pooled)}

        shape = tf.TensorSpec((1, self.n_rows, self.n_features), tf.float32, name="window")
        return tf.function(one_window, autograph=False).get_concrete_function(shape)

    def _deploy_head(self, pooled: list[list[tf.Tensor]]) -> tf.Tensor:
        if self.config.fusion != "dynamic":
            return self._answer(self.fusion(pooled))
        # The weighted sum and the layer after it are one matrix product over all blocks' outputs;
        # in int8 that saves rounding the sum.
        dense = self.hidden or self.output_layer
        weights = tf.unstack(tf.convert_to_tensor(self.fusion.weight)) * len(pooled)
        kernel = tf.concat([weight * dense.kernel for weight in weights], axis=0)
        vector = tf.concat([block for blocks in pooled for block in blocks], axis=1)
        answer = tf.matmul(vector, kernel) + dense.bias
        return answer if self.hidden is None else self.output_layer(tf.nn.relu(answer))

    def save_deployed(self, folder: str) -> None:
        """Write the graph of `deploy` as a SavedModel, which needs none of this code to be read."""
        module = tf.Module()
        module.weights = [variable.value for variable in self.variables]
        tf.saved_model.save(module, folder, signatures=self.deploy())
