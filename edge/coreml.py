"""A Core ML package on the device: macOS only, through coremltools, imported only there."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np

from edge.card import Card
from edge.errors import ModelError
from edge.quiet import quiet_native

# What may compute, and coremltools' names of it.
COMPUTE_UNITS = {
    "all": "ALL",
    "cpu": "CPU_ONLY",
    "cpu-and-gpu": "CPU_AND_GPU",
    "cpu-and-neural-engine": "CPU_AND_NE",
}


class CoreMLRuntime:
    """One ``.mlpackage``, which answers with probabilities by name.

    Parameters
    ----------
    path : Path
    card : Card
    compute_units : str
        One of `COMPUTE_UNITS`.

    Raises
    ------
    ModelError
        If this is no Mac, coremltools is missing, or the package does not fit the card.
    """

    def __init__(self, path: Path, card: Card, compute_units: str = "all") -> None:
        self._card = card
        if compute_units not in COMPUTE_UNITS:
            raise ValueError(
                f"compute_units: one of {', '.join(COMPUTE_UNITS)}, not {compute_units!r}"
            )
        if platform.system() != "Darwin":
            raise ModelError(
                f"{path}: Core ML runs on macOS only; here, use the same model's .tflite file"
            )
        try:
            with quiet_native():
                import coremltools
        except ImportError as error:
            raise ModelError(
                f"{path}: running it needs coremltools; pip install -r edge/requirements-coreml.txt"
            ) from error
        try:
            self._model = coremltools.models.MLModel(
                str(path),
                compute_units=getattr(coremltools.ComputeUnit, COMPUTE_UNITS[compute_units]),
            )
        except Exception as error:  # coremltools passes on whatever Core ML raised
            raise ModelError(f"{path}: Core ML cannot run it ({error})") from error
        description = self._model.get_spec().description
        self._input = description.input[0].name
        self._probs = description.predictedProbabilitiesName
        found = tuple(description.input[0].type.multiArrayType.shape)
        shape = (1, card.n_rows, card.frontend.n_features)
        if found != shape:
            raise ModelError(f"{path}: the card says input {shape}, the model has {found}")

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return what the softmax was taken of, but for an added constant, float32 (n_labels,)."""
        answer: dict[str, Any] = self._model.predict({self._input: features})
        probs = np.array([answer[self._probs][name] for name in self._card.labels], np.float32)
        with np.errstate(divide="ignore"):  # float16 knows no probability below 6e-8
            return (np.log(probs) * self._card.temperature).astype(np.float32)
