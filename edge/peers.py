"""What others cost, measured in the same sitting, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from edge.errors import SerError

# TIM-Net's published recipe, run once for every window: librosa's features and a Keras call.
PUBLISHED = """
import json, os, sys, time
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np, librosa, tensorflow as tf, keras
if sys.argv[1:]:
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
layers, n = keras.layers, 39
window = keras.Input((188, n))
streams = []
for inputs in (window, keras.layers.Lambda(lambda z: z[:, ::-1])(window)):
    z, outputs = layers.Conv1D(n, 1)(inputs), []
    for block in range(8):
        a = z
        for _ in range(2):
            a = layers.Conv1D(n, 2, dilation_rate=2**block, padding="causal")(a)
            a = layers.ReLU()(layers.BatchNormalization()(a))
        z = layers.Multiply()([z, layers.Activation("sigmoid")(a)])
        outputs.append(layers.GlobalAveragePooling1D()(z))
    streams += outputs
model = keras.Model(window, layers.Dense(7, activation="softmax")(layers.Average()(streams)))
samples = np.random.default_rng(0).normal(size=96000).astype("f4") * 0.1
def hop():
    rows = librosa.feature.mfcc(y=samples, sr=22050, n_mfcc=n).T
    model.predict(rows[None, :188], verbose=0)
for _ in range(3): hop()
started = time.process_time()
for _ in range(20): hop()
print(json.dumps({"cpu_s_per_audio_s": 4 * (time.process_time() - started) / 20}))
"""


def published_recipe() -> dict[str, Any]:
    """Return what the published recipe costs at four windows a second, on one thread and as it is.

    SerError without Keras.
    """
    one = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PUBLISHED]
    return {
        "on one thread": json_of([*command, "one thread"], one),
        "on as many as it takes": json_of(command),
    }


def peer(command: str) -> dict[str, Any]:
    """Return what ``command`` prints as JSON: a peer's ``cpu_s_per_audio_s``."""
    found = json_of(command.split())
    if "cpu_s_per_audio_s" not in found:
        raise SerError(f"--peer: expected JSON with cpu_s_per_audio_s, not {found}")
    return found


def json_of(command: list[str], environment: dict[str, str] | None = None) -> dict[str, Any]:
    """Run ``command`` in the folder above `edge`; return the JSON object it prints last."""
    root = Path(__file__).parent.parent
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=root, env=environment
        )
        found = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.CalledProcessError, ValueError, IndexError) as error:
        raise SerError(f"{' '.join(command[:2])} has not given a line of JSON ({error})") from error
    if not isinstance(found, dict):
        raise SerError(f"{' '.join(command[:2])}: expected a JSON object, not {found!r}")
    return found
