"""The one exception family of the project, and how a command line says what is wrong.

The caller's mistakes are ``ValueError`` and ``TypeError``; what the world does wrong (a missing
file, a damaged model, a microphone that is not there) is a subclass of `SerError`, so that a
program can catch it in one place and show its one line. A wrong number never gets so far: the types
of argparse's arguments refuse it.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

MOST = 1_000_000  # Assumed: what is counted in arguments is less; more is a slip, and costs memory.


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
    130, as a shell reports it. Who was started deaf to Ctrl-C, as in the background, stays so.
    """
    deaf = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    _stops.clear()
    with signals(_stop, signal.SIGTERM, *([] if deaf else [signal.SIGINT])):
        try:
            command()
        except KeyboardInterrupt:
            print(stopped, file=sys.stderr)
            return 130
        except (SerError, OSError) as error:
            if debug:
                raise
            print(f"error: {message(error)}", file=sys.stderr)
            return 1
    return 0


_stops: list[int] = []  # the signals that asked the work of `exit_code` to end


def _stop(number: int, frame: FrameType | None) -> None:
    _stops.append(number)
    raise KeyboardInterrupt


def stop_if_asked() -> None:
    """Raise KeyboardInterrupt if `exit_code` was asked to stop.

    Long work asks between its steps: Python forgets an exception that a signal raises while a
    destructor or a weak reference's callback runs.
    """
    if _stops:
        raise KeyboardInterrupt


@contextlib.contextmanager
def signals(
    handler: Callable[[int, FrameType | None], None] | signal.Handlers, *numbers: int
) -> Iterator[None]:
    """Let ``handler`` take the signals ``numbers``, in the main thread, which alone gets them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = [signal.signal(number, handler) for number in numbers]
    try:
        yield
    finally:
        for number, old in zip(numbers, before, strict=True):
            signal.signal(number, old)


def message(error: Exception) -> str:
    """Return what an error says; of the system's, without their number, the file and the reason."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    # Of two, the second is the one that was to be written.
    name = error.filename if error.filename2 is None else error.filename2
    return error.strerror if name is None else f"{name}: {error.strerror}"


def above_0(text: str) -> float:
    """Return an argument as a number above 0."""
    return _number(text, lambda n: 0 < n < math.inf, "a number above 0")


def at_least_0(text: str) -> float:
    """Return an argument as a number of at least 0."""
    return _number(text, lambda n: 0 <= n < math.inf, "a number of at least 0")


def share(text: str) -> float:
    """Return an argument as a number from 0 to 1."""
    return _number(text, lambda n: 0 <= n <= 1, "a number from 0 to 1")


def count(text: str, most: int = MOST) -> int:
    """Return an argument as a whole number from 1 to ``most``."""
    expected = f"a whole number from 1 to {most}"
    return int(_number(text, lambda n: 1 <= n <= most and n.is_integer(), expected))


def _number(text: str, fits: Callable[[float], bool], expected: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan  # which fits nowhere
    if not fits(number):
        raise argparse.ArgumentTypeError(f"expected {expected}, not {text}")
    return number
