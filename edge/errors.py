"""The one exception family of the project.

The caller's mistakes are ``ValueError`` and ``TypeError``; what the world does wrong (a missing
file, a damaged model, a microphone that is not there) is a subclass of `SerError`, so that a
program can catch it in one place and show its one line.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable


class SerError(Exception):
    """Something outside the program is not as it must be; the message says what to do."""


class AudioError(SerError):
    """Audio that cannot be read, decoded or captured."""


class ModelError(SerError):
    """A model or card that is missing, damaged or does not fit the other."""


def exit_code(command: Callable[[], None], debug: bool, stopped: str = "stopped") -> int:
    """Run a command line's work; return 0, or 1 after one line about what the world did wrong.

    With ``debug`` the error is raised instead. Ctrl-C, and SIGTERM, with which services and workers
    are stopped, end the work with a KeyboardInterrupt: the line is then ``stopped``, and the code
    130, as a shell reports it.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        command()
    except KeyboardInterrupt:
        print(stopped, file=sys.stderr)
        return 130
    except (SerError, OSError) as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
