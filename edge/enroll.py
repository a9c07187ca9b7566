"""``python -m edge enroll NAME``: get to know a voice once, so as not to start as a stranger.

What is kept is how loud each frequency band is on average in this voice, and how much it varies:
two rows of numbers; and how the model leans in its answers to it: eight numbers for each of seven
emotions. No audio is stored, and none can be made from them.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edge.audio import Lost, Notice, Source, file_blocks
from edge.card import Card, sha256
from edge.errors import SerError, above_0, count, exit_code
from edge.frontend import Frontend
from edge.leaning import Leaning, Voice
from edge.model import Model
from edge.recognizer import Recognizer
from edge.speaker import MEMORY_S, Statistics
from edge.storage import write_json

FORMAT = 1
LEAST_S = 5.0  # Assumed: of less speech, the sounds that happen to be in it count for too much.
LISTEN_S = 20.0  # Assumed: of speech from the microphone; a handful of sentences.


class VoiceError(SerError):
    """A stored voice is missing, damaged, or belongs to another front end."""


def folder() -> Path:
    """Return where voices are stored: ``$XDG_DATA_HOME/ser/voices``."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "ser" / "voices"


def path_of(name: str) -> Path:
    """Return the file of the voice ``name``."""
    if not re.fullmatch(r"[\w-]+", name):
        raise VoiceError(f"a name is made of letters, digits, - and _, not {name!r}")
    return folder() / f"{name}.json"


def recipe(frontend: Frontend) -> str:
    """Return a hash of what the features are, whatever they are normalised with."""
    stored = asdict(frontend)
    for key in ("mean", "scale", "adapt_s"):
        del stored[key]
    return sha256(json.dumps(stored, sort_keys=True).encode())


def require_room(folder: Path) -> None:
    """VoiceError if voices cannot be stored in ``folder``: better before somebody speaks."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        raise VoiceError(
            f"{there}: cannot be written, where the voice is to be stored; set XDG_DATA_HOME to a "
            "folder that can"
        )


def store(name: str, voice: Voice, card: Card) -> Path:
    """Write what was heard with the model of ``card``, whole or not at all; return the file."""
    path = path_of(name)
    statistics, leaning = voice.statistics, voice.leaning
    stored: dict[str, Any] = {
        "format": FORMAT,
        "features": recipe(card.frontend),
        "n_rows": statistics.n_rows,
        "mean": [round(v, 4) for v in statistics.mean.tolist()],
        "variance": [round(v, 4) for v in statistics.variance.tolist()],
    }
    if leaning is not None:
        stored["leaning"] = {
            "model": network(card),
            "seconds": [round(v, 4) for v in leaning.seconds.tolist()],
            "excess": [[round(v, 4) for v in row] for row in leaning.excess.tolist()],
        }
    write_json(path, stored)
    path.chmod(0o600)
    return path


def network(card: Card) -> str | None:
    """Return what tells the model's answers from another's: its file's hash."""
    return None if card.file is None else card.file.sha256


def load(name: str, card: Card) -> Voice:
    """Read a voice for the model of ``card``; VoiceError says what is wrong with it."""
    path = path_of(name)
    try:
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if stored["format"] != FORMAT or stored["features"] != recipe(card.frontend):
            raise VoiceError(
                f"{name} was enrolled for a model with other features; enroll again: "
                f"python -m edge enroll {name}"
            )
        n_features, n_rows = card.frontend.n_features, float(stored["n_rows"])
        if not 0 < n_rows < math.inf:
            raise ValueError(f"expected n_rows above 0, not {n_rows:g}")
        mean = _numbers(stored["mean"], n_features)
        variance = _numbers(stored["variance"], n_features, least=0)
        leaning, said = None, stored.get("leaning")
        if said is not None and said["model"] == network(card):
            n_labels = len(card.labels)
            leaning = Leaning(
                _numbers(said["seconds"], n_labels, least=0),
                _numbers(said["excess"], n_labels, n_labels),
            )
    except FileNotFoundError as error:
        known = ", ".join(sorted(p.stem for p in folder().glob("*.json"))) or "nobody yet"
        raise VoiceError(
            f"nobody is enrolled as {name} (enrolled: {known}); python -m edge enroll {name}"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VoiceError(
            f"{path}: cannot be read ({error}); enroll again: python -m edge enroll {name}"
        ) from error
    return Voice(Statistics(n_rows, mean, variance), leaning)


def _numbers(stored: Any, *shape: int, least: float = -math.inf) -> np.ndarray:
    numbers = np.array(stored, float)
    if numbers.shape != shape or not np.isfinite(numbers).all() or (numbers < least).any():
        above = "" if least == -math.inf else f", at least {least:g}"
        raise ValueError(f"expected {' times '.join(map(str, shape))} finite numbers{above}")
    return numbers


def heard_s(recognizer: Recognizer) -> float:
    """Return the seconds of speech that the recognizer has got to know."""
    heard, frontend = recognizer.speaker.heard, recognizer.model.card.frontend
    return 0.0 if heard is None else heard.n_rows * frontend.hop_samples / frontend.sample_rate_hz


def until(source: Source, recognizer: Recognizer, seconds: float) -> Iterator[np.ndarray | Lost]:
    """Yield from ``source`` until so much speech has been heard, and show how far it is."""
    for item in source:
        if isinstance(item, Notice):
            if item.message:
                print(item.message, file=sys.stderr)
            continue
        yield item
        done_s = heard_s(recognizer)
        if sys.stderr.isatty():
            share = min(1.0, done_s / seconds)
            bar = ("#" * round(30 * share)).ljust(30, ".")
            print(f"\r{bar} {done_s:5.1f} s of {seconds:g} s", end="", file=sys.stderr)
        if done_s >= seconds:
            break
    if sys.stderr.isatty():
        print(file=sys.stderr)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m edge enroll",
        description="Get to know a voice from a few sentences, spoken as usual; afterwards: "
        "python -m edge --speaker NAME. Statistics are stored, no audio.",
    )
    add = parser.add_argument
    add("name", nargs="?", help="letters, digits, - and _")
    add("files", nargs="*", metavar="FILE", help="recordings; default: the microphone")
    add("--list", action="store_true", help="say who is enrolled")
    add("--forget", action="store_true", help="delete what is stored of NAME")
    add("--seconds", type=above_0, default=LISTEN_S, metavar="S",
        help=f"of speech from the microphone; default: {LISTEN_S:g}")  # fmt: skip
    add("--model", type=Path, metavar="FILE", help="default: the shipped")
    add("--device", help="index or part of its name; default: the system's")
    add("--channel", type=count, metavar="N", help="from 1; default: the mean of the first two")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser


def run(args: argparse.Namespace) -> None:
    if args.list:
        print("\n".join(sorted(p.stem for p in folder().glob("*.json"))) or "nobody is enrolled")
        return
    path = path_of(args.name)
    if args.forget:
        if not path.exists():
            raise VoiceError(f"nobody is enrolled as {args.name}")
        path.unlink()
        print(f"forgot {args.name}")
        return
    require_room(path.parent)
    model = Model(args.model)
    frontend = model.card.frontend
    if not frontend.adapt_s:
        raise VoiceError(f"{model.path} does not adapt to a speaker; there is nothing to enroll")
    recognizer = Recognizer(model)
    if args.files:
        for file in args.files:
            for _ in recognizer.events(file_blocks(Path(file), frontend.sample_rate_hz)):
                pass
    else:
        from edge.microphone import Microphone

        print("Say a few sentences, as you usually speak.", file=sys.stderr)
        with Microphone(args.device, frontend.sample_rate_hz, args.channel) as microphone:
            for _ in recognizer.events(until(microphone, recognizer, args.seconds)):
                pass
    known_s = heard_s(recognizer)
    voice = recognizer.voice
    if voice is None or known_s < LEAST_S:
        raise VoiceError(
            f"expected at least {LEAST_S:g} s of speech, heard {known_s:.1f} s; say or give more"
        )
    written = store(args.name, voice, model.card)
    print(f"{args.name}: {known_s:.1f} s of speech, statistics only, in {written}")


def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if not args.list and args.name is None:
        parser.error("expected a name")
    if not LEAST_S <= args.seconds < MEMORY_S:  # more is never reached: the oldest fades
        parser.error(
            f"--seconds: expected at least {LEAST_S:g} and less than {MEMORY_S:g}, "
            f"not {args.seconds:g}"
        )
    return exit_code(lambda: run(args), args.debug, "stopped; nothing was stored")
