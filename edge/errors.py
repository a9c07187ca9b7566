"""The one exception family of the project.

The caller's mistakes are ``ValueError`` and ``TypeError``; what the world does wrong (a missing
file, a damaged model, a microphone that is not there) is a subclass of `SerError`, so that a
program can catch it in one place and show its one line.
"""


class SerError(Exception):
    """Something outside the program is not as it must be; the message says what to do."""


class AudioError(SerError):
    """Audio that cannot be read, decoded or captured."""


class ModelError(SerError):
    """A model or card that is missing, damaged or does not fit the other."""
