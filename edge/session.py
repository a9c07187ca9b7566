"""One run of the program: sources through the recognizer to the sinks, and what it amounts to."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from types import FrameType

from edge.audio import Source
from edge.errors import SerError, message, signals
from edge.events import Clip, Estimate, Event, Gap, Start, Summary, Utterance
from edge.machine import peak_memory_mb
from edge.output import Sink
from edge.recognizer import Recognizer


@dataclass
class NamedSource:
    """A source, what it is called, and what is truly felt in it if that is known."""

    name: str
    items: Source
    true_label: str | None = None


class NoListenerError(Exception):
    """Every reader has gone; there is nobody left to work for."""


class Session:
    """Runs sources one after the other; `summary` is right whenever it stops.

    Parameters
    ----------
    recognizer : Recognizer
    sinks : list of Sink
        One that fails is left out from then on, with a line on standard error.

    Attributes
    ----------
    interrupted : bool
        Whether Ctrl-C or SIGTERM came; the source has then been ended like a file.
    """

    def __init__(self, recognizer: Recognizer, sinks: list[Sink]) -> None:
        self.recognizer, self.sinks = recognizer, sinks
        self._started_cpu_s = time.process_time()
        self._first_estimate_cpu_s: float | None = None
        self._n = dict.fromkeys((Estimate, Utterance, Clip, Gap), 0)
        self._n_labelled = self._n_right = 0
        self._heard = self._lost = self._speech = 0
        self._counted = True
        self.interrupted = self._waiting = False

    def start(self) -> None:
        """Say who listens."""
        recognizer, card = self.recognizer, self.recognizer.model.card
        settings = {
            "gate": recognizer.gate.kind,
            **dataclasses.asdict(recognizer.gate.settings),
            **dataclasses.asdict(recognizer.smoothing),
            "uncertain_below": recognizer.uncertain_below,
        }
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        hop_s = recognizer.hop_rows * card.frontend.hop_samples / recognizer.rate_hz
        labels = list(card.labels)
        self._send(
            Start(now, card.name, labels, recognizer.rate_hz, card.window_s, hop_s, settings), ""
        )

    def hear(self, source: NamedSource) -> None:
        """Run one source to its end; an error of the source is raised after that."""
        self.recognizer.reset()
        self._counted = False
        self._error: SerError | OSError | None = None
        # A signal ends the source between two blocks; a second one ends it at once.
        with signals(self._interrupt, signal.SIGINT, signal.SIGTERM):
            self._hear(source)
        self._count()
        if self._error is not None:
            raise self._error

    def _hear(self, source: NamedSource) -> None:
        for event in self.recognizer.events(self._until_interrupted(source.items)):
            if isinstance(event, Clip) and self._error is not None and not event.at_sample:
                continue  # nothing was heard, which is not to say that nobody speaks
            if isinstance(event, Estimate) and self._first_estimate_cpu_s is None:
                self._first_estimate_cpu_s = time.process_time()
            if isinstance(event, Clip) and source.true_label is not None:
                event = dataclasses.replace(event, true_label=source.true_label)
                self._n_labelled += 1
                self._n_right += event.label == source.true_label
            if type(event) in self._n:
                self._n[type(event)] += 1
            self._send(event, source.name)

    def summary(self) -> Summary:
        """Return what the session amounts to so far."""
        self._count()
        rate, cpu_s = self.recognizer.rate_hz, time.process_time() - self._started_cpu_s
        return Summary(
            heard_s=self._heard / rate,
            speech_s=self._speech / rate,
            n_estimates=self._n[Estimate],
            n_utterances=self._n[Utterance],
            n_clips=self._n[Clip],
            n_labelled=self._n_labelled,
            n_right=self._n_right,
            lost_s=self._lost / rate,
            n_gaps=self._n[Gap],
            cpu_s=cpu_s,
            realtime_margin=self._heard / rate / cpu_s if cpu_s else 0.0,
            first_estimate_cpu_s=self._first_estimate_cpu_s,
            peak_memory_mb=peak_memory_mb(),
        )

    def close(self) -> None:
        """Say the summary, and let every sink finish."""
        with contextlib.suppress(NoListenerError):
            self._send(self.summary(), "")
        for sink in list(self.sinks):
            self._try(sink, sink.close)

    def _count(self) -> None:
        """Add the source that is heard to the totals, once."""
        if not self._counted:
            self._heard += self.recognizer.n_heard
            self._lost += self.recognizer.n_lost
            self._speech += self.recognizer.n_speech
            self._counted = True

    def _until_interrupted(self, items: Source) -> Source:
        waiting = iter(items)
        while not self.interrupted:
            try:
                self._waiting = True
                item = next(waiting)
                self._waiting = False
            except (StopIteration, KeyboardInterrupt):
                self._waiting = False
                return
            except (SerError, OSError) as error:
                self._waiting, self._error = False, error
                return
            yield item

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        again, self.interrupted = self.interrupted, True
        if self._waiting or again:
            raise KeyboardInterrupt

    def _send(self, event: Event, source: str) -> None:
        for sink in list(self.sinks):
            self._try(sink, lambda sink=sink: sink.send(event, source))  # type: ignore[misc]
        if not self.sinks:
            raise NoListenerError

    def _try(self, sink: Sink, action: Callable[[], None]) -> None:
        try:
            action()
        except OSError as error:
            self.sinks.remove(sink)
            if self.sinks:
                print(f"an output has failed and is left out: {message(error)}", file=sys.stderr)
            elif not isinstance(error, BrokenPipeError):  # whose reader has had enough
                raise SerError(f"the last output has failed: {message(error)}") from error
