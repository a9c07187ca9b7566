"""The streaming recognizer: blocks of samples in, events out.

block (n,) -> chunk (512,) -> gate -> feature rows (k, n_features)
-> window (n_rows, n_features), normalised for the speaker
-> logits (n_labels,), less what the speaker's always have -> probabilities (n_labels,)
-> smoothing -> events

Everything is counted in samples and happens at the same sample whatever the size of the blocks.
While nobody speaks, nothing runs but the gate.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from edge.audio import Lost, Notice, Source
from edge.events import (
    Clip,
    Estimate,
    Event,
    Gap,
    SpeechEnd,
    SpeechStart,
    Status,
    Utterance,
)
from edge.gate import CHUNK_SAMPLES, SpeechGate
from edge.leaning import Leaning, Voice
from edge.model import Model, softmax
from edge.smoothing import Smoother, Smoothing
from edge.speaker import SpeakerNorm
from edge.windows import Window, Windows

HOP_S = 0.25  # Assumed: four estimates a second.
FIRST_S = 1.0  # Assumed; what less and more is worth: python -m edge study.
STATUS_S = 1.0  # Assumed: often enough to see that it lives, seldom enough to keep in a log.


class _Mean:
    """A mean of the answers to windows, (2, n_labels): see `Recognizer.ask`."""

    def __init__(self, n_labels: int, full: bool = False) -> None:
        self.sum, self.n, self.full = np.zeros((2, n_labels)), 0, full

    def add(self, answers: np.ndarray, n: int = 1) -> None:
        self.sum += answers
        self.n += n

    def mean(self) -> np.ndarray:
        return self.sum / self.n


class Recognizer:
    """Emotions in an endless stream of mono samples at the model's rate.

    Parameters
    ----------
    model : Model
    gate : SpeechGate, optional
        What decides that somebody speaks; default: `SpeechGate` with Silero VAD.
    smoothing : Smoothing, optional
        How estimates are steadied.
    hop_s : float
        Seconds from one estimate to the next, rounded to whole rows.
    first_s : float
        Seconds of an utterance before its first estimate. While there is less than a window, it
        is filled up by repeating what there is.
    status_s : float
        Seconds from one `Status` to the next.
    known : Voice, optional
        What an enrolment found of the speaker (`edge.enroll`).

    Attributes
    ----------
    n_samples : int
        Where the stream is now: ``n_heard + n_lost``, from where `reset` started to count.
    n_heard, n_lost : int
        Samples processed, and samples reported as lost, since the last reset.
    n_speech : int
        Samples that belonged to utterances, since the last reset.
    """

    def __init__(
        self,
        model: Model,
        gate: SpeechGate | None = None,
        smoothing: Smoothing | None = None,
        hop_s: float = HOP_S,
        first_s: float = FIRST_S,
        status_s: float = STATUS_S,
        known: Voice | None = None,
    ) -> None:
        for name, value in (("hop_s", hop_s), ("first_s", first_s), ("status_s", status_s)):
            if not value > 0:
                raise ValueError(f"{name} must be above 0, not {value}")
        card, frontend = model.card, model.card.frontend
        self.model, self.rate_hz = model, frontend.sample_rate_hz
        self.gate = gate or SpeechGate(rate_hz=self.rate_hz)
        row_s = frontend.hop_samples / self.rate_hz
        self.hop_rows = hop_rows(hop_s, row_s)
        first_rows = max(1, frontend.n_rows(round(first_s * self.rate_hz)))
        self.speaker = SpeakerNorm(frontend, known.statistics if known else None)
        self._leaning = (known and known.leaning) or Leaning.none(len(card.labels))
        self.windows = Windows(card, first_rows, self.hop_rows)
        self.smoothing = smoothing or Smoothing()
        self.smoother = Smoother(self.smoothing, self.hop_rows * row_s)
        below = self.smoothing.uncertain_below
        self.uncertain_below = card.uncertain_below if below is None else below
        self._longest_samples = round(self.gate.settings.longest_s * self.rate_hz)
        self._status_samples = max(1, round(status_s * self.rate_hz))
        self.reset()

    def reset(self, at_sample: int = 0) -> None:
        """Forget everything heard, as if nothing had been pushed; count from ``at_sample``."""
        self.gate.reset()
        self.speaker.reset()
        self.leaning = self._leaning
        self.n_samples = self._clip_sample = self._status_sample = at_sample
        self._status_due = at_sample + self._status_samples
        self.n_heard = self.n_lost = self.n_speech = 0
        self._state = "listening"
        self._level_db: float | None = None
        self._clip = _Mean(len(self.model.card.labels))
        self._pending = np.zeros(0, np.float32)
        self._quiet: list[np.ndarray] = []  # since the last sign of speech in an utterance
        self._before: deque[np.ndarray] = deque(maxlen=self.gate.n_before)
        self._start: int | None = None  # sample at which the utterance began, if one goes on
        self._break()

    @property
    def voice(self) -> Voice | None:
        """What is known of the speaker by now; None if nobody spoke yet."""
        heard = self.speaker.heard
        return None if heard is None else Voice(heard, self.leaning)

    def events(self, source: Source) -> Iterator[Event]:
        """Yield what is heard in ``source``, to its end; the last event is its `Clip`.

        Parameters
        ----------
        source : iterable of float32 (n,), `Lost` or `Notice`
            Blocks of any size in [-1, 1], and what is said in between.
        """
        for item in source:
            if isinstance(item, Lost):
                yield from self.lost(item.n_samples, item.reason)
            elif isinstance(item, Notice):
                yield from self.notice(item.state, item.message)
            else:
                yield from self.push(item)
        yield from self.finish()
        yield self.clip()

    def run(self, source: Source, **callbacks: Callable[[Any], object]) -> None:
        """Call ``callbacks`` with each event of their name: ``run(source, utterance=print)``."""
        known = (SpeechStart, Estimate, Utterance, SpeechEnd, Gap, Status, Clip)
        if unknown := set(callbacks) - {event.name for event in known}:
            raise TypeError(
                f"no events are called {', '.join(sorted(unknown))}; "
                f"expected {', '.join(event.name for event in known)}"
            )
        for event in self.events(source):
            if event.name in callbacks:
                callbacks[event.name](event)

    def push(self, block: np.ndarray) -> list[Event]:
        """Take the next samples, float (n,) in [-1, 1]; return the events that came due."""
        events: list[Event] = []
        pending = np.concatenate([self._pending, np.asarray(block, np.float32)])
        n_chunks = len(pending) // CHUNK_SAMPLES
        for chunk in pending[: n_chunks * CHUNK_SAMPLES].reshape(n_chunks, CHUNK_SAMPLES):
            events += self._chunk(chunk)
        self._pending = pending[n_chunks * CHUNK_SAMPLES :].copy()
        return events

    def lost(self, n_samples: int, reason: str) -> list[Event]:
        """Say that the next ``n_samples`` are missing: speech ends before them.

        With 0, for a loss of unknown length, speech goes on.
        """
        events = self.finish() if n_samples else []
        start = self.n_samples
        self.n_samples += n_samples
        self.n_lost += n_samples
        return [*events, Gap(self.rate_hz, self.n_samples, start, self.n_samples, reason)]

    def notice(self, state: str, message: str) -> list[Event]:
        """Say what has become of the device."""
        self._state = state
        return [self._status(message)]

    def finish(self) -> list[Event]:
        """Hear the samples that do not fill a chunk, and end the utterance that is going on."""
        events: list[Event] = []
        tail = self._pending
        self._count(len(tail))
        if len(tail) and self._start is None and self.gate.kind == "off":
            events += self._begin(len(tail))
        if self._start is not None:
            # Too short for the gate, which would say what it said last.
            self._quiet.append(tail)
            events += self._end(1 if len(self._quiet) == 1 else self.gate.n_after)
        self._break()
        return events

    def clip(self) -> Clip:
        """Return the mean of all windows since the last reset; no label if nobody spoke."""
        span = (self.rate_hz, self.n_samples, self._clip_sample, self.n_samples)
        if not self._clip.n:
            return Clip(*span, None, None, None, None, None)
        return Clip(*span, **self._named(self._clip.mean()[0]), true_label=None)

    def _break(self) -> None:
        """Forget what cannot be continued after a gap."""
        self.gate.close()
        self._pending = np.zeros(0, np.float32)
        self._before.clear()
        self._start = None

    def _count(self, n_samples: int) -> None:
        self.n_samples += n_samples
        self.n_heard += n_samples

    def _chunk(self, chunk: np.ndarray) -> list[Event]:
        """Take one chunk through the gate, and to the model if it belongs to speech."""
        speech = self.gate.push(chunk)
        self._count(CHUNK_SAMPLES)
        level = self.gate.level_db
        self._level_db = level if self._level_db is None else max(level, self._level_db)
        events: list[Event] = []
        if self._start is None and speech:
            events += self._begin(CHUNK_SAMPLES)
        if self._start is None:
            self._before.append(chunk)
        elif speech:
            # What was quiet before it was a pause within the utterance.
            for quiet in self._quiet:
                events += self._hear(quiet, False)
            self._quiet = []
            events += self._hear(chunk, True)
            if self.windows.n_samples >= self._longest_samples:
                events += self._end(0)
                self.gate.close()
        else:
            self._quiet.append(chunk)
            if not self.gate.open:
                events += self._end(self.gate.n_after)
        if self.n_samples >= self._status_due:
            self._status_due = self.n_samples + self._status_samples
            self._status_due -= (self.n_samples - self._clip_sample) % self._status_samples
            events.append(self._status())
        return events

    def _begin(self, n_heard: int) -> list[Event]:
        """Begin an utterance with what came before the ``n_heard`` samples that revealed it."""
        before, self._before = self._before, deque(maxlen=self.gate.n_before)
        self._start = self.n_samples - n_heard - sum(len(chunk) for chunk in before)
        self._quiet = []
        self._utterance = _Mean(len(self.model.card.labels))
        self._speech_rows = 0
        self.windows.reset()
        self.smoother.reset()
        events: list[Event] = [
            SpeechStart(self.rate_hz, self.n_samples, self._start, self.n_samples)
        ]
        for chunk in before:
            events += self._hear(chunk, False)
        return events

    def _hear(self, chunk: np.ndarray, speech: bool) -> list[Event]:
        return [self._estimate(window) for window in self.windows.push(chunk, speech)]

    def ask(self, window: Window) -> np.ndarray:
        """Return the probability of each label for a window of this speaker, (2, n_labels).

        In the second row, what they would be but for the speaker's leaning.
        """
        self.speaker.hear(window.new_speech)
        self._speech_rows += len(window.new_speech)
        logits = self.model.logits(self.speaker.normalize(window.rows))
        both = np.stack([logits - self.leaning.shift.astype(np.float32), logits])
        return softmax(both / self.model.card.temperature)

    def _estimate(self, window: Window) -> Estimate:
        assert self._start is not None
        answers = self.ask(window)
        if window.full and not self._utterance.full:
            # A window that is full says more than those before it.
            self._utterance = _Mean(answers.shape[1], full=True)
        if window.full == self._utterance.full:
            self._utterance.add(answers)
        label, average = self.smoother.push(answers[0])
        return Estimate(
            self.rate_hz, self.n_samples, self._start + window.start, self._start + window.end,
            **self._named(average, label), window_probs=self._by_label(answers[0]),
        )  # fmt: skip

    def _end(self, n_quiet: int) -> list[Event]:
        """End the utterance ``n_quiet`` chunks after the last sign of speech."""
        assert self._start is not None
        events: list[Event] = []
        for chunk in self._quiet[:n_quiet]:
            events += self._hear(chunk, False)
        self._before.extend(self._quiet[n_quiet:])
        for window in self.windows.finish():
            if not window.full:  # the longest, of all that there is
                self._utterance = _Mean(len(self.model.card.labels))
            events.append(self._estimate(window))
        n_samples = self.windows.n_samples
        self.n_speech += n_samples
        self._clip.add(self._utterance.sum, self._utterance.n)
        span = (self.rate_hz, self.n_samples, self._start, self._start + n_samples)
        probs, uncorrected = self._utterance.mean()
        self._learn(uncorrected)
        named = self._named(probs)
        duration_s, n_windows = n_samples / self.rate_hz, self._utterance.n
        events.append(Utterance(*span, **named, duration_s=duration_s, n_windows=n_windows))
        events.append(SpeechEnd(*span))
        self._start = None
        return events

    def _learn(self, uncorrected: np.ndarray) -> None:
        """Take the answer to an utterance into account, if the model adapts to speakers at all."""
        card = self.model.card
        row_s = card.frontend.hop_samples / self.rate_hz
        if card.frontend.adapt_s:
            speech_s = self._speech_rows * row_s
            self.leaning = self.leaning.after(uncorrected, speech_s, card.temperature)

    def _status(self, message: str | None = None) -> Status:
        start, self._status_sample = self._status_sample, self.n_samples
        level, self._level_db = self._level_db, None
        return Status(
            self.rate_hz, self.n_samples, start, self.n_samples,
            state=self._state, speech=self._start is not None, level_db=level,
            message=message, n_heard=self.n_heard, n_lost=self.n_lost,
        )  # fmt: skip

    def _named(self, probs: np.ndarray, label: int | None = None) -> dict[str, Any]:
        likeliest = int(probs.argmax())
        label = likeliest if label is None else label
        return {
            "label": self.model.card.labels[label],
            "confidence": float(probs[label]),
            "uncertain": bool(probs[likeliest] < self.uncertain_below),
            "probs": self._by_label(probs),
        }

    def _by_label(self, probs: np.ndarray) -> dict[str, float]:
        return dict(zip(self.model.card.labels, probs.tolist(), strict=True))


def hop_rows(hop_s: float, row_s: float) -> int:
    """Return how many rows of ``row_s`` seconds make a hop, at least one."""
    return max(1, round(hop_s / row_s))


def window_starts(n_rows: int, window_rows: int, hop: int) -> list[int]:
    """Return the first rows of the windows that a `Recognizer` sees in ``n_rows`` rows."""
    last = max(0, n_rows - window_rows)
    starts = list(range(0, last + 1, hop))
    return starts if starts and starts[-1] == last else [*starts, last]
