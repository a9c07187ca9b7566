"""Models that hear samples: one window in, probabilities out, the front end inside the graph.

For programs in Swift, Kotlin, C++ or JavaScript that have no front end of their own. Everything is
float32: the rounding of float16 would hide quiet bands behind loud ones. Each window stands alone:
a front end that adapts to the speaker knows no more of them than this window.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from convert import coreml, tflite
from convert.frontend import features, heard_first
from convert.graph import with_probs
from convert.mlprogram import MLProgram
from convert.parity import TOLERANCES, measure
from convert.run import Made, Run
from edge import demo
from edge.audio import read_file
from edge.card import Card
from edge.model import interpreter_module
from edge.quiet import quiet_native

Probs = Callable[[np.ndarray], np.ndarray]


def graph_of(saved_model: Path, card: Card) -> Any:
    """Return "samples", float32 (n_samples,) in [-1, 1], to "probs" (1, n_labels).

    ``n_samples`` is what ``card.frontend.n_samples(card.n_rows)`` says: one window. The answer is
    that of `convert.frontend.heard_first` and the model in ``saved_model``.
    """
    frontend, n_rows = card.frontend, card.n_rows
    shape = (frontend.n_samples(n_rows),)
    return with_probs(
        saved_model, card, "samples", shape, lambda s: features(s, frontend, n_rows)[None]
    )


def make(run: Run, folder: Path) -> list[Made]:
    """Make the models that hear samples; compare them on the recordings of the demo."""
    card = run.card
    graph = graph_of(run.saved_model, card)
    arrays = sound_windows(run)
    made = []

    path = folder / f"{run.name}.waveform.tflite"
    with tempfile.TemporaryDirectory(dir=folder) as saved:
        save_graph(graph, Path(saved))
        path.write_bytes(tflite.to_tflite(Path(saved), "float32"))
    written = run.write_card(path, "waveform")
    parity = measure(tflite_probs(path), arrays, card, TOLERANCES["waveform"])
    made.append(Made(path, written, dict(tflite.operators(path.read_bytes())), parity))

    path = folder / f"{run.name}.waveform-coreml.mlpackage"
    program = coreml.to_coreml(graph, card, full=True)
    text = f"Samples of one window, mono, {card.frontend.sample_rate_hz} Hz, in [-1, 1]"
    coreml.describe(program, card, text)
    coreml.save(program, path)
    written = run.write_card(path, "waveform")
    parity = measure(coreml_probs(path, card), arrays, card, TOLERANCES["waveform"])
    made.append(Made(path, written, dict(MLProgram(path).operators), parity))
    return made


def save_graph(graph: Any, folder: Path) -> None:
    """Write a concrete function of `convert.graph` as a SavedModel."""
    with quiet_native():
        import tensorflow as tf

        module = tf.Module()
        module.loaded = graph.loaded
        tf.saved_model.save(module, str(folder), signatures=graph)


def tflite_probs(path: Path) -> Probs:
    """Return what maps samples (n_samples,) to probabilities (n_labels,)."""
    with quiet_native():
        interpreter = interpreter_module().Interpreter(model_content=path.read_bytes())
        interpreter.allocate_tensors()
    (given,), (answer,) = interpreter.get_input_details(), interpreter.get_output_details()

    def probs(samples: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(given["index"], samples)
        interpreter.invoke()
        found: np.ndarray = interpreter.get_tensor(answer["index"])[0]
        return found

    return probs


def coreml_probs(path: Path, card: Card) -> Probs:
    """Return the same for a Core ML package."""
    program = MLProgram(path)

    def probs(samples: np.ndarray) -> np.ndarray:
        by_label = program.predict(samples=samples)["label_probs"]
        return np.array([by_label[label] for label in card.labels], np.float32)

    return probs


def sound_windows(run: Run) -> dict[str, np.ndarray]:
    """Return the demo's recordings as windows of samples, with the trained model's logits."""
    card, answer = run.card, run.network()
    n = card.frontend.n_samples(card.n_rows)
    windows, owners = [], []
    for number, clip in enumerate(demo.clips()):
        samples = read_file(clip.path, card.frontend.sample_rate_hz)
        samples = np.pad(samples, (0, max(0, n - len(samples))))
        starts = range(0, len(samples) - n + 1, max(1, n // 4))
        windows += [samples[start : start + n] for start in starts]
        owners += [number] * len(starts)
    logits = [answer(heard_first(samples, card.frontend)) for samples in windows]
    return {
        "windows": np.stack(windows), "owners": np.array(owners), "logits": np.stack(logits),
    }  # fmt: skip
