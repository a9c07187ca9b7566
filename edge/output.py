"""Where events go: JSON Lines or plain lines on a stream, behind a queue if they are live.

A sink has ``send(event, source)`` and ``close()``. It may raise OSError (its reader has gone, its
disk is full); then the session goes on without it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import queue
import sys
import threading
from typing import Protocol, TextIO

from edge.events import Clip, Estimate, Event, Gap, Start, Status, Summary, Utterance

_BLOCKS = " ▁▂▃▄▅▆▇█"
QUEUE_EVENTS = 2000  # Assumed: some minutes of a session; a consumer that sleeps longer loses some.
OUTLET = "outlet"  # the name of its thread
CLOSE_S = 2.0  # Assumed: how long the end waits for a consumer that has stopped to read.


class Sink(Protocol):
    """Something that takes events."""

    def send(self, event: Event, source: str) -> None:
        """Take one event; ``source`` is the name of the file or device, empty for none."""

    def close(self) -> None:
        """Finish; nothing is sent afterwards."""


def json_line(event: Event, source: str) -> str:
    """Return ``event`` as a line of JSON without its end."""
    stored = event.to_json()
    if source:
        stored = {"v": stored.pop("v"), "event": stored.pop("event"), "source": source, **stored}
    # In ASCII, which every encoding has; a file's name need not even be text.
    return json.dumps(stored, allow_nan=False)


class JsonLines:
    """One JSON object a line, flushed at once; the README lists the fields."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def send(self, event: Event, source: str) -> None:
        """Write one line."""
        self._stream.write(json_line(event, source) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Do nothing: the stream belongs to the caller."""


class Seldom:
    """A sink that gets fewer statuses than a view wants, and all other events.

    A status that begins another state, or says something, is passed on at once. What is passed on
    is about all the time since the one before it.

    Parameters
    ----------
    sink : Sink
    every_s : float
        Seconds of the source from one status to the next.
    """

    def __init__(self, sink: Sink, every_s: float) -> None:
        self._sink, self._every_s = sink, every_s
        self._last: tuple[str, str, int] | None = None
        self._held: list[Status] = []

    def send(self, event: Event, source: str) -> None:
        """Pass one event on, or hold it."""
        if isinstance(event, Status):
            self._held.append(event)
            here = (source, event.state, int(event.at_s / self._every_s))
            if here == self._last and not event.message:
                return
            levels = [held.level_db for held in self._held if held.level_db is not None]
            start_sample = self._held[0].start_sample
            event = dataclasses.replace(
                event, start_sample=start_sample, level_db=max(levels, default=None)
            )
            self._last, self._held = here, []
        self._sink.send(event, source)

    def close(self) -> None:
        """Close the sink."""
        self._sink.close()


class Lines:
    """A plain line for each estimate, utterance, loss and file; for logs and simple terminals."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def send(self, event: Event, source: str) -> None:
        """Write what the event has to say, if anything."""
        if text := line(event, source):
            # What is about the program, and not about what it heard, goes to the other stream.
            about = isinstance(event, (Start, Status, Summary))
            print(text, file=sys.stderr if about else self._stream, flush=True)

    def close(self) -> None:
        """Do nothing: the stream belongs to the caller."""


def line(event: Event, source: str) -> str:
    """Return a plain line, or more, for people; empty if there is nothing to say."""
    if isinstance(event, Start):
        return f"{event.model}: {', '.join(event.labels)}; window {event.window_s:.2g} s"
    if isinstance(event, Estimate):
        steps = len(_BLOCKS) - 1
        bars = " ".join(
            f"{label[:3]} {_BLOCKS[round(p * steps)]}" for label, p in event.probs.items()
        )
        return f"{event.at_s:8.2f} s  {bars}  {event.shown_label} {event.confidence:.0%}"
    if isinstance(event, Utterance):
        return (
            f"{event.start_s:8.2f} to {event.end_s:.2f} s: {event.shown_label} "
            f"{event.confidence:.0%}"
        )
    if isinstance(event, Gap):
        return f"{event.start_s:8.2f} s: {event.end_s - event.start_s:.2f} s lost ({event.reason})"
    if isinstance(event, Status):
        return event.message or ""
    if isinstance(event, Clip):
        return _clip_line(event, source)
    if isinstance(event, Summary) and event.heard_s:
        return "\n".join(_summary_lines(event))
    return ""


def _clip_line(clip: Clip, source: str) -> str:
    if clip.label is None:
        return f"{source}: nobody speaks"
    shown = f"{clip.label}?" if clip.uncertain else clip.label
    text = f"{source:<16} {clip.end_s:5.1f} s  {shown:<10} {clip.confidence:4.0%}"
    if clip.true_label is not None:
        mark = "right" if clip.true_label == clip.label else "wrong"
        text += f"   true: {clip.true_label:<10} {mark}"
    return text


def _summary_lines(summary: Summary) -> list[str]:
    lines = [
        f"heard {summary.heard_s:.1f} s, of which {summary.speech_s:.1f} s speech; "
        f"{summary.n_utterances} utterances, {summary.n_estimates} estimates; "
        f"{summary.realtime_margin:.0f} times faster than real time"
    ]
    if summary.n_gaps:
        lines.append(f"lost {summary.lost_s:.1f} s in {summary.n_gaps} gaps")
    if summary.n_labelled:
        lines.append(f"{summary.n_right} of {summary.n_labelled} clips right")
    return lines


class Outlet:
    """A sink behind a queue and a thread of its own, so that a slow reader never stops the ear.

    If the queue is full the oldest events are dropped; the reader is told how many, in a line on
    standard error, when it has caught up, or at the end.

    Parameters
    ----------
    sink : Sink
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._queue: queue.Queue[tuple[Event, str] | None] = queue.Queue(QUEUE_EVENTS)
        self._error: Exception | None = None
        self.n_dropped = self._n_told = 0
        self._thread = threading.Thread(target=self._run, daemon=True, name=OUTLET)
        self._thread.start()

    def send(self, event: Event, source: str) -> None:
        """Queue one event, or raise what the sink has failed with."""
        if self._error is not None:
            raise self._error
        self._put((event, source))

    def close(self) -> None:
        """Let the reader have what is queued, for a little while."""
        self._put(None)
        self._thread.join(CLOSE_S)
        self._tell()
        if self._error is not None:
            raise self._error

    def _tell(self) -> None:
        if self.n_dropped > self._n_told:
            self._n_told = self.n_dropped
            print(f"a slow reader missed {self._n_told} events in all", file=sys.stderr)

    def _put(self, entry: tuple[Event, str] | None) -> None:
        while True:
            try:
                return self._queue.put_nowait(entry)
            except queue.Full:
                with contextlib.suppress(queue.Empty):
                    self._queue.get_nowait()
                    self.n_dropped += 1

    def _run(self) -> None:
        try:
            while (entry := self._queue.get()) is not None:
                self._sink.send(*entry)
                if self._queue.empty():
                    self._tell()
            self._sink.close()
        except Exception as error:  # whatever it is, `send` must not go on as if nothing were
            self._error = error
