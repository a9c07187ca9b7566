"""What the program says, as objects and as JSON Lines; the README lists every field.

Times are whole samples of the model's rate since the source began, gaps included, so they stay
exact for as long as the program runs; seconds are those divided by the rate.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

SCHEMA = 2  # Raised whenever a field changes its meaning or goes away; new fields do not count.


@dataclass(frozen=True)
class Event:
    """Something that is said; ``name`` is its ``event`` in JSON."""

    name: ClassVar[str]

    def to_json(self) -> dict[str, Any]:
        """Return the event as a dictionary for `json.dumps`; fields that are None are left out."""
        stored: dict[str, Any] = {"v": SCHEMA, "event": self.name}
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                stored[field.name] = _rounded(value)
        return stored


@dataclass(frozen=True)
class Start(Event):
    """The first event: who listens, and with which settings; ``time`` is ISO 8601, UTC."""

    name = "start"
    time: str
    model: str
    labels: list[str]
    sample_rate_hz: int
    window_s: float
    hop_s: float
    settings: dict[str, Any]


@dataclass(frozen=True)
class Span(Event):
    """Something about a stretch of audio.

    Attributes
    ----------
    rate_hz : int
        Samples in a second; not part of the JSON, whose `Start` says it once.
    at_sample : int
        How far the stream had been heard when the event was made: ``at_s - end_s`` is the delay.
    start_sample, end_sample : int
        The stretch.
    """

    rate_hz: int
    at_sample: int
    start_sample: int
    end_sample: int

    @property
    def at_s(self) -> float:
        """``at_sample`` in seconds."""
        return self.at_sample / self.rate_hz

    @property
    def start_s(self) -> float:
        """``start_sample`` in seconds."""
        return self.start_sample / self.rate_hz

    @property
    def end_s(self) -> float:
        """``end_sample`` in seconds."""
        return self.end_sample / self.rate_hz

    def to_json(self) -> dict[str, Any]:
        stored = super().to_json()
        del stored["rate_hz"]
        times = {key: round(getattr(self, key), 4) for key in ("at_s", "start_s", "end_s")}
        return stored | times


@dataclass(frozen=True)
class SpeechStart(Span):
    """Somebody speaks, from ``start_sample`` on, which lies a little before the first word."""

    name = "speech_start"


@dataclass(frozen=True)
class SpeechEnd(Span):
    """Nobody speaks any more, since ``end_sample``."""

    name = "speech_end"


@dataclass(frozen=True)
class Heard(Span):
    """What a stretch of speech sounds like.

    Attributes
    ----------
    label : str
        The emotion.
    confidence : float
        Probability of ``label``.
    uncertain : bool
        Whether no label is likely enough to be relied on.
    probs : dict of str to float
        Probability of each label.
    """

    label: str
    confidence: float
    uncertain: bool
    probs: dict[str, float]

    @property
    def shown_label(self) -> str:
        """``label``, or "uncertain"."""
        return "uncertain" if self.uncertain else self.label


@dataclass(frozen=True)
class Estimate(Heard):
    """What is heard now: the last window, smoothed; ``window_probs`` are the window's own."""

    name = "estimate"
    window_probs: dict[str, float]


@dataclass(frozen=True)
class Utterance(Heard):
    """What was heard from `SpeechStart` to `SpeechEnd`: the mean of all its windows."""

    name = "utterance"
    duration_s: float
    n_windows: int


@dataclass(frozen=True)
class Gap(Span):
    """Audio that was lost; ``reason`` says why."""

    name = "gap"
    reason: str


@dataclass(frozen=True)
class Status(Span):
    """How things are, at regular intervals and whenever ``state`` changes.

    Attributes
    ----------
    state : str
        "listening", or "waiting" for a microphone.
    speech : bool
        Whether somebody speaks.
    level_db : float or None
        Loudest 32 ms since the last status, in dB of full scale (mean square).
    message : str or None
        A line for people, if there is something to say.
    n_heard, n_lost : int
        Samples processed, and samples that are known to be lost, since the source began.
    """

    name = "status"
    state: str
    speech: bool
    level_db: float | None
    message: str | None
    n_heard: int
    n_lost: int


@dataclass(frozen=True)
class Clip(Span):
    """The end of a source: the mean of its utterances' windows; no label if nobody spoke."""

    name = "clip"
    label: str | None
    confidence: float | None
    uncertain: bool | None
    probs: dict[str, float] | None
    true_label: str | None


@dataclass(frozen=True)
class Summary(Event):
    """The last event: what the session amounts to; the README says what each field means."""

    name = "summary"
    heard_s: float
    speech_s: float
    n_estimates: int
    n_utterances: int
    n_clips: int
    n_labelled: int
    n_right: int
    lost_s: float
    n_gaps: int
    cpu_s: float
    realtime_margin: float
    first_estimate_cpu_s: float | None
    peak_memory_mb: float


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    return value
