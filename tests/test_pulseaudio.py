"""The whole path from PortAudio to events, on a virtual microphone of PulseAudio's."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile

ROOT = Path(__file__).parent.parent
NEEDED = ("pulseaudio", "pactl", "paplay")

ALSA = "pcm.!default { type pulse }\nctl.!default { type pulse }\n"

# The program with less patience.
PROGRAM = """
import faulthandler, sys
faulthandler.dump_traceback_later(120, exit=True)  # rather than hang a test
from edge import microphone
from edge.__main__ import main
microphone.RETRY_S = 0.2
sys.exit(main(["--json"]))
"""


@pytest.fixture
def pulse(tmp_path):
    """A PulseAudio server of our own, as a function that runs its commands."""
    if missing := [name for name in NEEDED if not shutil.which(name)]:
        pytest.skip(f"needs {', '.join(missing)}: apt install pulseaudio pulseaudio-utils")
    (tmp_path / ".asoundrc").write_text(ALSA)
    tmp_path.chmod(0o700)
    environment = os.environ | {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    environment.pop("PULSE_SERVER", None)

    def run(*command):
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=30
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout.strip()

    run.environment = environment
    server = subprocess.Popen(
        ["pulseaudio", "-n", "--exit-idle-time=-1", "-L", "module-native-protocol-unix"],
        env=environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        for _ in range(100):
            if (tmp_path / "pulse" / "native").exists():
                break
            if server.poll() is not None:
                pytest.skip(f"PulseAudio cannot run here: {server.stderr.read()[-200:]}")
            time.sleep(0.1)
        yield run
    finally:
        server.terminate()
        server.wait(10)


def plug_in(pulse):
    number = pulse(
        "pactl", "load-module", "module-null-sink", "sink_name=speaker", "rate=48000", "channels=1"
    )
    pulse("pactl", "set-default-source", "speaker.monitor")
    return number


def test_it_hears_loses_and_finds_a_real_stream(pulse, clips, tmp_path):
    probe = subprocess.run(
        [sys.executable, "-c", "import sounddevice"], capture_output=True, check=False
    )
    if probe.returncode:
        pytest.skip("needs PortAudio: apt install libportaudio2 libasound2-plugins")
    samples, rate = soundfile.read(clips[2].path)
    soundfile.write(tmp_path / "clip.wav", samples, rate)
    module = plug_in(pulse)
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT, env=pulse.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    heard = []

    def wait_for(found, what):
        for line in process.stdout:
            heard.append(json.loads(line))
            if found(heard[-1]):
                return heard[-1]
        raise AssertionError(f"ended before {what}: {heard[-3:]} {process.stderr.read()}")

    def said(text):
        return lambda e: e["event"] == "status" and text in e.get("message", "")

    try:
        wait_for(said("listening to default"), "the device was opened")
        pulse("paplay", "-d", "speaker", str(tmp_path / "clip.wav"))
        first = wait_for(lambda e: e["event"] == "utterance", "the first utterance")
        pulse("pactl", "unload-module", module)
        wait_for(said("delivers nothing any more (unplugged?); waiting for it"), "it was missed")
        plug_in(pulse)
        gap = wait_for(lambda e: e.get("reason") == "the microphone was away", "it was found again")
        wait_for(said("listening to default"), "it was heard again")
        pulse("paplay", "-d", "speaker", str(tmp_path / "clip.wav"))
        second = wait_for(lambda e: e["event"] == "utterance", "the second utterance")
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    summary = json.loads(out.splitlines()[-1])
    assert process.returncode == 0
    for utterance in (first, second):
        assert utterance["duration_s"] == pytest.approx(len(samples) / rate, abs=1.0)
    assert second["start_s"] >= gap["end_s"] > gap["start_s"] >= first["end_s"]
    assert gap["end_s"] - gap["start_s"] > 0.3
    gaps = [e for e in heard if e["event"] == "gap"]  # a null sink may be slow to begin
    # In samples, which are exact: times are rounded, and so is the sum.
    n_lost = sum(g["end_sample"] - g["start_sample"] for g in gaps)
    assert summary["lost_s"] == pytest.approx(n_lost / heard[0]["sample_rate_hz"], abs=1e-4)
