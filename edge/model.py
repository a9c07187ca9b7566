"""A converted model on the device: a TFLite file and its card, checked against each other."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from edge.card import Card, sha256
from edge.errors import ModelError
from edge.quiet import quiet_native

DEFAULT_MODEL = Path(__file__).parent / "models" / "emodb.int8.tflite"

# Both have the same Interpreter class; edge/requirements.txt installs one of them.
RUNTIMES = ("tflite_runtime", "ai_edge_litert")


def runtime() -> str:
    """Return the name of the installed TFLite runtime; ModelError if there is none."""
    for name in RUNTIMES:
        if importlib.util.find_spec(name):
            return name
    raise ModelError(
        "no TFLite runtime found: expected tflite-runtime or ai-edge-litert; "
        "pip install -r edge/requirements.txt"
    )


def interpreter_module() -> Any:
    """Return the runtime's module with the ``Interpreter`` class."""
    return importlib.import_module(f"{runtime()}.interpreter")


class Model:
    """A window of features in, a probability for each label out.

    Parameters
    ----------
    path : Path
        The ``.tflite`` file; its card is the ``.json`` of the same name.
    n_threads : int
        Threads for one inference.

    Raises
    ------
    ModelError
        If file or card is missing or damaged, or one does not fit the other.
    """

    def __init__(self, path: Path = DEFAULT_MODEL, n_threads: int = 1) -> None:
        if n_threads < 1:
            raise ValueError(f"n_threads must be at least 1, not {n_threads}")
        if path.suffix != ".tflite":
            raise ModelError(f"{path}: expected a .tflite file (its card lies beside it as .json)")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ModelError(f"{path}: cannot read the model ({error.strerror})") from error
        self.card = Card.read(path.with_suffix(".json"))
        if self.card.file is None or self.card.file.name != path.name:
            named = None if self.card.file is None else self.card.file.name
            raise ModelError(f"{path}: its card belongs to {named!r}; convert the model again")
        if sha256(content) != self.card.file.sha256:
            raise ModelError(
                f"{path}: SHA-256 differs from the card's; the file is damaged or belongs to "
                "another card: copy or convert both again"
            )
        try:
            with quiet_native():  # the runtime announces its delegate
                self._interpreter = interpreter_module().Interpreter(
                    model_content=content, num_threads=n_threads
                )
                self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"{path}: {runtime()} cannot run it ({error})") from error
        (self._input,) = self._interpreter.get_input_details()
        (self._output,) = self._interpreter.get_output_details()
        self._require(
            path, "input", self._input, (1, self.card.n_rows, self.card.frontend.n_features)
        )
        self._require(path, "output", self._output, (1, len(self.card.labels)))

    @staticmethod
    def _require(path: Path, what: str, tensor: dict[str, Any], shape: tuple[int, ...]) -> None:
        found = tuple(int(n) for n in tensor["shape"])
        if found != shape or tensor["dtype"] not in (np.float32, np.int8):
            raise ModelError(
                f"{path}: the card says {what} float32 or int8 {shape}, "
                f"the model has {np.dtype(tensor['dtype'])} {found}"
            )

    def logits(self, window: np.ndarray) -> np.ndarray:
        """Return the outputs for one window.

        Parameters
        ----------
        window : float32, shape (n_rows, n_features)
            Normalised features (`edge.speaker.SpeakerNorm`).

        Returns
        -------
        float32, shape (n_labels,)
        """
        expected = (self.card.n_rows, self.card.frontend.n_features)
        if window.shape != expected:
            raise ValueError(f"window: expected shape {expected}, not {window.shape}")
        self._interpreter.set_tensor(self._input["index"], quantize(window[None], self._input))
        self._interpreter.invoke()
        return dequantize(self._interpreter.get_tensor(self._output["index"]), self._output)[0]

    def probs(self, window: np.ndarray) -> np.ndarray:
        """Return the probability of each label, float32 (n_labels,), for one window."""
        return softmax(self.logits(window) / self.card.temperature)


def quantize(values: np.ndarray, tensor: dict[str, Any]) -> np.ndarray:
    """Return ``values`` in the type of ``tensor``, saturating where they exceed its range."""
    if tensor["dtype"] == np.float32:
        return values.astype(np.float32, copy=False)
    scale, zero_point = tensor["quantization"]
    limits = np.iinfo(tensor["dtype"])
    steps = np.rint(values / scale) + zero_point
    return np.clip(steps, limits.min, limits.max).astype(tensor["dtype"])


def dequantize(values: np.ndarray, tensor: dict[str, Any]) -> np.ndarray:
    """Return what ``values`` of the type of ``tensor`` stand for, as float32."""
    if tensor["dtype"] == np.float32:
        return values
    scale, zero_point = tensor["quantization"]
    return ((values.astype(np.float32) - zero_point) * scale).astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities along the last axis."""
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)
