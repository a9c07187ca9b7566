"""What a person sees on a terminal: level, speech, a bar for each emotion, the last minute."""

from __future__ import annotations

import sys
import time
from collections import deque

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from edge.events import Clip, Estimate, Event, Gap, Start, Status, Summary, Utterance
from edge.machine import CpuShare, memory_mb
from edge.output import line
from edge.palette import colours, letters

REFRESH_S = 0.1  # Assumed: smooth to the eye, and little for a slow connection to carry.
COUNTERS_S = 1.0  # Assumed: numbers that change faster cannot be read.
TIMELINE_S = 60
LOWEST_DB = -70.0  # The left end of the level meter.
FOLLOW = 0.5  # How much of the way to its new length a bar goes at each refresh.
QUIET, LOST = ".", "x"


class View:
    """What is shown, without the terminal: takes events, renders itself."""

    def __init__(self) -> None:
        self.colours: dict[str, str] = {}
        self.letters: dict[str, str] = {}
        self.source = self.model = self.message = ""
        self.state = "listening"
        self.level_db, self.speech, self.now_s = LOWEST_DB, False, 0.0
        self.shown, self.n_lost, self.n_heard, self.rate_hz = "", 0, 0, 1
        self.target: dict[str, float] = {}
        self.bars: dict[str, float] = {}
        self.timeline: deque[str] = deque(maxlen=TIMELINE_S)
        self.counters = ""
        self._cpu = CpuShare()
        self._counted_at = 0.0

    def update(self, event: Event, source: str) -> None:
        """Take note of an event."""
        if isinstance(event, Start):
            self.model = event.model
            self.colours, self.letters = colours(event.labels), letters(event.labels)
            self.rate_hz = event.sample_rate_hz
            self.bars = dict.fromkeys(event.labels, 0.0)
            self.target = dict(self.bars)
        if source != self.source:
            self.source, self.now_s, self.message = source, 0.0, ""
            self.timeline.clear()
        if isinstance(event, Estimate):
            self.target, self.shown = event.probs, event.shown_label
            self._mark(event.at_s, event.label)
        elif isinstance(event, Utterance):
            self.target, self.shown = event.probs, event.shown_label
        elif isinstance(event, Gap):
            self._mark(event.end_s, LOST)
        elif isinstance(event, Status):
            self.state, self.speech = event.state, event.speech
            # Shown while it is waited; what is said but once scrolls away above.
            self.message = (event.message or self.message) if event.state == "waiting" else ""
            self.n_lost, self.n_heard = event.n_lost, event.n_heard
            if event.level_db is not None:
                self.level_db = event.level_db
            self._mark(event.at_s, "")
            if not event.speech:
                self.target, self.shown = dict.fromkeys(self.colours, 0.0), ""

    def _mark(self, at_s: float, what: str) -> None:
        """Put ``what`` into the second of the timeline that ends now."""
        while self.now_s < int(at_s):
            self.now_s += 1
            self.timeline.append(what if what == LOST else "")
            if at_s - self.now_s > TIMELINE_S:
                self.now_s = int(at_s) - TIMELINE_S
        if not self.timeline:
            self.timeline.append("")
        if what:
            self.timeline[-1] = what

    def count(self) -> None:
        """Bring the counters up to date, if they are old enough."""
        now = time.monotonic()
        if self.counters and now - self._counted_at < COUNTERS_S:
            return
        self._counted_at = now
        share = self._cpu()
        margin = f"{1 / share:.0f} x" if share > 0 else "-"
        self.counters = (
            f"margin {margin}   lost {self.n_lost / self.rate_hz:.1f} s   "
            f"CPU {100 * share:.0f} %   memory {memory_mb():.0f} MB"
        )

    def step(self) -> None:
        """Move the bars towards what was heard last."""
        for label, target in self.target.items():
            self.bars[label] += FOLLOW * (target - self.bars.get(label, 0.0))

    def render(self, width: int, unicode: bool = True) -> RenderableType:
        """Return what is to be seen, in at most ``width`` columns."""
        full, part = ("█", "─") if unicode else ("#", ".")
        width = max(40, min(width, 100))
        length = width - 21
        light = Text("● speech" if unicode else "* speech", style="bold green")
        silent = Text("○ quiet" if unicode else "- quiet", style="dim")
        level = (self.level_db - LOWEST_DB) / -LOWEST_DB
        level_bar = _bar(level, length, "green" if self.speech else "dim", full, part)
        db = Text(f"{max(self.level_db, -99):.0f} dB".rjust(6), style="dim")
        bars = [_row(light if self.speech else silent, level_bar, db), Text()]
        for label, p in self.bars.items():
            leads = label == self.shown
            style = self.colours[label] + (" bold" if leads else "")
            name = Text(("▸ " if unicode else "> ") if leads else "  ")
            name.append(label, style=style)
            bar = _bar(p, length, self.colours[label], full, part)
            bars.append(_row(name, bar, Text(f"{p:6.0%}")))
        head = Text(f"{self.source or self.model}", style="bold", no_wrap=True, overflow="crop")
        head.append(f"   {_clock(self.now_s)}", style="dim")
        if self.state != "listening":
            head.append(f"   {self.state}", style="bold yellow")
        doubt = Text("  uncertain" if self.shown == "uncertain" else "", style="dim")
        rows = [head, *bars, doubt, self._minute(width)]
        rows.append(Text(self.counters, style="dim", no_wrap=True, overflow="crop"))
        if self.message:
            rows.append(Text(self.message, style="yellow"))
        return Group(*rows)

    def _minute(self, width: int) -> Text:
        text = Text(no_wrap=True)
        text.append("1 min ago ", style="dim")
        cells = list(self.timeline)[-(width - 15) :]
        room = min(TIMELINE_S, width - 15)
        text.append(QUIET * (room - len(cells)), style="dim")
        for cell in cells:
            if cell == LOST:
                text.append(LOST, style="bold reverse")
            elif cell:
                text.append(self.letters[cell], style=f"{self.colours[cell]} reverse")
            else:
                text.append(QUIET, style="dim")
        text.append(" now", style="dim")
        return text


def _row(name: Text, bar: Text, value: Text) -> Text:
    """Return a line of columns; rich's tables take four times as long."""
    name.truncate(12, pad=True)
    return Text.assemble(name, " ", bar, " ", value, no_wrap=True, overflow="crop")


def _bar(share: float, length: int, style: str, full: str, part: str) -> Text:
    n = round(min(1.0, max(0.0, share)) * length)
    bar = Text()
    bar.append(full * n, style=style)
    bar.append(part * (length - n), style="dim")
    return bar


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


class Terminal:
    """A sink that keeps a `View` at the foot of the terminal, and prints what is worth keeping.

    Utterances, losses, files and messages scroll away above it.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._view = View()
        self._live = Live(console=self._console, auto_refresh=False)
        self._shown_at = 0.0

    @staticmethod
    def possible() -> bool:
        """Return whether standard output is a terminal on which something can be redrawn."""
        console = Console()
        return console.is_terminal and not console.is_dumb_terminal

    def __enter__(self) -> Terminal:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def send(self, event: Event, source: str) -> None:
        """Show one event."""
        view = self._view
        view.update(event, source)
        if isinstance(event, (Utterance, Gap, Clip, Status)) and (text := line(event, source)):
            self._console.print(Text(text))
        elif isinstance(event, Summary):
            self._live.update(Text(line(event, source)), refresh=True)
            return
        now = time.monotonic()
        if now - self._shown_at >= REFRESH_S:
            self._shown_at = now
            view.count()
            view.step()
            unicode = (self._console.encoding or "").lower().startswith("utf")
            self._live.update(view.render(self._console.width, unicode), refresh=True)

    def close(self) -> None:
        """Leave what is shown on the terminal."""
        sys.stdout.flush()
