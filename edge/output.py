"""What a person or a program gets to see: a line for each clip, or JSON Lines."""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import dataclass
from typing import Any

from edge.card import Card
from edge.recognizer import Estimate

SCHEMA = 1  # Raised whenever a field changes its meaning or goes away; new fields do not count.
_BLOCKS = " ▁▂▃▄▅▆▇█"


@dataclass
class Totals:
    """What a session amounts to.

    Attributes
    ----------
    heard_s, cpu_s : float
        Seconds of audio, and of processor time spent on it from source to output.
    n_estimates, n_clips : int
    n_labelled, n_right : int
        Clips whose true label is known, and those of them that were recognized.
    dropped_s : float
        Seconds of audio lost because the program was too slow.
    n_overflows : int
        Times that the microphone itself reported lost audio, of unknown length.
    first_estimate_cpu_s : float or None
        Processor time from the start of the process to its first estimate.
    """

    heard_s: float = 0.0
    cpu_s: float = 0.0
    n_estimates: int = 0
    n_clips: int = 0
    n_labelled: int = 0
    n_right: int = 0
    dropped_s: float = 0.0
    n_overflows: int = 0
    first_estimate_cpu_s: float | None = None

    @property
    def realtime_margin(self) -> float:
        """Seconds of audio heard for each second of processor time; 0 if nothing was heard."""
        return self.heard_s / self.cpu_s if self.cpu_s else 0.0


def peak_memory_mb() -> float:
    """Return the most memory that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1)  # bytes there, KB here


class JsonLines:
    """One JSON object a line, flushed at once; the README lists the fields."""

    def __init__(self, card: Card) -> None:
        self._card = card
        self._source = ""

    def start(self) -> None:
        """Say which model listens."""
        self._write(
            "start",
            model=self._card.name,
            labels=list(self._card.labels),
            window_s=round(self._card.window_s, 4),
        )

    def begin(self, source: str) -> None:
        """Say which source comes next."""
        self._source = source

    def estimate(self, estimate: Estimate) -> None:
        """Say what was heard in one window."""
        self._write("estimate", source=self._source, **self._fields(estimate))

    def end(self, overall: Estimate | None, true_label: str | None) -> None:
        """Say what was heard in the whole source."""
        fields = {} if overall is None else self._fields(overall)
        if true_label is not None:
            fields["true_label"] = true_label
        self._write("clip", source=self._source, **fields)

    def summary(self, totals: Totals) -> None:
        """Say how much was heard, and lost."""
        self._write(
            "summary",
            heard_s=round(totals.heard_s, 3),
            n_estimates=totals.n_estimates,
            n_clips=totals.n_clips,
            dropped_s=round(totals.dropped_s, 3),
            n_overflows=totals.n_overflows,
            realtime_margin=round(totals.realtime_margin, 1),
            first_estimate_cpu_s=totals.first_estimate_cpu_s,
            peak_memory_mb=peak_memory_mb(),
        )

    def _fields(self, estimate: Estimate) -> dict[str, Any]:
        probs = zip(self._card.labels, estimate.probs.tolist(), strict=True)
        return {
            "start_s": round(estimate.start_s, 4),
            "end_s": round(estimate.end_s, 4),
            "label": estimate.label,
            "probs": {label: round(p, 4) for label, p in probs},
        }

    def _write(self, event: str, **fields: Any) -> None:
        line = json.dumps({"v": SCHEMA, "event": event, **fields}, ensure_ascii=False)
        print(line, flush=True)


class Screen:
    """A line for each clip; on a terminal, the estimate of the moment below it."""

    def __init__(self, card: Card) -> None:
        self._card = card
        self._live = sys.stdout.isatty()
        self._source = ""

    def start(self) -> None:
        """Say which model listens."""
        labels = ", ".join(self._card.labels)
        print(f"{self._card.name}: {labels}; window {self._card.window_s:.2g} s", file=sys.stderr)

    def begin(self, source: str) -> None:
        """Remember which source comes next."""
        self._source = source
        self._show(f"listening to {source} ...")

    def estimate(self, estimate: Estimate) -> None:
        """Show what was heard in one window: a bar for each label, and the likeliest."""
        steps = len(_BLOCKS) - 1
        bars = " ".join(
            f"{label[:3]} {_BLOCKS[round(p * steps)]}"
            for label, p in zip(self._card.labels, estimate.probs.tolist(), strict=True)
        )
        text = f"{estimate.end_s:8.2f} s  {bars}  {estimate.label} {estimate.confidence:.0%}"
        if self._live:
            self._show(text)
        else:
            print(text, flush=True)

    def end(self, overall: Estimate | None, true_label: str | None) -> None:
        """Show what was heard in the whole source, beside the truth where it is known."""
        self._show("")
        if overall is None:
            print(f"{self._source}: nothing to hear", flush=True)
            return
        heard = f"{overall.label:<10} {overall.confidence:4.0%}"
        text = f"{self._source:<16} {overall.end_s:5.1f} s  {heard}"
        if true_label is not None:
            mark = "right" if true_label == overall.label else "wrong"
            text += f"   true: {true_label:<10} {mark}"
        print(text, flush=True)

    def summary(self, totals: Totals) -> None:
        """Show how much was heard, and lost."""
        self._show("")
        lines = [
            f"heard {totals.heard_s:.1f} s, {totals.n_estimates} estimates, dropped "
            f"{totals.dropped_s:.1f} s, {totals.realtime_margin:.0f} times faster than real time"
        ]
        if totals.n_overflows:
            lines.append(f"the device itself lost audio {totals.n_overflows} times")
        if totals.n_labelled:
            lines.append(f"{totals.n_right} of {totals.n_labelled} clips right")
        print("\n".join(lines), file=sys.stderr)

    def _show(self, text: str) -> None:
        """Replace the line under the cursor, on a terminal."""
        if self._live:
            sys.stdout.write(f"\r\x1b[2K{text}")
            sys.stdout.flush()
