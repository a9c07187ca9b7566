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

FORMAT = 2


@dataclass(frozen=True)
class ModelFile:
    """Which file the card belongs to.

    Attributes
    ----------
    name : str
        File name, in the card's own folder.
    sha256 : str
        Hash of its bytes, in hexadecimal.
    precision : str
        "float32", "float16", "dynamic" or "int8".
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


def sha256(content: bytes) -> str:
    """Return the SHA-256 of ``content`` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
