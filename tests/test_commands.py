"""The device program as its users call it, and the microphone with a made-up sounddevice."""

import io
import json
import signal
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge.__main__ import main
from edge.errors import AudioError
from edge.microphone import Microphone

ROOT = Path(__file__).parent.parent


def events(text):
    return [json.loads(line) for line in text.splitlines()]


def test_the_demo_prints_the_truth_beside_each_estimate(capsys, clips):
    assert main(["--demo", "--json"]) == 0
    found = [e for e in events(capsys.readouterr().out) if e["event"] == "clip"]
    assert [e["true_label"] for e in found] == [c.label for c in clips]
    assert len(found) == 14
    right = sum(e["label"] == e["true_label"] for e in found)
    # Measured: what the shipped model gets right of two speakers whom it has never heard.
    assert right == RIGHT_OF_14


RIGHT_OF_14 = 9


def test_every_line_of_json_follows_the_schema(capsys):
    assert main(["--demo", "--json"]) == 0
    lines = events(capsys.readouterr().out)
    assert all(e["v"] == 1 for e in lines)
    assert lines[0]["event"] == "start"
    assert lines[-1]["event"] == "summary"
    for e in lines[1:-1]:
        assert e["event"] in ("estimate", "clip")
        assert list(e["probs"]) == lines[0]["labels"]
        assert sum(e["probs"].values()) == pytest.approx(1, abs=1e-3)
        assert e["label"] == max(e["probs"], key=e["probs"].get)
        assert e["end_s"] > e["start_s"] >= 0
    assert lines[-1]["n_clips"] == 14
    assert lines[-1]["n_estimates"] == sum(e["event"] == "estimate" for e in lines)


def test_a_pipe_is_heard_like_the_file(capsys, clips, monkeypatch):
    path = clips[0].path
    assert main([str(path), "--json"]) == 0
    from_file = events(capsys.readouterr().out)
    pcm, rate = soundfile.read(path, dtype="int16")
    stdin = types.SimpleNamespace(buffer=io.BytesIO(pcm.tobytes()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert main(["-", "--json", "--rate", str(rate)]) == 0
    from_pipe = events(capsys.readouterr().out)
    assert len(from_file) == len(from_pipe) > 2
    for one, other in zip(from_file[1:-1], from_pipe[1:-1], strict=True):
        assert one | {"source": ""} == other | {"source": ""}


def test_plain_lines_where_stdout_is_no_terminal(capsys):
    assert main(["--demo"]) == 0
    out, err = capsys.readouterr()
    assert "true: happiness" in out
    assert "\x1b" not in out
    assert "of 14 clips right" in err


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["absent.wav"], 1, "absent.wav: no such audio file"),
        (["--model", "absent.tflite", "--demo"], 1, "absent.tflite: cannot read the model"),
        (["--threads", "0"], 2, "--threads, --rate and --channels must be at least 1"),
        (["-", "-"], 2, "standard input can be heard once only"),
        (["--hop-s", "0"], 2, "must be above 0"),
    ],
)
def test_wrong_use_is_one_clear_line(arguments, code, text):
    done = subprocess.run(
        [sys.executable, "-m", "edge", *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == code
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_goes_away_is_no_error():
    process = subprocess.Popen(
        [sys.executable, "-m", "edge", "--demo", "--json"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    assert process.stderr.read() == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_ends_with_a_summary(number):
    process = subprocess.Popen(
        [sys.executable, "-m", "edge", "-", "--json"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    process.stdin.write(bytes(2 * 16_000 * 3))
    process.stdin.flush()
    # The start and all five estimates of 3 s: then it waits for more, and a stop cannot fall
    # between counting an estimate and printing it.
    lines = [process.stdout.readline() for _ in range(6)]
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    lines = [json.loads(line) for line in [*lines, *out.splitlines()]]
    assert [e["event"] for e in lines[:2]] == ["start", "estimate"]
    assert lines[-1]["event"] == "summary"
    assert lines[-1]["n_estimates"] == len(lines) - 2
    assert process.returncode == 0
    assert err == b""


class FakeSounddevice(types.ModuleType):
    """One microphone that plays ``blocks`` as soon as it is started, then keeps quiet."""

    class PortAudioError(Exception):
        pass

    def __init__(self, blocks, rate=48_000, overflows=()):
        super().__init__("sounddevice")
        self.blocks, self.rate, self.overflows = blocks, rate, overflows
        self.default = types.SimpleNamespace(device=(1, 2))
        self.devices = [
            {"name": "speaker", "max_input_channels": 0, "default_samplerate": 44_100.0},
            {"name": "USB microphone", "max_input_channels": 2, "default_samplerate": float(rate)},
        ]

    def query_devices(self, device=None, kind=None):
        if kind is None:
            return self.devices
        if device not in (None, 1, "USB"):
            raise ValueError(f"No input device matching {device!r}")
        return self.devices[1]

    def InputStream(self, *, callback, channels, **options):  # noqa: N802
        fake = self

        class Stream:
            active = True

            def start(self):
                for number, block in enumerate(fake.blocks):
                    status = types.SimpleNamespace(input_overflow=number in fake.overflows)
                    stereo = np.repeat(block[:, None], channels, axis=1)
                    callback(stereo, len(block), None, status)
                    stereo[:] = np.nan  # PortAudio uses its buffer again: keep nothing of it
                self.active = False

            def close(self):
                self.active = False

        return Stream()


@pytest.fixture
def plug_in(monkeypatch):
    def plug(*arguments, **options):
        fake = FakeSounddevice(*arguments, **options)
        monkeypatch.setitem(sys.modules, "sounddevice", fake)
        return fake

    return plug


def test_the_microphone_is_heard_like_a_file(plug_in, tmp_path):
    from edge.audio import read_file

    samples = (0.1 * np.random.default_rng(0).normal(size=48_000)).astype("f4")
    soundfile.write(tmp_path / "a.wav", samples, 48_000, subtype="FLOAT")
    plug_in(np.split(samples, 10))
    heard = []
    with Microphone("USB", 16_000) as microphone:
        assert microphone.device_rate_hz == 48_000
        with pytest.raises(AudioError, match="USB microphone stopped; is it still plugged in"):
            heard.extend(microphone)
    heard = np.concatenate(heard)
    np.testing.assert_allclose(
        heard, read_file(tmp_path / "a.wav", 16_000)[: len(heard)], atol=1e-6
    )
    assert len(heard) > 15_500  # the resampler still holds the end
    assert microphone.dropped_samples == 0


def test_what_the_program_is_too_slow_for_is_dropped_and_counted(plug_in):
    blocks = [np.full(4800, n, np.float32) for n in range(60)]
    plug_in(blocks, overflows={3})
    with Microphone(None, 48_000) as microphone:
        kept = []
        with pytest.raises(AudioError):
            kept.extend(microphone)
    assert microphone.dropped_samples == 10 * 4800
    assert microphone.overflows == 1
    assert [block[0] for block in kept] == list(range(10, 60))  # the oldest went


def test_a_microphone_that_gives_no_numbers_is_one_clear_line(plug_in, capsys):
    plug_in([np.full(4800, np.nan, np.float32)])
    assert main([]) == 1
    assert "USB microphone: holds NaN or infinity" in capsys.readouterr().err


def test_the_summary_says_what_was_lost(plug_in, capsys):
    plug_in([np.zeros(4800, np.float32)] * 60)
    assert main(["--json"]) == 1
    out, err = capsys.readouterr()
    summary = events(out)[-1]
    assert summary["event"] == "summary"
    assert summary["dropped_s"] == 1.0
    assert summary["heard_s"] == pytest.approx(5.0, abs=0.02)
    assert "is it still plugged in" in err


def test_ctrl_c_ends_with_a_summary(plug_in, capsys, monkeypatch):
    plug_in([np.zeros(4800, np.float32)] * 40)

    def interrupt(self):
        yield np.zeros(48_000, np.float32)
        raise KeyboardInterrupt

    monkeypatch.setattr(Microphone, "__iter__", interrupt)
    assert main(["--json"]) == 0
    assert events(capsys.readouterr().out)[-1]["heard_s"] == 3.0


def test_devices_are_listed_with_the_default_marked(plug_in, capsys):
    plug_in([])
    assert main(["--list-devices"]) == 0
    assert capsys.readouterr().out == "> 1: USB microphone, 2 channels, 48000 Hz\n"


def test_an_unknown_device_says_how_to_list_them(plug_in, capsys):
    plug_in([])
    assert main(["--device", "other"]) == 1
    assert "cannot record from device 'other'" in capsys.readouterr().err


def test_without_portaudio_it_says_how_to_get_it(monkeypatch, capsys):
    import builtins

    real = builtins.__import__

    def fake(name, *arguments, **options):
        if name == "sounddevice":
            raise OSError("PortAudio library not found")
        return real(name, *arguments, **options)

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(builtins, "__import__", fake)
    assert main([]) == 1
    assert "sudo apt install libportaudio2" in capsys.readouterr().err
