"""``python -m edge report FILE``: a picture and a summary of what ``--record`` wrote."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.errors import SerError, exit_code
from edge.events import SCHEMA
from edge.palette import colours
from edge.storage import write_with

PICTURES = (".png", ".pdf", ".svg")
UNCERTAIN = "uncertain"


@dataclass
class Recorded:
    """One session of a record: its start, and its events of each kind.

    ``offset_s`` puts the sources of a session one after the other on one axis of time.
    """

    start: dict[str, Any]
    utterances: list[dict[str, Any]] = field(default_factory=list)
    gaps: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] | None = None
    duration_s: float = 0.0

    @property
    def labels(self) -> list[str]:
        """The labels of the model that listened."""
        return list(self.start["labels"])


def read(path: Path) -> tuple[list[Recorded], int]:
    """Return the sessions of a record, and how many lines could not be read.

    A session that was killed has no summary, and its last line may be torn: neither is an error.
    """
    sessions: list[Recorded] = []
    n_bad, offset_s, source = 0, 0.0, ""
    with path.open(encoding="utf-8", errors="replace") as lines:
        for text in lines:
            try:
                event = json.loads(text)
                name, version = event["event"], event["v"]
            except (ValueError, KeyError, TypeError):
                n_bad += 1
                continue
            if version != SCHEMA:
                raise SerError(
                    f"{path}: expected events of version {SCHEMA}, not {version!r}; "
                    "read it with the program that wrote it"
                )
            if name == "start":
                sessions.append(Recorded(event))
                offset_s, source = 0.0, ""
            if not sessions:
                n_bad += 1
                continue
            session = sessions[-1]
            if event.get("source", source) != source:
                offset_s, source = session.duration_s, event["source"]
            if "at_s" in event:
                for key in ("at_s", "start_s", "end_s"):
                    event[key] += offset_s
                session.duration_s = max(session.duration_s, event["at_s"])
            if name == "utterance":
                session.utterances.append(event)
            elif name == "gap":
                session.gaps.append(event)
            elif name == "clip":
                source = ""  # the same file may be heard again, and is another source then
            elif name == "summary":
                session.summary = event
    if not sessions:
        raise SerError(f"{path}: holds no session; expected what --record writes")
    return sessions, n_bad


def seconds_of(session: Recorded) -> Counter[str]:
    """Return the seconds of speech of each label, and those that are uncertain."""
    seconds: Counter[str] = Counter()
    for u in session.utterances:
        seconds[UNCERTAIN if u["uncertain"] else u["label"]] += u["duration_s"]
    return seconds


def text(session: Recorded) -> str:
    """Return the summary of a session."""
    speech_s = sum(u["duration_s"] for u in session.utterances)
    lost_s = sum(g["end_s"] - g["start_s"] for g in session.gaps)
    n = len(session.utterances)
    lines = [
        f"{session.start['time']}  {session.duration_s:.0f} s, {n} utterances, "
        f"{speech_s:.0f} s speech, lost {lost_s:.1f} s in {len(session.gaps)} gaps"
        + ("" if session.summary else " (was cut off)")
    ]
    for label, s in seconds_of(session).most_common():
        sure = [
            u["confidence"]
            for u in session.utterances
            if u["label"] == label and not u["uncertain"]
        ]
        mean = f"   confidence {sum(sure) / len(sure):.0%}" if sure else ""
        lines.append(f"  {label:<12} {s:8.1f} s  {s / speech_s:4.0%}{mean}")
    for gap in session.gaps:
        lines.append(
            f"  lost at {gap['start_s']:.1f} s: {gap['end_s'] - gap['start_s']:.2f} s "
            f"({gap['reason']})"
        )
    return "\n".join(lines)


def pyplot() -> Any:
    """Return matplotlib's pyplot for files; SerError if it is not installed."""
    try:
        import matplotlib
    except ImportError as error:
        raise SerError(
            "pictures need matplotlib: pip install -r edge/requirements-pictures.txt"
        ) from error
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def picture(session: Recorded, path: Path) -> None:
    """Draw a session: its timeline, the share of each emotion, its confidence and its gaps."""
    plt = pyplot()
    labels, colour = session.labels, colours(session.labels)
    figure, (timeline, sure, share) = plt.subplots(
        3, 1, figsize=(9, 6.5), height_ratios=(2.2, 1.2, 0.5), layout="constrained"
    )
    for u in session.utterances:
        y, alpha = labels.index(u["label"]), 0.35 if u["uncertain"] else 1.0
        span = [(u["start_s"], max(u["duration_s"], session.duration_s / 400))]
        timeline.broken_barh(span, (y - 0.4, 0.8), color=colour[u["label"]], alpha=alpha)
        sure.plot(
            [u["start_s"], u["end_s"]], [u["confidence"]] * 2, lw=3, color=colour[u["label"]],
            solid_capstyle="butt", alpha=alpha,
        )  # fmt: skip
    for axes in (timeline, sure):
        for gap in session.gaps:
            axes.axvspan(gap["start_s"], gap["end_s"], color="0.8", lw=0)
        axes.set_xlim(0, session.duration_s or 1)
        axes.spines[["top", "right"]].set_visible(False)
    timeline.set_yticks(range(len(labels)), labels)
    timeline.set_ylim(len(labels) - 0.5, -0.5)
    timeline.set_title(f"{session.start['time'][:19].replace('T', ' ')} UTC", loc="left")
    timeline.tick_params(labelbottom=False)
    sure.set_ylim(0, 1)
    sure.set_ylabel("confidence")
    sure.set_xlabel("seconds" + ("; grey: lost" if session.gaps else ""))
    seconds = seconds_of(session)
    left, total = 0.0, sum(seconds.values()) or 1
    for label in (*labels, UNCERTAIN):
        width = seconds[label] / total
        share.barh(0, width, left=left, color=colour.get(label, "0.6"))
        if width > 0.07:
            share.text(left + width / 2, 0, f"{label}\n{width:.0%}", ha="center", va="center",
                       color="white", fontsize=8)  # fmt: skip
        left += width
    share.set_xlim(0, 1)
    share.axis("off")
    share.set_title("share of speech", loc="left", fontsize=9)
    write_with(path, lambda temporary: figure.savefig(temporary, dpi=110))
    plt.close(figure)


def picture_path(text: str) -> Path:
    """Return an argument as the path of a picture that can be drawn."""
    path = Path(text)
    if path.suffix.lower() not in PICTURES:
        raise argparse.ArgumentTypeError(
            f"expected a name that ends in {' or '.join(PICTURES)}, not {text}"
        )
    return path


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m edge report", description=__doc__)
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="what python -m edge --record FILE wrote")
    add("--png", type=picture_path, metavar="FILE", help="picture of the last session; "
        "default: the record's name with .png")  # fmt: skip
    add("--no-picture", action="store_true", help="only the summary")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser


def run(args: argparse.Namespace) -> None:
    sessions, n_bad = read(args.file)
    print("\n\n".join(text(session) for session in sessions))
    if n_bad:
        print(f"{n_bad} lines could not be read and are left out", file=sys.stderr)
    if not args.no_picture:
        path = args.png or args.file.with_suffix(".png")
        picture(sessions[-1], path)
        print(f"wrote {path}", file=sys.stderr)


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return exit_code(lambda: run(args), args.debug)


if __name__ == "__main__":
    sys.exit(main())
