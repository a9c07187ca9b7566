"""What conversion starts from and what it leaves."""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from convert.parity import Parity
from edge.card import Card, ModelFile, content_sha256
from edge.errors import ModelError
from edge.quiet import quiet_native


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained model to convert: the folder of one fold."""

    folder: Path
    name: str

    @property
    def saved_model(self) -> Path:
        return self.folder / "saved_model"

    @property
    def card(self) -> Card:
        return Card.read(self.folder / "card.json")

    def windows(self) -> dict[str, np.ndarray]:
        """Return the arrays that training left for conversion."""
        path = self.folder / "windows.npz"
        try:
            with np.load(path) as stored:
                return dict(stored)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise ModelError(f"{path}: cannot be read ({error})") from error

    def network(self) -> Callable[[np.ndarray], np.ndarray]:
        """Return what maps a window (n_rows, n_features) to the trained model's logits."""
        with quiet_native():
            import tensorflow as tf

            loaded = tf.saved_model.load(str(self.saved_model))

        def logits(window: np.ndarray) -> np.ndarray:
            answer = loaded.signatures["serving_default"](window=tf.constant(window[None]))
            found: np.ndarray = answer["logits"].numpy()[0]
            return found

        return logits

    def write_card(self, model: Path, precision: str) -> Card:
        """Write the card that belongs to a converted model, beside it."""
        file = ModelFile(model.name, content_sha256(model), precision)
        card = dataclasses.replace(self.card, name=self.name, file=file)
        card.write(model.with_suffix(".json"))
        return card


@dataclasses.dataclass(frozen=True)
class Made:
    """One converted model, its card beside it."""

    path: Path
    card: Card
    operators: dict[str, int]
    parity: Parity
    # Core ML: what each compute unit of this Mac answers, or why that is not known.
    on_device: dict[str, Parity] | str = ""

    @property
    def n_bytes(self) -> int:
        """Size of the model on disk, without its card."""
        files = [self.path] if self.path.is_file() else self.path.rglob("*")
        return sum(f.stat().st_size for f in files if f.is_file())

    @property
    def precision(self) -> str:
        assert self.card.file is not None
        return self.card.file.precision

    @property
    def kind(self) -> str:
        """The part of the file's name that tells it from the others of the same run."""
        return self.path.stem.removeprefix(f"{self.card.name}.")

    @property
    def within(self) -> bool:
        """Whether every measurement is within its tolerance."""
        others = self.on_device.values() if isinstance(self.on_device, dict) else ()
        return all(parity.within for parity in (self.parity, *others))

    @property
    def on_device_line(self) -> str:
        """What Core ML itself answered, in a line; empty for TFLite."""
        if isinstance(self.on_device, str):
            return self.on_device and f"Through Core ML itself: {self.on_device}"
        worst = (f"{units} {p.prob_difference:.5f}" for units, p in self.on_device.items())
        return f"Through Core ML itself, {self.kind}, largest difference: {', '.join(worst)}"

    def to_json(self) -> dict[str, Any]:
        """Return the figures for a result file."""
        figures = {"n_bytes": self.n_bytes, "operators": self.operators, **self.parity.to_json()}
        if isinstance(self.on_device, dict):
            figures["core_ml"] = {units: p.to_json() for units, p in self.on_device.items()}
        elif self.on_device:
            figures["core_ml"] = self.on_device
        return figures


def fold_folder(run_dir: Path) -> Path:
    """Return the folder of the one trained model in ``run_dir``."""
    if (run_dir / "card.json").exists():
        return run_dir
    folders = sorted(card.parent for card in run_dir.glob("*/card.json"))
    if not folders:
        raise ModelError(f"{run_dir}: no trained model here; expected a run of python -m train")
    if len(folders) > 1:
        raise ModelError(
            f"{run_dir} holds {len(folders)} models; name one, for example {folders[0]}"
        )
    return folders[0]
