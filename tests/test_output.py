"""Sinks that must not lose more than they have to, whatever their readers do."""

import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from edge.errors import SerError
from edge.events import Event, Start, Status
from edge.output import JsonLines, Outlet, Seldom
from edge.record import Recorder
from edge.session import NoListenerError, Session


def status(n):
    return Status(16_000, n, n, n, "listening", False, -20.0, None, n, 0)


class Slow:
    """A sink whose reader does not read until it is told to."""

    def __init__(self):
        self.reads, self.got = threading.Event(), []

    def send(self, event, source):
        self.reads.wait(10)
        self.got.append(event.at_sample)

    def close(self):
        pass


def test_a_slow_reader_loses_the_oldest_and_is_told(monkeypatch, capsys):
    monkeypatch.setattr("edge.output.QUEUE_EVENTS", 50)
    slow = Slow()
    outlet = Outlet(slow)
    for n in range(200):
        outlet.send(status(n), "")  # never waits
    slow.reads.set()
    outlet.close()
    assert slow.got[-1] == 199
    assert len(slow.got) + outlet.n_dropped == 200
    assert slow.got[1:] == list(range(200))[-len(slow.got[1:]) :]
    assert f"missed {outlet.n_dropped} events" in capsys.readouterr().err


class Kept:
    """A sink that keeps what it gets."""

    def __init__(self):
        self.got = []

    def send(self, event, source):
        self.got.append((event, source))


def test_a_record_gets_a_status_a_second_though_a_view_wants_ten():
    kept = Kept()
    sink = Seldom(kept, 1.0)
    for tenth in range(41):
        level = -3.0 if tenth == 23 else -40.0
        event = Status(10, tenth, tenth - 1, tenth, "listening", False, level, None, tenth, 0)
        sink.send(event, "a")
    assert [event.at_sample for event, _ in kept.got] == [0, 10, 20, 30, 40]
    assert [event.level_db for event, _ in kept.got] == [-40, -40, -40, -3, -40]
    ends = [event.end_sample for event, _ in kept.got]
    assert [event.start_sample for event, _ in kept.got] == [-1, *ends[:-1]]


def test_what_is_new_is_recorded_at_once():
    kept = Kept()
    sink = Seldom(kept, 1.0)
    told = [
        (Status(10, 0, 0, 0, "listening", False, None, None, 0, 0), "a"),
        (Status(10, 1, 0, 1, "waiting", False, None, None, 1, 0), "a"),
        (Status(10, 2, 1, 2, "waiting", False, None, "unplugged", 2, 0), "a"),
        (Status(10, 3, 2, 3, "waiting", False, None, None, 3, 0), "b"),
        (Start("", "emodb", [], 10, 3.0, 0.25, {}), ""),
    ]
    for event, source in told:
        sink.send(event, source)
    assert kept.got == told


def test_a_reader_that_has_caught_up_is_told_without_waiting_for_the_end(monkeypatch):
    class Told(io.StringIO):
        comes = threading.Event()

        def write(self, text):
            super().write(text)
            self.comes.set()

    monkeypatch.setattr("edge.output.QUEUE_EVENTS", 50)
    monkeypatch.setattr(sys, "stderr", told := Told())
    outlet = Outlet(slow := Slow())
    for n in range(200):
        outlet.send(status(n), "")
    slow.reads.set()
    assert told.comes.wait(10)
    outlet.close()
    assert told.getvalue() == f"a slow reader missed {outlet.n_dropped} events in all\n"
    assert len(slow.got) + outlet.n_dropped == 200


@pytest.mark.parametrize("error", [BrokenPipeError, ValueError])
def test_a_failed_reader_is_noticed(error):
    class Closed(io.StringIO):
        def write(self, text):
            raise error

    outlet = Outlet(JsonLines(Closed()))
    outlet.send(status(0), "")
    outlet._thread.join(5)
    with pytest.raises(error):
        outlet.send(status(1), "")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_name_that_is_no_text_is_told_all_the_same(tmp_path, encoding):
    name = os.fsdecode(b"caf\xe9 \xe2\x99\xaa.flac")
    out = io.BytesIO()
    stream = io.TextIOWrapper(out, encoding=encoding)
    JsonLines(stream).send(status(0), name)
    recorder = Recorder(tmp_path / "session.jsonl")
    recorder.send(status(0), name)
    recorder.close()
    assert json.loads(out.getvalue())["source"] == name
    assert (tmp_path / "session.jsonl").read_bytes() == out.getvalue()


class FullDisk:
    """A file that has room for ``room`` bytes, which may be changed."""

    def __init__(self, path, room):
        self.file, self.room = path.open("ab", buffering=0), room

    def tell(self):
        return self.file.tell()

    def write(self, line):
        fits = line[: max(0, self.room - self.file.tell())]
        if not fits:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(fits)

    def truncate(self, size):
        self.file.truncate(size)

    def close(self):
        self.file.close()


def test_a_full_disk_loses_nothing_once_there_is_room(tmp_path, capsys):
    path = tmp_path / "session.jsonl"
    recorder = Recorder(path)
    recorder._file = disk = FullDisk(path, 1000)
    for n in range(20):
        recorder.send(status(n), "mic")
    lines = path.read_text().splitlines()
    assert 0 < len(lines) < 20
    assert all(json.loads(line)["source"] == "mic" for line in lines)  # no half a line
    assert capsys.readouterr().err.count("lines wait for room") == 1
    disk.room = 10**6
    recorder.send(status(20), "mic")
    recorder.close()
    assert [json.loads(line)["at_sample"] for line in path.read_text().splitlines()] == [*range(21)]
    assert capsys.readouterr().err == ""


def test_what_never_fits_is_counted_and_memory_bounded(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("edge.record.KEPT_LINES", 10)
    recorder = Recorder(tmp_path / "session.jsonl")
    recorder._file = FullDisk(tmp_path / "session.jsonl", 0)
    for n in range(100):
        recorder.send(status(n), "")
    assert len(recorder._waiting) == 10
    recorder.close()
    assert "100 lines did not fit" in capsys.readouterr().err


def test_a_record_that_is_no_file_is_refused():
    reading, writing = os.pipe()
    try:
        with pytest.raises(SerError, match=r"cannot record there .*; give a file that can"):
            Recorder(Path(f"/dev/fd/{writing}"))
    finally:
        os.close(reading)
        os.close(writing)


class Broken:
    def __init__(self, error):
        self.error, self.n = error, 0

    def send(self, event, source):
        self.n += 1
        raise self.error

    def close(self):
        raise AssertionError("is not closed after it has failed")


def test_a_session_goes_on_without_what_fails_until_nobody_is_left(capsys):
    class Keeps:
        def __init__(self):
            self.got = []

        def send(self, event, source):
            self.got.append(event)

        def close(self):
            self.got.append("closed")

    broken, keeps = Broken(OSError(5, "Input/output error")), Keeps()
    session = Session.__new__(Session)
    session.sinks = [broken, keeps]
    for n in range(3):
        session._send(status(n), "")
    assert broken.n == 1
    assert len(keeps.got) == 3
    assert "Input/output error" in capsys.readouterr().err
    session.sinks = [Broken(BrokenPipeError())]
    with pytest.raises(NoListenerError):
        session._send(status(0), "")
    session.sinks = [Broken(OSError(5, "Input/output error"))]
    with pytest.raises(SerError, match="the last output has failed: Input/output error"):
        session._send(status(0), "")


def test_events_of_other_kinds_have_names():
    def kinds(cls):
        for sub in cls.__subclasses__():
            yield sub
            yield from kinds(sub)

    names = [k.name for k in kinds(Event) if hasattr(k, "name")]
    assert {"start", "speech_start", "estimate", "utterance", "speech_end", "gap", "status", "clip",
            "summary"} == set(names)  # fmt: skip
    assert Start.name == "start"


STUCK = """
import numpy as np, sys, time
from edge import microphone, output
from edge.__main__ import main

class Noisy(microphone.Microphone):
    def __init__(self, *arguments):
        pass
    def __iter__(self):
        while True:
            time.sleep(0.001)
            yield np.full(1600, 0.1, "f4")
    def close(self):
        print("heard to the end", file=sys.stderr)

microphone.Microphone, output.QUEUE_EVENTS = Noisy, 50
sys.exit(main(["--json", "--gate", "off", "--status-s", "0.01"]))
"""


def test_a_reader_that_stops_reading_neither_stops_the_ear_nor_the_end():
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK],
        cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    process.stdout.read(10)  # it has begun; from now on nobody reads
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 0
    err = process.stderr.read()
    assert "heard to the end" in err
    assert re.search(r"a slow reader missed \d+ events", err)
