"""Shared fixtures: the shipped recordings, made-up corpora, and the real ones where they are."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge import demo
from edge.model import interpreter_module

# Before any test loads TensorFlow: see convert.tflite.to_tflite.
interpreter_module()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# A shell lets what it starts in the background ignore Ctrl-C, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def clips():
    """The demo clips: real speech that every checkout has."""
    return demo.clips()


@pytest.fixture(scope="session")
def emodb():
    return real_corpus("emodb")


@pytest.fixture(scope="session")
def savee():
    return real_corpus("savee")


def real_corpus(name):
    root = os.environ.get("SER_DATA")
    if not root or not (Path(root) / name).is_dir():
        pytest.skip(f"needs the corpus {name}: set SER_DATA to the folder above it")
    return Path(root) / name


def write_tone(path, hz, seconds=0.6, rate=16_000):
    """Write a tone with a little noise: emotions of a made-up corpus differ in pitch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    t = np.arange(round(seconds * rate)) / rate
    rng = np.random.default_rng(abs(hash((hz, seconds))) % 2**32)
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * hz * t) + 0.01 * rng.normal(size=len(t)), rate)


@pytest.fixture(scope="session")
def tiny_emodb(tmp_path_factory):
    """A made-up corpus in EMODB's layout: 7 emotions, 3 speakers, 2 clips of each."""
    root = tmp_path_factory.mktemp("tiny") / "emodb"
    for speaker in ("03", "08", "09"):
        for number, emotion in enumerate("WLEAFNT"):
            for text in ("a01", "a02"):
                hz = 200 * (number + 1) + 7 * int(speaker)
                seconds = 0.5 + 0.1 * number + (0.2 if text == "a02" else 0)
                write_tone(root / "wav" / f"{speaker}{text}{emotion}a.wav", hz, seconds)
    return root
