"""``python -m edge``: say which emotion is heard, live, in files, or in what is piped in."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge import demo
from edge.audio import PCM_FORMATS, file_blocks, pcm_blocks
from edge.errors import ModelError, exit_code
from edge.model import DEFAULT_MODEL, Model
from edge.output import JsonLines, Screen, Totals
from edge.recognizer import HOP_S, Estimate, Recognizer


@dataclass
class Source:
    """A named stream of mono blocks at the model's rate."""

    name: str
    blocks: Iterable[np.ndarray]
    true_label: str | None = None


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m edge",
        description="Recognize emotions in speech: from the microphone, from audio files, or from "
        "raw PCM on standard input. Audio never leaves this device.",
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
    add("--json", action="store_true", help="JSON Lines on standard output (README: events)")
    add("--model", type=Path, default=DEFAULT_MODEL, metavar="FILE",
        help=".tflite file with its card beside it; default: the shipped one")  # fmt: skip
    add("--hop-s", type=_above_0, default=HOP_S, metavar="S",
        help=f"seconds from one estimate to the next; default: {HOP_S}")  # fmt: skip
    add("--threads", type=int, default=1, metavar="N", help="for the model; default: 1")
    add("--device", help="microphone: index or part of its name; default: the system's")
    add("--list-devices", action="store_true", help="show microphones and stop")
    add("--rate", type=int, default=16_000, metavar="HZ", help="of PCM on stdin; default: 16000")
    add("--channels", type=int, default=1, metavar="N", help="of PCM on stdin; default: 1")
    add("--format", choices=PCM_FORMATS, default="s16le", help="of PCM on stdin; default: s16le")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _above_0(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be above 0, not {text}")
    return value


def file_sources(args: argparse.Namespace, rate_hz: int) -> Iterator[Source]:
    """Yield the demo clips, files and standard input that were asked for."""
    if args.demo:
        for clip in demo.clips():
            yield Source(clip.path.name, file_blocks(clip.path, rate_hz), clip.label)
    for name in args.files:
        if name == "-":
            pcm = pcm_blocks(sys.stdin.buffer, args.rate, args.channels, args.format, rate_hz)
            yield Source("standard input", pcm)
        else:
            yield Source(name, file_blocks(Path(name), rate_hz))


def paced(blocks: Iterable[np.ndarray], rate_hz: int) -> Iterator[np.ndarray]:
    """Yield blocks no sooner than a microphone would have delivered them."""
    started, n_samples = time.monotonic(), 0
    for block in blocks:
        n_samples += len(block)
        time.sleep(max(0.0, started + n_samples / rate_hz - time.monotonic()))
        yield block


def estimates(source: Source, recognizer: Recognizer, totals: Totals) -> Iterator[Estimate]:
    """Yield what is heard in one source, to its end."""
    rate_hz = recognizer.model.card.frontend.sample_rate_hz
    for block in source.blocks:
        due = recognizer.push(block)
        totals.heard_s += len(block) / rate_hz
        yield from due
    yield from recognizer.finish()


def hear(
    source: Source, recognizer: Recognizer, output: JsonLines | Screen, totals: Totals
) -> None:
    """Run one source to its end; ``totals`` is right whenever it stops."""
    recognizer.reset()
    output.begin(source.name)
    for estimate in estimates(source, recognizer, totals):
        if totals.first_estimate_cpu_s is None:
            totals.first_estimate_cpu_s = round(time.process_time(), 3)
        totals.n_estimates += 1
        output.estimate(estimate)
    overall = recognizer.overall()
    totals.n_clips += 1
    if overall is not None and source.true_label is not None:
        totals.n_labelled += 1
        totals.n_right += overall.label == source.true_label
    output.end(overall, source.true_label)


def run(args: argparse.Namespace) -> None:
    if args.list_devices:
        from edge.microphone import device_lines

        print("\n".join(device_lines()) or "no device can record")
        return
    model = Model(args.model, args.threads)
    if not model.card.frontend.streamable:
        raise ModelError(
            f"{args.model}: cannot be streamed, its features need the whole clip (centred frames "
            "or top_db); train with --frontend stream, and convert that"
        )
    recognizer = Recognizer(model, args.hop_s)
    rate_hz = model.card.frontend.sample_rate_hz
    output: JsonLines | Screen = (JsonLines if args.json else Screen)(model.card)
    totals = Totals()
    output.start()
    started = time.process_time()
    try:
        if args.demo or args.files:
            for source in file_sources(args, rate_hz):
                if args.realtime:
                    source.blocks = paced(source.blocks, rate_hz)
                hear(source, recognizer, output, totals)
        else:
            from edge.microphone import Microphone

            with Microphone(args.device, rate_hz) as microphone:
                try:
                    hear(Source(microphone.name, microphone), recognizer, output, totals)
                finally:
                    totals.dropped_s = microphone.dropped_samples / microphone.device_rate_hz
                    totals.n_overflows = microphone.overflows
    except KeyboardInterrupt:
        pass  # the usual way to stop listening
    finally:
        totals.cpu_s = time.process_time() - started
        if totals.heard_s:
            output.summary(totals)


def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.threads < 1 or args.rate < 1 or args.channels < 1:
        parser.error("--threads, --rate and --channels must be at least 1")
    if args.files.count("-") > 1:
        parser.error("standard input can be heard once only")
    try:
        code = exit_code(lambda: run(args), args.debug)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has gone; nothing is left to say, and Python must not try.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


if __name__ == "__main__":
    sys.exit(main())
