"""profile, report and soak: that they measure what they say, not how fast this machine is."""

import dataclasses
import json
import sys
import time

import numpy as np
import pytest

from edge import profile, report, soak
from edge.__main__ import main
from edge.errors import SerError
from edge.events import Clip
from edge.model import Model
from edge.record import Recorder
from tests.test_serve import SESSION, START, utterance


@pytest.fixture
def record(tmp_path):
    path = tmp_path / "session.jsonl"
    recorder = Recorder(path)
    recorder.send(START, "")
    for event in SESSION:
        recorder.send(event, "USB microphone")
    recorder.close()
    return path


def test_a_record_becomes_a_summary_and_a_picture(record, capsys):
    pytest.importorskip("matplotlib")
    assert main(["report", str(record)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(
        "2026-01-01T00:00:00+00:00  18 s, 2 utterances, 10 s speech, lost 3.0"
    )
    assert lines[0].endswith("(was cut off)")
    assert [line.split() for line in lines[1:3]] == [
        ["anger", "5.5", "s", "55%", "confidence", "80%"], ["uncertain", "4.5", "s", "45%"],
    ]  # fmt: skip
    assert "lost at 12.0 s: 3.00 s (the microphone was away)" in lines[3]
    png = record.with_suffix(".png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert len(png) > 10_000


def test_several_sessions_and_sources_follow_each_other(record, clips):
    names = [str(clip.path) for clip in clips[:2]]
    assert main([*names, "--json", "--record", str(record)]) == 0
    (first, second), n_bad = report.read(record)
    assert n_bad == 0
    assert len(first.utterances) == 2
    ends = [u["end_s"] for u in second.utterances]
    assert ends == sorted(ends)
    assert second.duration_s == pytest.approx(second.summary["heard_s"], abs=0.001)


def test_a_torn_record_is_read_as_far_as_it_goes(record, capsys):
    with record.open("a") as file:
        file.write('{"v": 2, "event": "utter')
    assert main(["report", str(record), "--no-picture"]) == 0
    assert "1 lines could not be read" in capsys.readouterr().err


def test_the_next_session_begins_after_a_torn_line(record):
    with record.open("a") as file:
        file.write('{"v": 2, "event": "utter')
    recorder = Recorder(record)
    recorder.send(START, "")
    recorder.send(utterance(1, 2, "anger"), "USB microphone")
    recorder.close()
    (first, second), n_bad = report.read(record)
    assert n_bad == 1
    assert (len(first.utterances), len(second.utterances)) == (2, 1)


def test_a_file_that_is_heard_twice_follows_itself(tmp_path):
    recorder = Recorder(tmp_path / "session.jsonl")
    recorder.send(START, "")
    for _ in range(2):
        recorder.send(utterance(0.5, 6, "anger"), "a.wav")
        recorder.send(Clip(100, 700, 0, 700, "anger", 0.8, False, {}, None), "a.wav")
    recorder.close()
    ((session,), _) = report.read(tmp_path / "session.jsonl")
    assert [u["start_s"] for u in session.utterances] == [0.5, 7.5]
    assert session.duration_s == 14


def test_the_confidence_of_a_label_is_that_of_its_seconds(tmp_path):
    unsure = dataclasses.replace(utterance(6, 8, "anger", uncertain=True), confidence=0.4)
    recorder = Recorder(tmp_path / "session.jsonl")
    for event in (START, utterance(0, 4, "anger"), unsure):
        recorder.send(event, "")
    recorder.close()
    ((session,), _) = report.read(tmp_path / "session.jsonl")
    assert [line.split() for line in report.text(session).splitlines()[1:]] == [
        ["anger", "4.0", "s", "67%", "confidence", "80%"], ["uncertain", "2.0", "s", "33%"],
    ]  # fmt: skip


def test_a_picture_that_cannot_be_written_is_one_line(record, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert main(["report", str(record), "--png", "/dev/null/x.png"]) == 1
    assert "error: /dev/null: File exists\n" in capsys.readouterr().err
    long = tmp_path / f"{'x' * 300}.png"
    assert main(["report", str(record), "--png", str(long)]) == 1
    assert f"error: {long}: File name too long\n" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [record]


def test_what_is_no_record_is_one_line(tmp_path, capsys):
    assert main(["report", str(tmp_path / "absent")]) == 1
    assert "absent: No such file or directory" in capsys.readouterr().err
    (tmp_path / "old").write_text('{"v": 1, "event": "start"}\n')
    assert main(["report", str(tmp_path / "old")]) == 1
    assert "expected events of version 2, not 1" in capsys.readouterr().err
    (tmp_path / "text").write_text("nothing\n")
    assert main(["report", str(tmp_path / "text")]) == 1
    assert "holds no session" in capsys.readouterr().err


def test_the_stopwatch_takes_what_a_stage_takes():
    watch = profile.Stopwatch()
    timed = watch.measure("nap", lambda seconds: time.sleep(seconds))
    timed(0.02)
    timed(0.0)
    first, second = watch.wall_ms["nap"]
    assert first >= 20
    assert second >= 0
    assert set(watch.cpu_s) == {"nap"}


def test_the_profile_measures_every_stage_and_compares(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(profile, "ROUNDS", 1)
    monkeypatch.setattr(profile.demo, "clips", lambda real=profile.demo.clips: real()[:3])
    peer = tmp_path / "peer.py"
    peer.write_text("print('{\"cpu_s_per_audio_s\": 1000}')")
    out = tmp_path / "here.json"
    assert main(["profile", "--peer", f"{sys.executable} {peer}", "--out", str(out)]) == 0
    assert "cold start" in capsys.readouterr().out
    result = json.loads(out.read_text())
    (run,) = result["runs"]
    seconds = sum(len(profile.read_file(c.path, 16_000)) for c in profile.demo.clips()) / 16_000
    stages = run["stages"]
    assert set(stages) == {*profile.STAGES, "block", "hop"}
    assert all(s["p50_ms"] <= s["p95_ms"] <= s["p99_ms"] <= s["max_ms"] for s in stages.values())
    parts = sum(stages[name]["cpu_s_per_audio_s"] for name in profile.STAGES)
    assert 0 < parts <= stages["block"]["cpu_s_per_audio_s"] + 1e-4
    assert run["silence_cpu_s_per_audio_s"] < run["speech_cpu_s_per_audio_s"] < 1
    assert seconds * stages["block"]["cpu_s_per_audio_s"] > 1e-3
    assert result["ratios"]["everything in speech / peer"] == pytest.approx(
        run["speech_cpu_s_per_audio_s"] / 1000, abs=1e-4
    )
    cold = result["cold_start"]
    parts = [v for k, v in cold.items() if k.endswith("cpu_s") and k != "total_cpu_s"]
    assert sum(parts) == pytest.approx(cold["total_cpu_s"], abs=0.01)
    assert main(["profile", "--compare", str(out), str(out)]) == 0
    compared = capsys.readouterr().out
    assert "peak_memory_mb" in compared
    assert compared.count("(1.00)") >= 10


def test_a_peer_that_says_nothing_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr(profile, "profile_model", lambda *_: {})
    monkeypatch.setattr(profile, "cold_start", lambda *_: {})
    assert main(["profile", "--peer", f"{sys.executable} -V"]) == 1
    assert "has not given a line of JSON" in capsys.readouterr().err


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(soak.demo, "clips", lambda real=soak.demo.clips: real()[:2])


def test_the_soak_accounts_for_every_sample(short):
    result = soak.soak(Model(), 0.06)
    assert result["n_heard"] + result["n_lost"] == result["n_samples"]
    assert result["audio_hours"] == pytest.approx(0.06, abs=0.02)
    assert 0.02 < result["n_speech"] / result["n_heard"] < 0.5
    assert result["n_events"] > 10 * result["n_repetitions"]


def test_the_soak_notices_what_it_is_there_for(short, monkeypatch):
    model = Model()

    class Moody:
        card, n = model.card, 0

        def logits(self, rows):
            self.n += 1
            return np.roll(model.logits(rows), self.n > 60)

    with pytest.raises(SerError, match="heard differently"):
        soak.soak(Moody(), 0.06)
    leak = iter(range(1000))
    monkeypatch.setattr(soak.machine, "memory_mb", lambda: 50.0 + 2 * next(leak))
    with pytest.raises(SerError, match="memory grew by"):
        soak.soak(model, 0.06)
