"""The recordings that come with the program, and what is truly felt in them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "clips"


@dataclass(frozen=True)
class DemoClip:
    """A recording of a speaker whom the shipped model has never heard."""

    path: Path
    label: str
    speaker: str


def clips() -> list[DemoClip]:
    """Return the demo clips, in the order of ``clips/clips.json``."""
    stored = json.loads((FOLDER / "clips.json").read_text(encoding="utf-8"))
    return [DemoClip(FOLDER / c["file"], c["label"], c["speaker"]) for c in stored["clips"]]
