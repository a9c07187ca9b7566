"""``python -m train.benchmark``: an epoch here against the same network of plain Keras layers.

The peer is TIM-Net as one would first write it: `Conv1D` with ``dilation_rate``, Keras's batch
normalisation and dropout, ``compile`` and ``fit``; once as Keras compiles it by default and once
with XLA. All take turns in one process, on made-up features of 480 clips of EMODB's length.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from edge.errors import count
from edge.quiet import quiet_native
from edge.storage import write_json
from train.presets import PRESETS

N_CLIPS, N_ROWS, N_MFCC, N_LABELS = 480, 188, 39, 7
RESULT = Path(__file__).parent / "results" / "speed.json"


def plain_keras(jit_compile: str | bool) -> Any:
    """Return TIM-Net of Keras's own layers, compiled."""
    import keras

    layers, config = keras.layers, PRESETS["timnet"]
    window = keras.Input((N_ROWS, N_MFCC))
    flipped = keras.layers.Lambda(lambda z: z[:, ::-1])(window)
    streams = []
    for inputs in (window, flipped):
        z, outputs = layers.Conv1D(config.n_filters, 1)(inputs), []
        for block in range(config.n_blocks):
            attention = z
            for _ in range(2):
                attention = layers.Conv1D(
                    config.n_filters, 2, dilation_rate=2**block, padding="causal"
                )(attention)
                attention = layers.BatchNormalization()(attention)
                attention = layers.ReLU()(attention)
                attention = layers.SpatialDropout1D(config.dropout)(attention)
            z = layers.Multiply()([z, layers.Activation("sigmoid")(attention)])
            outputs.append(z)
        streams.append(outputs)
    pooled = [layers.GlobalAveragePooling1D()(layers.Add()(pair)) for pair in zip(*streams)]  # noqa: B905
    model = keras.Model(window, layers.Dense(N_LABELS)(layers.Average()(pooled)))
    model.compile(
        keras.optimizers.Adam(config.learning_rate, beta_1=config.beta_1, beta_2=config.beta_2),
        keras.losses.CategoricalCrossentropy(True, label_smoothing=config.label_smoothing),
        jit_compile=jit_compile,
    )
    return model


def measure(n_epochs: int, n_threads: int) -> dict[str, Any]:
    """Time epochs of the three in turn, after one that compiles; medians in seconds."""
    with quiet_native():
        import tensorflow as tf

        from train.fit import Trainer

        tf.config.threading.set_intra_op_parallelism_threads(n_threads)
        tf.config.threading.set_inter_op_parallelism_threads(n_threads)
        tf.ones(1)
    rng = np.random.default_rng(0)
    windows = rng.normal(size=(N_CLIPS, N_ROWS, N_MFCC)).astype(np.float32)
    labels = rng.integers(N_LABELS, size=N_CLIPS)
    targets = np.eye(N_LABELS, dtype=np.float32)[labels]
    trainer = Trainer(PRESETS["timnet"], N_ROWS, N_MFCC, N_LABELS)

    def fitted(jit_compile: str | bool) -> Callable[[], object]:
        model = plain_keras(jit_compile)
        return lambda: model.fit(windows, targets, batch_size=64, epochs=1, verbose=0)

    entries = {
        "here": lambda: trainer.epoch(windows, labels, rng),
        "keras": fitted("auto"),
        "keras_with_xla": fitted(True),
    }
    first_s = {name: _timed(epoch) for name, epoch in entries.items()}
    epoch_s: dict[str, list[float]] = {name: [] for name in entries}
    for _ in range(n_epochs):
        for name, epoch in entries.items():
            epoch_s[name].append(_timed(epoch))
    medians = {name: statistics.median(times) for name, times in epoch_s.items()}
    started = time.perf_counter()
    trainer.reset(1)
    next_fold_s = time.perf_counter() - started
    return {
        "n_clips": N_CLIPS,
        "n_threads": n_threads,
        "n_epochs": n_epochs,
        "epoch_s": {name: round(value, 3) for name, value in medians.items()},
        "first_epoch_s": {name: round(value, 1) for name, value in first_s.items()},
        "next_fold_s": round(next_fold_s, 2),
        "ratio_to_keras": round(medians["here"] / medians["keras"], 3),
        "ratio_to_keras_with_xla": round(medians["here"] / medians["keras_with_xla"], 3),
    }


def _timed(epoch: Callable[[], object]) -> float:
    started = time.perf_counter()
    epoch()
    return time.perf_counter() - started


def main(argv: list[str] | None = None) -> int:
    from edge.machine import hardware

    parser = argparse.ArgumentParser(prog="python -m train.benchmark", description=__doc__)
    parser.add_argument("--epochs", type=count, default=5, help="timed, of each; default: 5")
    parser.add_argument(
        "--threads", type=count, default=1, help="as a fold gets them on 2 cores; default: 1"
    )
    parser.add_argument(
        "--out", type=Path, default=RESULT, help="default: train/results/speed.json"
    )
    args = parser.parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    result = measure(args.epochs, args.threads)
    result = {"date": date.today().isoformat(), "hardware": hardware(), **result}
    write_json(args.out, result)
    for name, value in result.items():
        print(f"{name}: {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
