"""``python -m edge``: say which emotion is heard, live, in files, or in what is piped in."""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from edge import demo
from edge.audio import PCM_FORMATS, file_blocks, pcm_blocks
from edge.coreml import COMPUTE_UNITS
from edge.enroll import load as load_voice
from edge.errors import ModelError, above_0, at_least_0, count, exit_code, share, signals
from edge.gate import KINDS, GateSettings, SpeechGate
from edge.model import Model
from edge.output import OUTLET, JsonLines, Lines, Outlet, Seldom, Sink
from edge.recognizer import HOP_S, STATUS_S, Recognizer
from edge.session import NamedSource, NoListenerError, Session
from edge.smoothing import Smoothing

# python -m edge COMMAND: a module of that name with a main(argv).
COMMANDS = {
    "enroll": "get to know a voice once, so as not to start as a stranger",
    "profile": "what it costs, stage by stage",
    "report": "a picture and a summary of what --record wrote",
    "soak": "a day of audio in a few minutes, every sample accounted for",
    "study": "what the gate and the smoothing do to speech and noise",
}
MOST_CHANNELS = 1024  # Cited: libsndfile's SF_MAX_CHANNELS; a pipe may have what a file may.
MOST_PORT = 65_535  # Cited: what TCP has 16 bits for.


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m edge",
        description="Recognize emotions in speech: from the microphone, from audio files, or from "
        "raw PCM on standard input. Audio never leaves this device.",
        epilog="other commands, each with --help: "
        + "; ".join(f"python -m edge {name}: {text}" for name, text in COMMANDS.items()),
    )
    add = parser.add_argument
    add("files", nargs="*", metavar="FILE",
        help="audio files, or - for PCM on standard input; default: the microphone")  # fmt: skip
    add("--demo", action="store_true", help="hear the recordings that come with the program")
    add(
        "--realtime",
        action="store_true",
        help="hear files at the speed of sound, like a microphone",
    )
    add("--model", type=Path, metavar="FILE",
        help=".tflite (on macOS also .mlpackage) with its card beside it, or a bundle (.zip); "
        "default: the shipped one")  # fmt: skip
    add("--compute-units", choices=COMPUTE_UNITS, default="all",
        help="what may run an .mlpackage; default: all")  # fmt: skip
    add("--speaker", metavar="NAME", help="who speaks; first: python -m edge enroll NAME")
    add("--threads", type=count, default=1, metavar="N", help="for the model; default: 1")
    add("--debug", action="store_true", help="show the traceback of an error")

    add = parser.add_argument_group("microphone").add_argument
    add("--device", help="index or part of its name; default: the system's")
    add("--channel", type=count, metavar="N", help="from 1; default: the mean of the first two")
    add("--list-devices", action="store_true", help="show microphones and stop")
    add("--no-reconnect", action="store_true",
        help="stop when the microphone is missing, instead of waiting for it")  # fmt: skip

    add = parser.add_argument_group("PCM on standard input").add_argument
    add("--rate", type=count, default=16_000, metavar="HZ", help="default: 16000")
    add("--channels", type=functools.partial(count, most=MOST_CHANNELS), default=1, metavar="N",
        help="default: 1")  # fmt: skip
    add("--format", choices=PCM_FORMATS, default="s16le", help="default: s16le")

    smoothing, gate = Smoothing(), GateSettings()
    add = parser.add_argument_group("what counts as speech, and how steady it is").add_argument
    add("--gate", choices=KINDS, default="voice",
        help="voice: loudness and a voice-activity model; default: voice")  # fmt: skip
    add("--hold-s", type=at_least_0, default=gate.hold_s, metavar="S",
        help=f"a pause so long ends an utterance; default: {gate.hold_s}")  # fmt: skip
    add("--hop-s", type=above_0, default=HOP_S, metavar="S",
        help=f"from one estimate to the next; default: {HOP_S}")  # fmt: skip
    add("--average-s", type=at_least_0, default=smoothing.average_s, metavar="S",
        help=f"time constant of the running average; default: {smoothing.average_s}")  # fmt: skip
    add("--dwell-s", type=at_least_0, default=smoothing.dwell_s, metavar="S",
        help=f"another label has to lead so long; default: {smoothing.dwell_s}")  # fmt: skip
    add("--uncertain-below", type=share, metavar="P",
        help="confidence below which it says uncertain; default: see its card")  # fmt: skip

    add = parser.add_argument_group("output").add_argument
    add("--json", action="store_true", help="JSON Lines on standard output (README: events)")
    add("--plain", action="store_true", help="plain lines, on a terminal too")
    add("--record", type=Path, metavar="FILE", help="append all events to FILE, as JSON Lines")
    add("--status-s", type=above_0, metavar="S",
        help=f"from one status event to the next; default: {STATUS_S:g}; a view: 0.1")  # fmt: skip

    add = parser.add_argument_group("web page").add_argument
    add("--serve", action="store_true", help="show the events on a web page")
    add("--host", default="127.0.0.1", help="address to listen on; default: 127.0.0.1")
    add("--port", type=functools.partial(count, most=MOST_PORT), default=8765,
        help="default: 8765")  # fmt: skip
    add("--token", help="what a browser elsewhere must know; default: a new one, shown at start")
    return parser


def file_sources(args: argparse.Namespace, rate_hz: int) -> Iterator[NamedSource]:
    """Yield the demo clips, files and standard input that were asked for."""
    if args.demo:
        for clip in demo.clips():
            yield NamedSource(clip.path.name, file_blocks(clip.path, rate_hz), clip.label)
    for name in args.files:
        if name == "-":
            pcm = pcm_blocks(sys.stdin.buffer, args.rate, args.channels, args.format, rate_hz)
            yield NamedSource("standard input", pcm)
        else:
            yield NamedSource(name, file_blocks(Path(name), rate_hz))


def paced(blocks: Iterable[np.ndarray], rate_hz: int) -> Iterator[np.ndarray]:
    """Yield blocks no sooner than a microphone would have delivered them."""
    started, n_samples = time.monotonic(), 0
    for block in blocks:
        n_samples += len(block)
        time.sleep(max(0.0, started + n_samples / rate_hz - time.monotonic()))
        yield block


def redrawable() -> bool:
    """Return whether standard output is a terminal that can show more than lines."""
    if not sys.stdout.isatty():
        return False
    from edge.terminal import Terminal

    return Terminal.possible()


def open_sinks(
    args: argparse.Namespace, stack: contextlib.ExitStack, live: bool, watched: bool
) -> list[Sink]:
    """Return where events go; behind a queue if they come from a microphone, which cannot wait."""
    viewed = watched or args.serve

    def kept(sink: Sink) -> Sink:
        return Seldom(sink, STATUS_S) if viewed and not args.status_s else sink

    sinks: list[Sink] = []
    if args.json:
        sinks.append(kept(JsonLines(sys.stdout)))
    elif watched:
        from edge.terminal import Terminal

        sinks.append(stack.enter_context(Terminal()))
    else:
        sinks.append(Lines(sys.stdout))
    if args.record:
        from edge.record import Recorder

        sinks.append(kept(Recorder(args.record)))
    if live:
        sinks = [Outlet(sink) for sink in sinks]
    if args.serve:
        from edge.serve import Page

        sinks.append(stack.enter_context(Page(args.host, args.port, args.token)))
    return sinks


def run(args: argparse.Namespace) -> None:
    if args.list_devices:
        from edge.devices import device_lines

        print("\n".join(device_lines()) or "no device can record")
        return
    model = Model(args.model, args.threads, args.compute_units)
    frontend = model.card.frontend
    if not frontend.streamable:
        raise ModelError(
            f"{model.path}: cannot be streamed, its features need the whole clip (centred frames "
            "or top_db); train with --frontend logmel, and convert that"
        )
    rate_hz = frontend.sample_rate_hz
    live = not (args.demo or args.files)
    watched = not (args.json or args.plain) and redrawable()
    recognizer = Recognizer(
        model,
        SpeechGate(
            args.gate,
            rate_hz,
            GateSettings(hold_s=args.hold_s, after_s=min(args.hold_s, GateSettings.after_s)),
        ),
        Smoothing(args.average_s, args.dwell_s, args.uncertain_below),
        args.hop_s,
        status_s=args.status_s or (0.1 if watched or args.serve else STATUS_S),
        known=load_voice(args.speaker, model.card) if args.speaker else None,
    )
    with contextlib.ExitStack() as end, contextlib.ExitStack() as stack:
        session = Session(recognizer, open_sinks(args, stack, live, watched))
        try:
            session.start()
            if live:
                from edge.microphone import Microphone

                microphone = Microphone(args.device, rate_hz, args.channel, not args.no_reconnect)
                stack.enter_context(microphone)
                session.hear(NamedSource(args.device or "microphone", microphone))
            else:
                for source in file_sources(args, rate_hz):
                    if args.realtime:
                        source.items = paced(source.items, rate_hz)  # type: ignore[arg-type]
                    session.hear(source)
                    if session.interrupted:
                        break
        except (KeyboardInterrupt, NoListenerError):
            pass  # the usual ways to stop listening
        finally:
            # Who presses Ctrl-C twice loses neither summary nor terminal; SIGTERM ends this too.
            end.enter_context(signals(signal.SIG_IGN, signal.SIGINT))
            session.close()


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file's name need not be text, and not every terminal has our signs.
        sys.stdout.reconfigure(errors="backslashreplace")
    if argv and argv[0] in COMMANDS:
        return int(importlib.import_module(f"edge.{argv[0]}").main(argv[1:]))
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.files.count("-") > 1:
        parser.error("standard input can be heard once only")
    code = exit_code(lambda: run(args), args.debug)
    if any(thread.name == OUTLET for thread in threading.enumerate()):
        # Its reader has stopped to read in the middle of a line; to wait for it is to hang.
        os._exit(code)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has gone; nothing is left to say, and Python must not try.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


if __name__ == "__main__":
    code = main()
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # who presses Ctrl-C twice need not see how it ends
    sys.exit(code)
