"""Bundles: one zip file with the program, a model and its card, and a list of what must be in it.

``python -m edge --model FILE.zip`` takes the model out of it; unzipped, it is the program, and
``python -m edge`` in that folder takes the model that ``bundle.json`` names.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

from edge.card import sha256
from edge.errors import ModelError

FORMAT = 1
MANIFEST = "bundle.json"

# Assumed: far above any model of this project; keeps a forged archive from filling the disk.
MAX_BYTES = 200_000_000


def unzipped_model(folder: Path) -> Path | None:
    """Return the model of the unzipped bundle in ``folder``, None if there is no bundle."""
    manifest = folder / MANIFEST
    if not manifest.exists():
        return None
    try:
        content = manifest.read_bytes()
    except OSError as error:
        raise ModelError(f"{manifest}: cannot be read ({error.strerror})") from error
    return folder / _manifest(manifest, content)["model"]


def unzip_model(path: Path, folder: Path) -> Path:
    """Check every file of a bundle; write its model and card to ``folder``; return the model.

    Raises
    ------
    ModelError
        If it is no bundle, a file is missing, unlisted, damaged or would leave its folder, or its
        format is newer than this program.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _unzip_model(path, archive, folder)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such bundle") from error
    except (
        OSError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError
    ) as error:  # fmt: skip
        raise ModelError(f"{path}: not a readable zip file ({error}); copy it again") from error


def _unzip_model(path: Path, archive: zipfile.ZipFile, folder: Path) -> Path:
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    names = [entry.filename for entry in entries]
    for name in names:
        _require_inside(path, name)
    if sum(entry.file_size for entry in entries) > MAX_BYTES:
        raise ModelError(f"{path}: expected at most {MAX_BYTES // 1_000_000} MB in a bundle")
    if MANIFEST not in names:
        raise ModelError(
            f"{path}: no {MANIFEST} in it; expected a bundle of python -m convert --bundle"
        )
    manifest = _manifest(path, archive.read(MANIFEST))
    listed: dict[str, str] = manifest["files"]
    if missing := sorted(set(listed) - set(names)):
        raise ModelError(f"{path}: {missing[0]} is missing from the bundle; copy it again")
    if unlisted := sorted(set(names) - set(listed) - {MANIFEST}) or _twice(names):
        raise ModelError(f"{path}: {unlisted[0]} does not belong to the bundle; make it again")
    model = PurePosixPath(manifest["model"])
    wanted = (str(model.with_suffix(".json")), f"{model}/", str(model))
    for name, expected in listed.items():
        content = archive.read(name)
        if sha256(content) != expected:
            raise ModelError(
                f"{path}: SHA-256 of {name} differs from the bundle's list; copy it again"
            )
        if name.startswith(wanted):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    if not (folder / model).exists():
        raise ModelError(f"{path}: {model} is missing from the bundle; copy it again")
    return folder / model


def _twice(names: list[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})


def _manifest(path: Path, content: bytes) -> dict[str, Any]:
    """Return the list of a bundle, its form checked."""
    try:
        manifest = json.loads(content)
        version = manifest["format"]
        if isinstance(version, int) and version > FORMAT:
            raise ModelError(
                f"{path}: a bundle of format {version}, this program knows {FORMAT}; "
                "update the program"
            )
        files, model = manifest["files"], manifest["model"]
        if version != FORMAT or not all(isinstance(v, str) for v in (model, *files.values())):
            raise ValueError("format, model or files are not what they should be")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: {MANIFEST} is damaged ({error}); copy it again") from error
    for name in (model, *files):
        _require_inside(path, name)
    return dict(manifest)


def _require_inside(path: Path, name: str) -> None:
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\\" in name or ":" in name or not parts:
        raise ModelError(f"{path}: {name!r} would leave the bundle's folder; do not use it")
