"""The card: one JSON file beside every model that says what it hears, answers and comes from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from edge.errors import ModelError
from edge.frontend import Frontend
from edge.storage import write_json

FORMAT = 3


@dataclass(frozen=True)
class ModelFile:
    """Which file the card belongs to.

    Attributes
    ----------
    name : str
        File name, in the card's own folder.
    sha256 : str
        `content_sha256` of it.
    precision : str
        "float32", "float16", "dynamic" or "int8" of TFLite; "half", "linear8", "palette6" or
        "palette4" of Core ML.
    """

    name: str
    sha256: str
    precision: str


@dataclass(frozen=True)
class Card:
    """What has to be known to use a model, and what should be known before.

    Attributes
    ----------
    name : str
    labels : tuple of str
        Names of the outputs, in order.
    frontend : Frontend
        The recipe of the features, normalisation included.
    n_rows : int
        Feature rows in the window that the model sees.
    temperature : float
        What the outputs are divided by before the softmax, so that a probability is one (Guo et
        al., ICML 2017); 1 if nobody has calibrated the model.
    uncertain_below : float
        Probability under which the likeliest label should be called uncertain; 0 for never.
    provenance : dict
        How it was trained: corpora with licences, speakers, preset, settings, versions.
    file : ModelFile or None
        None in a run directory, before conversion.
    """

    name: str
    labels: tuple[str, ...]
    frontend: Frontend
    n_rows: int
    temperature: float = 1.0
    uncertain_below: float = 0.0
    provenance: dict[str, Any] = field(default_factory=dict)
    file: ModelFile | None = None

    def __post_init__(self) -> None:
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise ValueError(f"card: expected two or more different labels, not {self.labels}")
        if self.n_rows < 1:
            raise ValueError(f"card: n_rows must be at least 1, not {self.n_rows}")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"card: temperature must be above 0, not {self.temperature}")
        if not 0 <= self.uncertain_below <= 1:
            raise ValueError(f"card: uncertain_below must be in [0, 1], not {self.uncertain_below}")

    @property
    def window_s(self) -> float:
        """Seconds of audio in one window."""
        return self.frontend.n_samples(self.n_rows) / self.frontend.sample_rate_hz

    def write(self, path: Path) -> None:
        """Write the card as JSON, whole or not at all."""
        write_json(path, {"format": FORMAT, **asdict(self)})

    @classmethod
    def read(cls, path: Path) -> Card:
        """Read a card; ModelError says what is wrong with it."""
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ModelError(
                f"{path}: no such card; every model needs its .json beside it"
            ) from error
        except (OSError, ValueError) as error:
            raise ModelError(f"{path}: not a readable card ({error})") from error
        version = stored.pop("format", None) if isinstance(stored, dict) else None
        if version != FORMAT:
            raise ModelError(
                f"{path}: expected a card of format {FORMAT}, not {version!r}; "
                "convert the model again, or update this program"
            )
        known = {f.name for f in fields(cls)}
        if wrong := known.symmetric_difference(stored):
            raise ModelError(f"{path}: missing or unknown fields {', '.join(sorted(wrong))}")
        try:
            stored["labels"] = tuple(stored["labels"])
            stored["frontend"] = Frontend.from_json(stored["frontend"])
            if stored["file"] is not None:
                stored["file"] = ModelFile(**stored["file"])
            return cls(**stored)
        except (TypeError, ValueError) as error:
            raise ModelError(f"{path}: {error}") from error

    @classmethod
    def read_for(cls, model: Path) -> Card:
        """Read the card beside a model file; ModelError if the file is not the one it is for."""
        if not model.exists():
            raise ModelError(f"{model}: cannot read the model (no such file)")
        card = cls.read(model.with_suffix(".json"))
        if card.file is None or card.file.name != model.name:
            named = None if card.file is None else card.file.name
            raise ModelError(f"{model}: its card belongs to {named!r}; convert the model again")
        try:
            found = content_sha256(model)
        except OSError as error:
            raise ModelError(f"{model}: cannot read the model ({error.strerror})") from error
        if found != card.file.sha256:
            raise ModelError(
                f"{model}: SHA-256 differs from the card's; the file is damaged or belongs to "
                "another card: copy or convert both again"
            )
        return card


def sha256(content: bytes) -> str:
    """Return the SHA-256 of ``content`` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def content_sha256(path: Path) -> str:
    """Return the SHA-256 of a file; of a folder, that of its files' names and hashes."""
    if path.is_file():
        return sha256(path.read_bytes())
    files = sorted(f for f in path.rglob("*") if f.is_file())
    lines = [f"{f.relative_to(path).as_posix()} {sha256(f.read_bytes())}\n" for f in files]
    return sha256("".join(lines).encode())
