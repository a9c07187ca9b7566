"""``--record``: a session's events in a file that a full disk or a crash cannot damage."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

from edge.errors import SerError
from edge.events import Event
from edge.output import json_line

KEPT_LINES = 10_000  # Assumed: some MB, hours of a session; what waits for room on the disk.


class Recorder:
    """Appends JSON Lines to a file: whole lines or nothing.

    While the disk is full, lines wait in memory, the oldest are dropped beyond `KEPT_LINES`, and
    the file goes on with those that are left as soon as there is room.

    Raises
    ------
    SerError
        If the file cannot be opened for writing.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b", buffering=0)
            self._size = self._file.seek(0, os.SEEK_END)
            self._file.seek(max(0, self._size - 1))
            # The end of a line that a power cut has torn; it goes before the next one.
            self._torn_end = b"" if self._file.read(1) in (b"", b"\n") else b"\n"
        except OSError as error:
            raise SerError(
                f"{path}: cannot record there ({error.strerror}); give a file that can be written"
            ) from error
        self._path = path
        self._waiting: list[bytes] = []
        self.n_dropped = 0

    def send(self, event: Event, source: str) -> None:
        """Write one line, or keep it for later."""
        self._waiting.append(json_line(event, source).encode() + b"\n")
        was_waiting = len(self._waiting) > 1
        try:
            while self._waiting:
                self._write(self._waiting[0])
                del self._waiting[0]
        except OSError as error:
            if not was_waiting:
                print(f"{self._path}: {error.strerror}; lines wait for room", file=sys.stderr)
            if len(self._waiting) > KEPT_LINES:
                del self._waiting[0]
                self.n_dropped += 1

    def close(self) -> None:
        """Close the file; say what did not fit into it."""
        lost = len(self._waiting) + self.n_dropped
        if lost:
            print(f"{self._path}: {lost} lines did not fit on the disk", file=sys.stderr)
        self._file.close()

    def _write(self, line: bytes) -> None:
        line = self._torn_end + line
        try:
            written = self._file.write(line)
            if written != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            self._file.truncate(self._size)  # half a line is worse than none
            raise
        self._size += len(line)
        self._torn_end = b""
