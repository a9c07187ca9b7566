"""The device program as its users call it; tests/test_microphone.py has the microphone."""

import errno
import io
import json
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest
import soundfile

import edge.__main__ as program
from edge.__main__ import main
from edge.errors import exit_code
from edge.session import Session

ROOT = Path(__file__).parent.parent


def events(text):
    return [json.loads(line) for line in text.splitlines()]


def test_the_demo_prints_the_truth_beside_each_estimate(capsys, clips):
    assert main(["--demo", "--json"]) == 0
    found = [e for e in events(capsys.readouterr().out) if e["event"] == "clip"]
    assert [e["true_label"] for e in found] == [c.label for c in clips]
    assert len(found) == 14
    right = sum(e["label"] == e["true_label"] for e in found)
    assert right >= 5  # of seven labels, chance gets two; these two speakers are new to the model


def test_every_line_of_json_follows_the_schema(capsys):
    assert main(["--demo", "--json", "--status-s", "0.5"]) == 0
    start, *middle, summary = events(capsys.readouterr().out)
    assert (start["event"], summary["event"]) == ("start", "summary")
    assert start["settings"]["gate"] == "voice"
    assert all(e["v"] == 2 for e in (start, *middle, summary))
    counts = dict.fromkeys(
        ["speech_start", "estimate", "utterance", "speech_end", "status", "clip"], 0
    )
    for e in middle:
        counts[e["event"]] += 1
        assert e["at_sample"] >= e["end_sample"] >= e["start_sample"] >= 0
        for key in ("at", "start", "end"):
            assert e[f"{key}_s"] == round(e[f"{key}_sample"] / start["sample_rate_hz"], 4)
        if "probs" in e:
            assert list(e["probs"]) == start["labels"]
            assert sum(e["probs"].values()) == pytest.approx(1, abs=1e-3)
            assert e["confidence"] == e["probs"][e["label"]]
    assert all(counts.values())
    assert counts["speech_start"] == counts["utterance"] == counts["speech_end"]
    assert summary["n_estimates"] == counts["estimate"]
    assert summary["n_utterances"] == counts["utterance"]
    assert summary["n_clips"] == counts["clip"] == 14


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
        (["--threads", "0"], 2, "--threads: expected a whole number from 1 to 1000000, not 0"),
        (["--record", "/dev/null/x", "--demo"], 1, "/dev/null/x: cannot record there"),
        (["-", "-"], 2, "standard input can be heard once only"),
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


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--hop-s", "0"], "--hop-s: expected a number above 0, not 0"),
        (["--hop-s", "abc"], "--hop-s: expected a number above 0, not abc"),
        (["--hold-s", "inf"], "--hold-s: expected a number of at least 0, not inf"),
        (["--uncertain-below", "2"], "expected a number from 0 to 1, not 2"),
        (["--threads", "1.5"], "--threads: expected a whole number from 1 to 1000000, not 1.5"),
        (["--port", "70000"], "--port: expected a whole number from 1 to 65535, not 70000"),
        (["-", "--channels", "100000000000"], "expected a whole number from 1 to 1024, not 1000"),
        (["enroll", "anna", "--channel", "0"], "--channel: expected a whole number from 1 to 10"),
        (["enroll", "anna", "--seconds", "x"], "--seconds: expected a number above 0, not x"),
        (["enroll", "anna", "--seconds", "601"], "expected at least 5 and less than 600, not 601"),
        (["profile", "--threads", "0"], "--threads: expected a whole number from 1 to 1000000"),
        (["profile", "--png", "x.xyz"], "--png: expected a name that ends in .png or .pdf or .svg"),
        (["report", "x", "--png", "x"], "--png: expected a name that ends in .png or .pdf or .svg"),
        (["soak", "--hours", "nan"], "--hours: expected a number above 0, not nan"),
    ],
)
def test_a_wrong_argument_is_one_clear_line(arguments, text, capsys):
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2
    assert text in capsys.readouterr().err


def test_what_the_system_refuses_is_the_file_and_the_reason(tmp_path, capsys):
    def rename():
        (tmp_path / "a").touch()
        (tmp_path / "a").replace(tmp_path / "absent" / "b")

    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    for command, text in [
        ((tmp_path / "absent").open, f"{tmp_path / 'absent'}: No such file or directory"),
        (rename, f"{tmp_path / 'absent' / 'b'}: No such file or directory"),
        (full, "No space left on device"),
    ]:
        assert exit_code(command, False) == 1
        assert capsys.readouterr().err == f"error: {text}\n"


@pytest.mark.parametrize("name", ["absent.wav", "a" * 300])
def test_of_what_cannot_be_heard_nothing_is_said(name, capsys):
    assert main([name, "--json"]) == 1
    out, err = capsys.readouterr()
    assert [e["event"] for e in events(out)] == ["start", "summary"]
    assert err.startswith(f"error: {name}: ")
    assert err.count("\n") == 1
    assert main([name]) == 1
    out, lines = capsys.readouterr()
    assert out == ""
    assert lines.splitlines()[1:] == [err.strip()]  # after the one that says who listens


def test_an_output_that_fails_is_an_error(clips, capsys, monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    assert main([str(clips[0].path), "--json"]) == 1
    error = "error: the last output has failed: No space left on device\n"
    assert capsys.readouterr().err == error


def test_a_terminal_without_our_signs_gets_others(clips, monkeypatch):
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding="latin-1"))
    assert main([str(clips[0].path)]) == 0
    lines = out.getvalue().decode("latin-1").splitlines()
    assert "\\u258" in lines[0]
    assert clips[0].path.name in lines[-1]


def test_a_stop_before_it_has_begun_is_one_line(capsys, monkeypatch):
    def stopped(*arguments):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("edge.__main__.Model", stopped)
    assert main(["--demo"]) == 130
    assert capsys.readouterr() == ("", "stopped\n")


def test_a_second_stop_loses_neither_the_summary_nor_the_end(clips, capsys, monkeypatch):
    ended = []

    def close(self, real=Session.close):
        signal.raise_signal(signal.SIGINT)
        real(self)

    def open_sinks(args, stack, live, watched, real=program.open_sinks):
        stack.callback(ended.append, "stack")
        stack.callback(signal.raise_signal, signal.SIGINT)
        return real(args, stack, live, watched)

    monkeypatch.setattr(Session, "close", close)
    monkeypatch.setattr(program, "open_sinks", open_sinks)
    before = signal.getsignal(signal.SIGINT)
    assert main([str(clips[0].path), "--json"]) == 0
    out, err = capsys.readouterr()
    assert events(out)[-1]["event"] == "summary"
    assert err == ""
    assert ended == ["stack"]
    assert signal.getsignal(signal.SIGINT) is before


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
        [sys.executable, "-m", "edge", "-", "--json", "--gate", "off"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    process.stdin.write(bytes(2 * 16_000 * 3))
    process.stdin.flush()
    # Until the last status of 3 s, after which it waits for more.
    lines = []
    while not lines or json.loads(lines[-1]).get("at_s", 0) < 2.75:
        lines.append(process.stdout.readline())
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    lines = [json.loads(line) for line in [*lines, *out.splitlines()]]
    names = [e["event"] for e in lines]
    assert names[:2] == ["start", "speech_start"]
    # What was being said is ended as at the end of a file.
    assert names[-4:] == ["utterance", "speech_end", "clip", "summary"]
    assert lines[-1]["heard_s"] == lines[-2]["at_s"] > 2.5
    assert lines[-1]["n_estimates"] == names.count("estimate")
    assert process.returncode == 0
    assert err == b""


def test_what_is_recorded_is_what_is_said(capsys, clips, tmp_path):
    path = tmp_path / "new" / "session.jsonl"
    assert main([str(clips[0].path), "--json", "--record", str(path)]) == 0
    assert path.read_text(encoding="utf-8") == capsys.readouterr().out
    assert main([str(clips[0].path), "--record", str(path)]) == 0
    starts = [e for e in events(path.read_text(encoding="utf-8")) if e["event"] == "start"]
    assert len(starts) == 2  # it is appended to


def test_a_reader_that_goes_away_does_not_stop_the_record(clips, tmp_path):
    path = tmp_path / "session.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "edge", "--demo", "--json", "--record", str(path)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    lines = events(path.read_text(encoding="utf-8"))
    assert lines[-1]["event"] == "summary"
    assert lines[-1]["n_clips"] == 14
    assert "an output has failed and is left out" in process.stderr.read()


def test_the_device_imports_little_to_say_its_first_word():
    program = (
        "import sys; from edge.__main__ import main; main(['--demo', '--json']); "
        "print([m for m in ('rich', 'starlette', 'uvicorn', 'matplotlib') if m in sys.modules], "
        "file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr.splitlines()[-1] == "[]"
