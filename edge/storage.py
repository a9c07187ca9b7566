"""Files that are whole or not there: written beside their place, then renamed into it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_with(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write(temporary)`` make a file (same suffix as ``path``), then move it to ``path``.

    An OSError names ``path``, or the folder that could not be made for it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=".", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes files that only the owner reads
        temporary.replace(path)
    except OSError as error:
        if error.strerror is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``, whole or not at all."""
    write_with(path, lambda temporary: temporary.write_bytes(content))


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON (no NaN), whole or not at all."""
    text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False)
    write_bytes(path, text.encode() + b"\n")


def move_into(source: Path, folder: Path) -> Path:
    """Move a finished file or folder on the same disk into ``folder``, in place of an older one."""
    target = folder / source.name
    if target.is_dir():  # a folder cannot be replaced in one step: the old one is moved aside
        aside = Path(tempfile.mkdtemp(prefix=".", dir=folder))
        target.replace(aside / target.name)
        source.replace(target)
        shutil.rmtree(aside)
    else:
        source.replace(target)
    return target
