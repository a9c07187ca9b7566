import dataclasses

import numpy as np
import pytest

from edge.frontend import LOG_MEL, STREAM, feature_rows
from edge.speaker import MEMORY_S, SpeakerNorm, Statistics, adapted

RNG = np.random.default_rng(0)


def rows(n, shift=0.0):
    """Return rows of a voice that is ``shift`` dB louder: bands, pitch and voicing."""
    shape = np.concatenate([np.linspace(-20, -60, 64) + shift, [12, 0]])
    return (shape + RNG.normal(size=(n, 66)) * 8).astype(np.float32)


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
        heard = feature_rows((samples * gain).astype(np.float32), frontend)
        norm = SpeakerNorm(frontend)
        norm.hear(heard)
        answers.append(norm.normalize(heard))
    np.testing.assert_allclose(answers[1], answers[0], atol=1e-3)


def test_a_louder_voice_is_no_higher_one(frontend):
    quiet = rows(500)
    loud = quiet + np.concatenate([np.full(64, 20.0), [0, 0]]).astype(np.float32)
    found = [adapted(frontend, Statistics.of(r)) for r in (quiet, loud)]
    np.testing.assert_allclose(found[1].mean[:64] - found[0].mean[:64], 20, atol=1e-3)
    np.testing.assert_allclose(found[1].mean[64:], found[0].mean[64:], atol=1e-6)
    np.testing.assert_allclose(found[1].variance, found[0].variance, rtol=1e-5)


def test_a_telephone_does_not_pass_for_a_quiet_voice(frontend):
    studio = Statistics.of(rows(500))
    dull = dataclasses.replace(studio, mean=studio.mean - np.r_[np.zeros(50), [60] * 14, 0, 0])
    found = [adapted(frontend, heard).mean[10] for heard in (studio, dull)]
    assert found[0] == found[1]


def test_a_silent_band_is_the_microphones_however_silent_it_is(frontend):
    voice, answers = rows(150), []
    for missing_db in (40, 400):
        heard = voice.copy()
        heard[:, 60] -= missing_db
        answers.append(adapted(frontend, Statistics.of(heard)).normalize(heard))
    np.testing.assert_allclose(*answers, atol=1e-3)


def test_what_was_heard_long_ago_fades(frontend):
    norm = SpeakerNorm(frontend)
    hour = Statistics(3600 * 50, np.full(66, -10.0), np.full(66, 4.0))
    norm.heard = hour
    norm.hear(rows(1))
    assert norm.heard.n_rows == MEMORY_S * 50


def test_reset_goes_back_to_what_was_known(frontend):
    known = Statistics.of(rows(500, shift=-10))
    norm = SpeakerNorm(frontend, known)
    before = norm.normalize(rows(3) * 0)
    norm.hear(rows(1000, shift=20))
    norm.reset()
    assert np.array_equal(norm.normalize(rows(3) * 0), before)
    np.testing.assert_allclose(norm.statistics.mean, adapted(frontend, known).mean)


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
