import dataclasses

import numpy as np
import pytest

from edge.frontend import LOG_MEL, STREAM, mfcc
from edge.speaker import MEMORY_S, SpeakerNorm, Statistics, adapted, prior

RNG = np.random.default_rng(0)


def rows(n, shift=0.0):
    shape = np.linspace(-20, -60, 64)
    return (shape + shift + RNG.normal(size=(n, 64)) * 8).astype(np.float32)


@pytest.fixture
def frontend():
    return LOG_MEL.with_normalization(rows(1000))


def test_merged_statistics_are_those_of_all_rows():
    a, b = rows(17), rows(40, shift=12)
    merged, whole = Statistics.of(a).merged(Statistics.of(b)), Statistics.of(np.concatenate([a, b]))
    assert merged.n_rows == 57
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-6)
    np.testing.assert_allclose(merged.variance, whole.variance, rtol=1e-6)


def test_of_a_stranger_the_training_set_is_assumed(frontend):
    norm = SpeakerNorm(frontend)
    some = rows(5)
    expected = (some - np.array(frontend.mean)) / np.array(frontend.scale)
    np.testing.assert_allclose(norm.normalize(some), expected, atol=1e-4)


def test_speech_heard_counts_for_more_and_more(frontend):
    norm, voice = SpeakerNorm(frontend), rows(4000) * 0.5 - 30
    own = Statistics.of(voice)
    distances = []
    for n in (50, 200, 1000, 2750):
        norm.hear(voice[:n])
        voice = voice[n:]
        distances.append(np.abs(np.sqrt(norm.statistics.variance / own.variance) - 1).mean())
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 0.15 < distances[0]


def test_the_adaptation_does_not_depend_on_how_rows_arrive(frontend):
    voice = rows(300)
    one, many = SpeakerNorm(frontend), SpeakerNorm(frontend)
    one.hear(voice)
    for part in np.split(voice, [1, 40, 41, 200]):
        many.hear(part)
    np.testing.assert_allclose(many.normalize(voice), one.normalize(voice), atol=1e-5)


@pytest.mark.parametrize("gain_db", [-30, 12])
def test_the_gain_of_the_microphone_makes_no_difference(frontend, gain_db):
    samples = (RNG.normal(size=16_000) * 0.05).astype(np.float32)
    answers = []
    for gain in (1.0, 10 ** (gain_db / 20)):
        heard = mfcc((samples * gain).astype(np.float32), frontend)
        norm = SpeakerNorm(frontend)
        norm.hear(heard)
        answers.append(norm.normalize(heard))
    np.testing.assert_allclose(answers[1], answers[0], atol=1e-3)


def test_what_was_heard_long_ago_fades(frontend):
    norm = SpeakerNorm(frontend)
    hour = Statistics(3600 * 100, np.full(64, -10.0), np.full(64, 4.0))
    norm.heard = hour
    norm.hear(rows(1))
    assert norm.heard.n_rows == MEMORY_S * 100


def test_reset_goes_back_to_what_was_known(frontend):
    known = Statistics.of(rows(500, shift=-10))
    norm = SpeakerNorm(frontend, known)
    before = norm.normalize(rows(3) * 0)
    norm.hear(rows(1000, shift=20))
    norm.reset()
    assert np.array_equal(norm.normalize(rows(3) * 0), before)
    np.testing.assert_allclose(norm.statistics.mean, adapted(prior(frontend), known).mean)


def test_a_front_end_that_does_not_adapt_stays_what_it_is():
    frontend = STREAM.with_normalization(RNG.normal(size=(100, 39)))
    norm, some = SpeakerNorm(frontend), RNG.normal(size=(5, 39)).astype(np.float32)
    before = norm.normalize(some)
    norm.hear(some * 9)
    assert np.array_equal(norm.normalize(some), before)


def test_nothing_is_normalised_before_it_was_measured():
    with pytest.raises(ValueError, match="mean and scale have not been measured"):
        SpeakerNorm(LOG_MEL)


def test_a_cepstrum_cannot_adapt():
    with pytest.raises(ValueError, match="adapt_s needs features that are all levels"):
        dataclasses.replace(STREAM, adapt_s=2.0)
