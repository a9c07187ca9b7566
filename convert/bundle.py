"""One zip file to carry to a device: the program, a model and its card (`edge.bundle`)."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import edge
from edge.bundle import FORMAT, MANIFEST
from edge.card import sha256
from edge.storage import write_with

PROGRAM = Path(edge.__file__).parent
MODELS = PROGRAM / "models"

# The same bytes for the same content: a zip file knows no time before this.
_TIME = (1980, 1, 1, 0, 0, 0)


def write(path: Path, model: Path) -> None:
    """Pack ``model`` (file or folder), the card beside it and the program into a zip file."""
    packed = dict(_program())
    place = f"edge/models/{model.name}"
    if model.is_dir():
        for file in sorted(f for f in model.rglob("*") if f.is_file()):
            packed[f"{place}/{file.relative_to(model).as_posix()}"] = file
    else:
        packed[place] = model
    packed[f"edge/models/{model.stem}.json"] = model.with_suffix(".json")
    contents = {name: file.read_bytes() for name, file in packed.items()}
    manifest = {
        "format": FORMAT,
        "model": place,
        "files": {name: sha256(content) for name, content in contents.items()},
    }
    contents = {MANIFEST: json.dumps(manifest, indent=2).encode() + b"\n", **contents}

    def write_zip(temporary: Path) -> None:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in contents.items():
                entry = zipfile.ZipInfo(name, _TIME)
                entry.compress_type = zipfile.ZIP_DEFLATED
                executable = name.endswith(".sh")
                entry.external_attr = (0o100755 if executable else 0o100644) << 16
                archive.writestr(entry, content)

    write_with(path, write_zip)


def _program() -> Iterator[tuple[str, Path]]:
    """Yield name and file of everything in ``edge/`` but models and what Python left there."""
    for file in sorted(PROGRAM.rglob("*")):
        inside = MODELS in file.parents or "__pycache__" in file.parts
        if file.is_file() and not inside and not file.name.startswith("."):
            yield f"edge/{file.relative_to(PROGRAM).as_posix()}", file
