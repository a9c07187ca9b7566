"""A converted model on the device: a file and its card, checked against each other."""

from __future__ import annotations

import importlib
import importlib.util
import tempfile
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edge.bundle import unzip_model, unzipped_model
from edge.card import Card
from edge.coreml import CoreMLRuntime
from edge.errors import ModelError
from edge.quiet import quiet_native

# Both have the same Interpreter class; edge/requirements.txt installs one of them.
RUNTIMES = ("tflite_runtime", "ai_edge_litert")


def default_model() -> Path:
    """Return the shipped model, or the one of the unzipped bundle that this program came in."""
    folder = Path(__file__).parent
    return unzipped_model(folder.parent) or folder / "models" / "emodb.int8.tflite"


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


class Runtime(Protocol):
    """Whatever computes a model."""

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Map normalised features (1, n_rows, n_features) to logits (n_labels,)."""


class Model:
    """A window of features in, a probability for each label out.

    Parameters
    ----------
    path : Path, optional
        A ``.tflite`` file, or on macOS an ``.mlpackage``, whose card is the ``.json`` of the same
        name beside it; or a bundle (``.zip``), which holds both. Default: `default_model`.
    n_threads : int
        Threads for one inference (TFLite).
    compute_units : str
        Which of `edge.coreml.COMPUTE_UNITS` may be used (Core ML).

    Attributes
    ----------
    path : Path
        The file that was given.

    Raises
    ------
    ModelError
        If file or card is missing or damaged, or one does not fit the other.
    """

    def __init__(
        self, path: Path | None = None, n_threads: int = 1, compute_units: str = "all"
    ) -> None:
        if n_threads < 1:
            raise ValueError(f"n_threads must be at least 1, not {n_threads}")
        self.path = path = path or default_model()
        if path.suffix == ".zip":
            # Kept as long as the model: Core ML may read its package again.
            self._unzipped = tempfile.TemporaryDirectory(prefix="edge-")
            path = unzip_model(path, Path(self._unzipped.name))
        if path.suffix not in (".tflite", ".mlpackage"):
            raise ModelError(
                f"{path}: expected a .tflite file (its card lies beside it as .json), a bundle "
                "(.zip), or on macOS an .mlpackage"
            )
        self.card = Card.read_for(path)
        self.runtime: Runtime = (
            TFLiteRuntime(path, self.card, n_threads)
            if path.suffix == ".tflite"
            else CoreMLRuntime(path, self.card, compute_units)
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
        return self.runtime.logits(window[None])

    def probs(self, window: np.ndarray) -> np.ndarray:
        """Return the probability of each label, float32 (n_labels,), for one window."""
        return softmax(self.logits(window) / self.card.temperature)


class TFLiteRuntime:
    """One ``.tflite`` file; `Model` has checked it against its card's hash."""

    def __init__(self, path: Path, card: Card, n_threads: int = 1) -> None:
        module = interpreter_module()
        # In int8 the kernels of XNNPACK, which only newer runtimes use there, round otherwise than
        # the runtimes' own, which give the same answers on x86-64 (tests.runtimes).
        int8 = card.file is not None and card.file.precision == "int8"
        kernels = "BUILTIN_WITHOUT_DEFAULT_DELEGATES" if int8 else "AUTO"
        try:
            with quiet_native():  # the runtime announces its delegate
                self._interpreter = module.Interpreter(
                    model_content=path.read_bytes(),
                    num_threads=n_threads,
                    experimental_op_resolver_type=module.OpResolverType[kernels],
                )
                self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"{path}: {runtime()} cannot run it ({error})") from error
        (self.input,) = self._interpreter.get_input_details()
        (self.output,) = self._interpreter.get_output_details()
        self._require(path, "input", self.input, (1, card.n_rows, card.frontend.n_features))
        self._require(path, "output", self.output, (1, len(card.labels)))

    @staticmethod
    def _require(path: Path, what: str, tensor: dict[str, Any], shape: tuple[int, ...]) -> None:
        found = tuple(int(n) for n in tensor["shape"])
        if found != shape or tensor["dtype"] not in (np.float32, np.int8):
            raise ModelError(
                f"{path}: the card says {what} float32 or int8 {shape}, "
                f"the model has {np.dtype(tensor['dtype'])} {found}"
            )

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Map normalised features (1, n_rows, n_features) to logits (n_labels,), float32."""
        self._interpreter.set_tensor(self.input["index"], quantize(features, self.input))
        self._interpreter.invoke()
        return dequantize(self._interpreter.get_tensor(self.output["index"]), self.output)[0]


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
