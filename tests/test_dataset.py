import dataclasses

import numpy as np
import pytest

from edge.audio import read_file
from edge.events import Utterance
from edge.frontend import LOG_MEL, STREAM
from edge.model import Model
from edge.recognizer import Recognizer
from edge.speaker import SpeakerNorm, Statistics
from train import corpora
from train.dataset import (
    NOISY_SHARE,
    Heard,
    TrainingWindows,
    clip_features,
    corpus_features,
    device_windows,
)
from train.presets import Config

N_ROWS, N_CLIPS = 8, 400
FRONTEND = dataclasses.replace(
    STREAM, mean=(0.0,) * STREAM.n_features, scale=(1.0,) * STREAM.n_features
)


def drawn(n_noisy, short=0.0):
    """Return a window of each of many clips whose five versions hold their own number."""
    speech = np.ones(20, bool)
    clip = tuple(Heard(np.full((20, STREAM.n_features), v, np.float32), speech) for v in range(5))
    windows = TrainingWindows(
        [clip] * N_CLIPS, ["a"] * N_CLIPS, np.zeros(N_CLIPS, int), FRONTEND, N_ROWS,
        Config(short=short, n_noisy=n_noisy),
    )  # fmt: skip
    return windows.draw(np.random.default_rng(0))[0]


def test_a_window_comes_from_one_version_of_its_clip():
    windows = drawn(0)
    assert windows.shape == (N_CLIPS, N_ROWS, STREAM.n_features)
    assert (np.ptp(windows, axis=(1, 2)) == 0).all()
    counts = np.bincount(windows[:, 0, 0].astype(int), minlength=5) / N_CLIPS
    np.testing.assert_allclose(counts, 0.2, atol=0.08)


@pytest.mark.parametrize("n_noisy", [1, 3])
def test_the_share_of_noise_does_not_depend_on_how_many_noises_there_are(n_noisy):
    versions = drawn(n_noisy)[:, 0, 0]
    assert (versions >= 5 - n_noisy).mean() == pytest.approx(NOISY_SHARE, abs=0.08)
    assert set(np.unique(versions)) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("known_of", "known"),
    [
        ("all", ["012"]),
        ("nothing", ["0"]),
        ("some", ["0", "01", "02", "012"]),
        ("a mood", ["0", "01", "02"]),
    ],
)
def test_training_knows_of_a_speaker_what_was_drawn(monkeypatch, known_of, known):
    monkeypatch.setattr("train.dataset.P_KNOWN", {known_of: 1.0})
    speech = np.ones(N_ROWS, bool)
    rows = [np.full((N_ROWS, LOG_MEL.n_features), v, "f4") for v in (1, 3, 9)]
    clips = [(Heard(r, speech),) for r in rows]
    n = LOG_MEL.n_features
    frontend = dataclasses.replace(LOG_MEL, mean=(0.0,) * n, scale=(1.0,) * n)
    windows = TrainingWindows(clips, ["a"] * 3, np.array([0, 0, 1]), frontend, N_ROWS, Config())
    rng = np.random.default_rng(0)
    # What the first clip's pitch, which no level moves, looks like after each draw.
    drawn = {round(float(windows.draw(rng)[0][0, 0, -1]), 4) for _ in range(100)}
    heard = [np.concatenate([rows[int(i)] for i in clips]) for clips in known]
    expected = [SpeakerNorm(frontend, Statistics.of(r)).normalize(rows[0])[0, -1] for r in heard]
    assert drawn == {round(float(value), 4) for value in expected}


def test_who_is_known_sounds_alike_through_every_microphone(monkeypatch):
    rng = np.random.default_rng(0)
    rows = rng.normal(-50, 10, size=(2000, LOG_MEL.n_features)).astype("f4")
    clip = (Heard(rows, np.ones(len(rows), bool)),)
    frontend = LOG_MEL.with_normalization(rows)

    def windows(known_of):
        monkeypatch.setattr("train.dataset.P_KNOWN", {known_of: 1.0})
        return [
            TrainingWindows(
                [clip], ["a"], np.zeros(1, int), frontend, len(rows), Config(microphones=share)
            ).draw(np.random.default_rng(1))[0][0]
            for share in (0.0, 0.99)
        ]

    usual, other = windows("all")
    np.testing.assert_allclose(other, usual, atol=0.3)
    short = dataclasses.replace(clip[0], rows=rows[:20], speech=np.ones(20, bool))
    clip, rows = (short,), rows[:20]
    usual, other = windows("nothing")
    assert np.abs(other - usual).max() > 0.5


def test_training_hears_of_a_clip_what_the_device_hears(clips):
    model = Model()
    frontend = model.card.frontend
    n_alike = 0
    for clip in clips:
        samples = read_file(clip.path, frontend.sample_rate_hz)
        samples = np.pad(samples, (20_000, 20_000))
        offline, _ = device_windows(
            [clip_features(samples, frontend, 0)], model.card.n_rows, frontend
        )
        asked = []
        model.logits = lambda window, asked=asked: asked.append(window) or np.zeros(7, "f4")
        events = list(Recognizer(model).events([samples]))
        if sum(isinstance(event, Utterance) for event in events) > 1:
            continue  # a pause as long as between utterances
        live = np.stack(asked[-len(offline) :])
        np.testing.assert_allclose(live, offline, atol=1e-4)
        n_alike += 1
    assert n_alike > len(clips) / 2


def test_what_is_known_of_a_speaker_is_their_speech():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(20, STREAM.n_features)).astype("f4")
    heard = Heard(rows, np.arange(20) < 5)
    np.testing.assert_allclose(heard.statistics.mean, rows[:5].mean(axis=0), atol=1e-6)
    assert heard.statistics.n_rows == 5


def test_a_clip_without_speech_is_heard_whole():
    samples = np.zeros(10_000, np.float32)
    (heard,) = clip_features(samples, LOG_MEL, 0)
    assert len(heard.rows) == LOG_MEL.n_rows(len(samples))
    assert heard.speech.all()


def test_clips_read_beside_each_other_are_those_read_one_by_one(tiny_emodb):
    corpus = corpora.load("emodb", tiny_emodb)
    alone, beside = (
        list(corpus_features(corpus, LOG_MEL, 0, speeds=(1.1,), n_noisy=1, n_jobs=n_jobs))
        for n_jobs in (1, 2)
    )
    assert len(alone) == len(beside) == len(corpus.clips)
    for one, other in zip(alone, beside, strict=True):
        assert len(one) == len(other) == 3
        for heard, again in zip(one, other, strict=True):
            np.testing.assert_array_equal(heard.rows, again.rows)
            np.testing.assert_array_equal(heard.speech, again.speech)
