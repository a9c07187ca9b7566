"""``python -m train.conditions MODEL ...``: how a converted model fares where people live.

Every model is asked about the speakers that its card says were held out, through the device's own
recognizer, speech gate included: with little to hear, in noise that no training has heard, in a
room, at other gains, over the telephone; with more and more known of the speaker; and where nobody
speaks at all. The result is one JSON file; `train.results` makes tables of it.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from rich.console import Console

from edge.audio import read_file
from edge.enroll import heard_s
from edge.errors import SerError, count, exit_code
from edge.events import Clip as ClipEvent
from edge.events import Estimate, Utterance
from edge.frontend import LOG_MEL
from edge.gate import SpeechGate
from edge.leaning import Voice
from edge.machine import hardware
from edge.model import Model
from edge.recognizer import Recognizer
from edge.speaker import TELEPHONE_HZ
from edge.storage import write_json
from edge.study import esc10, load_room
from train import corpora
from train.__main__ import data_folder
from train.augment import band, reverberant, with_noise
from train.augment import noise as coloured_noise
from train.dataset import clip_features, device_windows
from train.fit import recall

SNRS_DB = (20.0, 10.0, 5.0, 0.0)
GAINS_DB = (-30.0, -20.0, -10.0, 6.0, 12.0)
SECONDS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
KNOWN_S = (5.0, 10.0, 30.0, 60.0)
ENROLMENT_S = (10.0, 30.0)
ROOM, EVEN_ROOM = "room", "room, without the colour of the clap"
KNOWN_IN = (ROOM, EVEN_ROOM, "telephone")
KNOWN_IN_S = 30.0  # half a minute of a speaker who stays there
DIRECT_S = 0.02  # Assumed: of an impulse response, what tells how the sound in it was made.
# Assumed: its colour is smoothed this far to either side, a third of an octave in all.
EVEN_OVER = 2 ** (1 / 6)
N_BABBLE = 6  # Assumed: voices in a babble.
BLOCK_SAMPLES = 1600

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Spoken:
    """A clip with its samples at the model's rate."""

    speaker: str
    label: str
    samples: np.ndarray


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the recognizer said of one clip; ``changes`` counts labels that replaced another."""

    label: str | None
    first_right_s: float | None
    changes: int
    heard_s: float


def blocks(samples: np.ndarray) -> Iterator[np.ndarray]:
    """Yield ``samples`` as a microphone would."""
    return (samples[i : i + BLOCK_SAMPLES] for i in range(0, len(samples), BLOCK_SAMPLES))


def recognizer(model: Model, gate: str, known: Voice | None = None) -> Recognizer:
    rate_hz = model.card.frontend.sample_rate_hz
    return Recognizer(model, SpeechGate(gate, rate_hz), known=known)


def answer(model: Model, gate: str, clip: Spoken, known: Voice | None = None) -> Answer:
    """Let the device hear one clip."""
    shown: list[tuple[float, str]] = []
    said, heard_s = None, 0.0
    for event in recognizer(model, gate, known).events(blocks(clip.samples)):
        if isinstance(event, Estimate):
            shown.append((event.at_s, event.label))
        elif isinstance(event, Utterance):
            heard_s += event.duration_s
        elif isinstance(event, ClipEvent):
            said = event.label
    stable = None
    for at_s, label in reversed(shown):  # the time from which on the label stays right
        if label != clip.label:
            break
        stable = at_s
    changes = sum(a != b for (_, a), (_, b) in itertools.pairwise(shown))
    return Answer(said, stable, changes, heard_s)


def uar(clips: list[Spoken], labels: Sequence[str | None]) -> float:
    """Return the recall in %; silence is a wrong answer."""
    names = sorted({clip.label for clip in clips})
    true = np.array([names.index(clip.label) for clip in clips])
    said = np.array([names.index(x) if x in names else len(names) for x in labels])
    return 100 * recall(true, said)


def heard_in(change: Change | None, clips: list[Spoken]) -> list[Spoken]:
    """Return ``clips`` as ``change`` leaves them, the same for every model."""
    if change is None:
        return clips
    return [
        dataclasses.replace(clip, samples=change(clip.samples, np.random.default_rng(number)))
        for number, clip in enumerate(clips)
    ]


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """Recordings at the model's rate: ESC-10's classes by name, and a room's response or None."""

    sounds: dict[str, list[np.ndarray]]
    room: np.ndarray | None

    @classmethod
    def read(cls, data: Path, rate_hz: int) -> Surroundings:
        """Read ``esc10/`` and ``rir/rir_clap.wav`` in the folder ``data``."""
        return cls(esc10(data, rate_hz), load_room(data, rate_hz))


def noises(around: Surroundings, others: list[Spoken]) -> dict[str, Change]:
    """Return what each noise sounds like beside a clip; ``others`` talk in the babble."""

    def white(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return coloured_noise(len(x), 0.0, rng)

    def babble(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        voices = [others[i].samples for i in rng.choice(len(others), N_BABBLE, replace=False)]
        return np.sum([_from_anywhere(voice, len(x), rng) for voice in voices], axis=0)

    found: dict[str, Change] = {"white": white, "babble": babble}
    for name, recordings in around.sounds.items():
        found[name] = functools.partial(_sound, recordings)
    return found


def _sound(recordings: list[np.ndarray], x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _from_anywhere(recordings[rng.integers(len(recordings))], len(x), rng)


def _from_anywhere(sound: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return ``n`` samples of a sound that goes round."""
    return np.resize(np.roll(sound, rng.integers(len(sound))), n)


def conditions(
    around: Surroundings, others: list[Spoken], rate_hz: int
) -> dict[str, Change | None]:
    """Return every condition by name."""

    def noisy(make: Change, snr_db: float) -> Change:
        return lambda x, rng: with_noise(x, make(x, rng), snr_db)

    def louder(gain_db: float) -> Change:
        return lambda x, rng: np.clip(x * np.float32(10 ** (gain_db / 20)), -1, 1)

    def first(n_samples: int) -> Change:
        return lambda x, rng: x[:n_samples]

    found: dict[str, Change | None] = {"clean": None}
    for name, make in noises(around, others).items():
        for snr_db in SNRS_DB:
            found[f"{name} {snr_db:g} dB"] = noisy(make, snr_db)
    for gain_db in GAINS_DB:
        found[f"gain {gain_db:+g} dB"] = louder(gain_db)
    if (response := around.room) is not None:
        even = evened(response, rate_hz)
        found[ROOM] = lambda x, rng: reverberant(x, response)
        found[EVEN_ROOM] = lambda x, rng: reverberant(x, even)
    found["telephone"] = lambda x, rng: band(x, rate_hz, *TELEPHONE_HZ)
    for seconds in SECONDS:
        found[f"first {seconds:g} s"] = first(round(seconds * rate_hz))
    return found


def evened(response: np.ndarray, rate_hz: int) -> np.ndarray:
    """Return an impulse response (n,) without the colour of the sound that it was measured with.

    Of a clap of two boards little lies below 1 kHz, and a recording of it is not only the room. The
    spectrum of its first `DIRECT_S`, smoothed over a third of an octave, is divided out, at minimum
    phase (Oppenheim and Schafer, 1975), so that nothing sounds before the direct sound.
    """
    n = 2 * len(response)
    hz = np.fft.rfftfreq(n, 1 / rate_hz)
    direct = np.abs(np.fft.rfft(response[: round(DIRECT_S * rate_hz)], n)) ** 2
    centres = np.maximum(hz, LOG_MEL.low_hz)  # nothing below it is heard
    low, high = np.searchsorted(hz, centres / EVEN_OVER), np.searchsorted(hz, centres * EVEN_OVER)
    sums = np.concatenate([[0.0], np.cumsum(direct)])
    cepstrum = np.fft.irfft(np.log((sums[high] - sums[low]) / (high - low)) / 2, n)
    cepstrum[1 : n // 2] *= 2
    cepstrum[n // 2 + 1 :] = 0
    even = np.fft.rfft(response, n) / np.exp(np.fft.rfft(cepstrum))
    return np.fft.irfft(even, n)[: len(response)].astype(np.float32)


def others_of(clips: list[Spoken], clip: int, neutral: bool) -> list[int]:
    """Return which other clips, or which other neutral ones, the same speaker has."""
    return [
        number for number, other in enumerate(clips)
        if number != clip and other.speaker == clips[clip].speaker
        and (not neutral or other.label == "neutral")
    ]  # fmt: skip


def voice_of(
    model: Model, gate: str, clips: list[Spoken], seconds: float, seed: int
) -> Voice | None:
    """Return what the device knows of a speaker after some of ``clips``, None after none.

    It hears them in a random order, up to the end of the one in which it has heard so many seconds
    of speech, which may be infinite.
    """
    hears = recognizer(model, gate)
    for number in np.random.default_rng(seed).permutation(len(clips)):
        if heard_s(hears) >= seconds:
            break
        for _ in hears.events(blocks(clips[number].samples)):
            pass
    return hears.voice


def offline(model: Model, clips: list[Spoken]) -> float:
    """Return the recall over whole clips, as training measures it."""
    card = model.card
    features = [clip_features(c.samples, card.frontend, 0) for c in clips]
    windows, owners = device_windows(features, card.n_rows, card.frontend)
    probs = np.stack([model.probs(window) for window in windows])
    labels = [card.labels[int(probs[owners == i].mean(axis=0).argmax())] for i in range(len(clips))]
    return uar(clips, labels)


def false_alarms(model: Model, gate: str, sounds: list[np.ndarray]) -> dict[str, float]:
    """Return how many utterances an hour are reported where nobody speaks."""
    rate_hz = model.card.frontend.sample_rate_hz
    hears = recognizer(model, gate)
    events = list(hears.events(b for s in sounds for b in blocks(s)))
    n = sum(isinstance(event, Utterance) for event in events)
    certain = sum(isinstance(e, Utterance) and not e.uncertain for e in events)
    hours = sum(map(len, sounds)) / rate_hz / 3600
    return {"hours": hours, "utterances_per_hour": n / hours, "certain_per_hour": certain / hours}


def study(
    models: list[Path],
    corpus: corpora.Corpus,
    data: Path,
    n_jobs: int,
    only: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Measure ``models``, each on its own held-out speakers; answers are pooled.

    ``only`` keeps, beside "clean", the conditions whose names begin with one of these words.
    """
    opened = [Model(path) for path in models]
    rate_hz = opened[0].card.frontend.sample_rate_hz
    spoken = [Spoken(c.speaker, c.label, read_file(c.path, rate_hz)) for c in corpus.clips]
    around = Surroundings.read(data, rate_hz)
    tests: list[tuple[Path, list[Spoken], list[Spoken]]] = []
    for model, path in zip(opened, models, strict=True):
        strangers = set(model.card.provenance["held_out_speakers"])
        clips = [clip for clip in spoken if clip.speaker in strangers]
        if not clips:
            raise SerError(f"{path}: its card names no held-out speaker of {corpus.name}")
        others = [clip for clip in spoken if clip.speaker not in strangers]
        tests.append((path, clips, others))

    def hear(name: str, clips: list[Spoken], others: list[Spoken]) -> list[Spoken]:
        return heard_in(conditions(around, others, rate_hz)[name], clips)

    def over(name: str, gate: str, known_s: float, neutral: bool) -> list[tuple[Spoken, Answer]]:
        found = []
        for path, clips, others in tests:
            model, heard = Model(path), hear(name, clips, others)
            for number, clip in enumerate(heard):
                before = [heard[n] for n in others_of(clips, number, neutral)]
                known = voice_of(model, gate, before, known_s, number)
                found.append((clip, answer(model, gate, clip, known)))
        return found

    jobs: dict[str, tuple[str, str, float, bool]] = {
        name: (name, "voice", 0.0, False) for name in conditions(around, spoken, rate_hz)
    }
    jobs["without gate"] = ("clean", "off", 0.0, False)
    for seconds in (*KNOWN_S, np.inf):
        jobs[f"known {seconds:g} s"] = ("clean", "voice", seconds, False)
    for name in KNOWN_IN:
        if name in jobs:
            jobs[f"{name}, known {KNOWN_IN_S:g} s"] = (name, "voice", KNOWN_IN_S, False)
    for seconds in ENROLMENT_S:
        jobs[f"enrolled {seconds:g} s"] = ("clean", "voice", seconds, True)
    if only:
        jobs = {name: job for name, job in jobs.items() if name.startswith(("clean", *only))}
    parallel = joblib.Parallel(n_jobs=n_jobs, return_as="generator")
    results = parallel(joblib.delayed(over)(*job) for job in jobs.values())
    recalls, clean = {}, []
    for name, pairs in zip(jobs, results, strict=True):
        clips, said = [clip for clip, _ in pairs], [found.label for _, found in pairs]
        recalls[name] = round(uar(clips, said), 2)
        if name == "clean":
            clean = pairs
    right = [a.first_right_s for c, a in clean if a.label == c.label and a.first_right_s]
    minutes = sum(a.heard_s for _, a in clean) / 60
    sounds = [sound for recordings in around.sounds.values() for sound in recordings]
    sounds.append(np.zeros(600 * rate_hz, np.float32))
    return {
        "n_clips": len(clean),
        "speakers": sorted({clip.speaker for clip, _ in clean}),
        "offline_uar": round(np.mean([offline(Model(p), clips) for p, clips, *_ in tests]), 2),
        "uar": recalls,
        "median_s_to_right_and_stable": round(float(np.median(right)), 2) if right else None,
        "n_right_and_stable": len(right),
        "label_changes_per_minute": round(sum(a.changes for _, a in clean) / minutes, 2),
        "non_speech": {
            gate: false_alarms(opened[0], gate, sounds)
            for gate in ("voice", "off")
            if not only or "non-speech" in only
        },
    }


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m train.conditions", description=__doc__)
    parser.add_argument("models", type=Path, nargs="+", help=".tflite files, cards beside them")
    parser.add_argument("--corpus", choices=corpora.LAYOUTS, default="emodb")
    parser.add_argument("--data", type=Path, help="the corpus's folder; default: $SER_DATA/CORPUS")
    parser.add_argument("--noise", type=Path, help="the folder above esc10/ and rir/: $SER_DATA")
    parser.add_argument("--only", nargs="+", default=(), metavar="WORD",
        help="conditions whose names begin so, e.g. known enrolled; default: all")  # fmt: skip
    parser.add_argument("--jobs", type=count, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON file")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def main(argv: list[str] | None = None) -> int:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    args = build_parser().parse_args(argv)

    def run() -> None:
        folder = data_folder(args.corpus, args.data)
        corpus = corpora.load(args.corpus, folder)
        noise = args.noise or Path(os.environ.get("SER_DATA", folder.parent))
        found = study(args.models, corpus, noise, args.jobs, tuple(args.only))
        precision = {str(Model(path).card.file.precision) for path in args.models}  # type: ignore[union-attr]
        written = {"precision": sorted(precision), "hardware": hardware()}
        write_json(args.out, written | {"date": date.today().isoformat()} | found)
        Console().print(found)

    return exit_code(run, args.debug)


if __name__ == "__main__":
    sys.exit(main())
