"""Silence for native libraries that print to the terminal past Python's own streams."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_native(show_on_error: bool = True) -> Iterator[None]:
    """Hold back what is written to file descriptor 2; show it only if the body raises."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(kept, 2)
            if show_on_error:
                file.seek(0)
                os.write(2, file.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
