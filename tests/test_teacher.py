"""What the teacher makes of speech, and the lessons that a network learns from it."""

import dataclasses

import numpy as np
import pytest

from edge.audio import read_file
from edge.frontend import LOG_MEL
from train.dataset import Heard, TrainingWindows, clip_features
from train.fit import Trainer
from train.presets import Config
from train.teacher import FRAME_SAMPLES, N_DIRECTIONS, RATE_HZ, SPAN_SAMPLES, Lessons, frames

SMALL = Config(n_blocks=2, n_filters=8, batch_size=16, learning_rate=1e-2)


@pytest.fixture(scope="module")
def speech(clips):
    return read_file(clips[0].path, RATE_HZ)


def made_up(n_clips=60, n_frames=40, width=6):
    rng = np.random.default_rng(0)
    return [rng.normal(rng.normal(size=width), 1, (n_frames, width)) for _ in range(n_clips)]


def test_the_teacher_answers_as_the_model_that_it_was_cut_from(speech):
    rows = frames(speech)
    assert rows.shape == (len(speech) // FRAME_SAMPLES, 384)
    # Measured: this clip through the whole model, computed in float.
    expected = [0.587, 0.698, 0.642, 0.414, 0.689, 0.906, 0.937, -0.317]
    np.testing.assert_allclose(rows[50, :8], expected, atol=0.005)


def test_what_is_longer_than_the_teacher_hears_is_heard_in_parts(speech):
    long = np.resize(speech, SPAN_SAMPLES + 16_000)
    rows = frames(long)
    assert len(rows) == len(long) // FRAME_SAMPLES
    np.testing.assert_array_equal(rows[:50], frames(long[:16_000]))
    np.testing.assert_array_equal(rows[50:], frames(long[16_000:]))


@pytest.mark.parametrize(("n", "n_rows"), [(10, 1), (SPAN_SAMPLES + 10, 400)])
def test_a_moment_is_a_row_only_where_there_is_no_other(n, n_rows):
    assert frames(np.ones(n, np.float32)).shape == (n_rows, 384)


def test_a_lesson_is_of_the_window_and_nothing_else():
    clips = made_up()
    speakers = ["a", "b"] * 30
    whole = Lessons(clips, speakers)
    spans = np.array([[0.1, 0.5]] * len(clips))
    there = whole.of(spans)
    assert there.shape == (len(clips), N_DIRECTIONS)
    # Frames 5 to 25 of 20 ms: what lies outside may be anything as long as the speaker's and all
    # clips' statistics are the same, so here it changes places.
    turned = [np.concatenate([c[:5], c[5:25], c[25:][::-1]]) for c in clips]
    np.testing.assert_allclose(Lessons(turned, speakers).of(spans), there, atol=1e-4)
    moved = [np.concatenate([c[25:], c[:25]]) for c in clips]
    assert np.abs(Lessons(moved, speakers).of(spans) - there).max() > 0.5


def test_who_speaks_is_no_part_of_a_lesson():
    clips, speakers = made_up(), ["a", "b"] * 30
    shifted = [c + 5 * (s == "a") for c, s in zip(clips, speakers, strict=True)]
    spans = np.array([[0.0, 0.8]] * len(clips))
    np.testing.assert_allclose(
        Lessons(shifted, speakers).of(spans), Lessons(clips, speakers).of(spans), atol=1e-4
    )


def test_who_predicts_nothing_has_a_loss_of_one():
    clips = made_up()
    lessons = Lessons(clips, ["a"] * len(clips)).of(np.array([[0.0, 0.8]] * len(clips)))
    used = np.flatnonzero(np.any(lessons, axis=0))
    np.testing.assert_allclose(lessons.mean(axis=0), 0, atol=1e-4)
    assert np.mean(lessons[:, used] ** 2) == pytest.approx(1, abs=1e-3)


def test_few_clips_and_short_ones_have_lessons_too():
    clips = [np.ones((1, 4)), np.arange(8.0).reshape(2, 4)]
    lessons = Lessons(clips, ["a", "b"]).of(np.array([[0.0, 0.0], [0.0, 9.0]]))
    assert lessons.shape == (2, N_DIRECTIONS)
    assert np.isfinite(lessons).all()


def test_a_window_says_which_seconds_of_its_clip_it_holds():
    speech = np.ones(300, bool)
    frontend = dataclasses.replace(LOG_MEL, mean=(0.0,) * 66, scale=(1.0,) * 66, adapt_s=0.0)
    # Every row holds the second of the clip that it begins in.
    row_s = frontend.hop_samples / frontend.sample_rate_hz
    clip = tuple(
        Heard(
            np.repeat(np.arange(n)[:, None] * row_s * speed, 66, 1).astype("f4"), speech[:n], speed
        )
        for n, speed in ((300, 1.0), (200, 1.5))
    )
    config = Config(short=0.5)
    windows = TrainingWindows([clip] * 50, ["a"] * 50, np.zeros(50, int), frontend, 100, config)
    drawn, spans_s = windows.draw(np.random.default_rng(0))
    np.testing.assert_allclose(spans_s[:, 0], drawn[:, 0, 0], atol=1e-5)
    assert np.ptp(spans_s[:, 1] - spans_s[:, 0]) > 0.3  # some are not full
    last = drawn.max(axis=(1, 2))
    assert (spans_s[:, 1] > last).all()
    assert (spans_s[:, 1] < last + 2 * row_s).all()


def test_the_teacher_hears_a_clip_as_the_device_does(speech):
    (heard,) = clip_features(np.pad(speech, 16_000), LOG_MEL, 0, taught=True)
    n_rows = len(heard.rows) * LOG_MEL.hop_samples // FRAME_SAMPLES
    assert abs(len(heard.taught) - n_rows) <= 2  # without the silence around it
    assert clip_features(speech, LOG_MEL, 0)[0].taught is None


def test_a_network_learns_its_lessons_besides_the_labels():
    rng = np.random.default_rng(0)
    windows = rng.normal(size=(64, 30, 39)).astype("f4")
    windows += rng.normal(size=(64, 1, 39)).astype("f4")
    lessons = np.zeros((64, N_DIRECTIONS), "f4")
    lessons[:, :8] = windows.mean(axis=1)[:, :8]
    labels = np.zeros(64, int)  # nothing to be learnt from
    untaught = Trainer(SMALL, 30, 39, 3)
    trainer = Trainer(dataclasses.replace(SMALL, taught=1.0), 30, 39, 3)
    assert len(trainer.model.weights) == len(untaught.model.weights)

    def loss():
        ((blocks, _),) = trainer.model.each(windows)
        predicted = np.array(trainer._pupils[0](np.concatenate(blocks, axis=1)))
        return float(np.mean((predicted - lessons)[:, :8] ** 2))

    trainer.reset(0)
    before = loss()
    for _ in range(100):
        trainer.epoch(windows, labels, rng, lessons=lessons)
    assert loss() < 0.5 * before
    trainer.reset(0)
    assert loss() == pytest.approx(before)
