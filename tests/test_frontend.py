import dataclasses

import librosa
import numpy as np
import pytest

from edge.audio import read_file
from edge.frontend import (
    LOG_MEL,
    LOWEST_HZ,
    PUBLISHED,
    STREAM,
    FeatureStream,
    Frontend,
    feature_rows,
)
from train import corpora

RECIPES = pytest.mark.parametrize("frontend", [PUBLISHED, STREAM], ids=["published", "stream"])


def by_librosa(samples, frontend):
    mel = librosa.feature.melspectrogram(
        y=samples,
        sr=frontend.sample_rate_hz,
        n_fft=frontend.n_fft,
        hop_length=frontend.hop_samples,
        center=frontend.centred,
        n_mels=frontend.n_mels,
        fmin=frontend.low_hz,
        fmax=frontend.high_hz,
    )
    db = librosa.power_to_db(mel, amin=frontend.floor_power, top_db=frontend.top_db)
    return librosa.feature.mfcc(S=db, n_mfcc=frontend.n_mfcc).T


def noise(n, seed=0):
    return (0.1 * np.random.default_rng(seed).normal(size=n)).astype(np.float32)


def voice(hz, n=16_000, rate=16_000):
    """Return a tone with the falling harmonics of a voice."""
    t = np.arange(n) / rate
    harmonics = range(1, int(4000 / hz) + 1)
    return sum(0.1 / k * np.sin(2 * np.pi * k * hz * t) for k in harmonics).astype(np.float32)


@pytest.mark.parametrize("hz", [80, 100, 147, 220, 330])
@pytest.mark.parametrize("gain_db", [0, -40])
def test_pitch_is_that_of_a_voice_at_any_level(hz, gain_db):
    found = feature_rows(voice(hz) * np.float32(10 ** (gain_db / 20)), LOG_MEL)[:, -2:]
    np.testing.assert_allclose(found[:, 0], 12 * np.log2(hz / LOWEST_HZ), atol=0.7)
    assert found[:, 1].min() > 0.45


def test_noise_and_silence_have_no_voicing():
    for samples in (noise(16_000), np.zeros(16_000, np.float32)):
        assert feature_rows(samples, LOG_MEL)[:, -1].max() < 0.3


def test_pitch_agrees_with_yin_on_speech(clips):
    import librosa

    samples = read_file(clips[0].path, LOG_MEL.sample_rate_hz)
    found = feature_rows(samples, LOG_MEL)[:, -2:]
    hz = librosa.yin(
        samples.astype(float), fmin=70, fmax=600, sr=16_000, frame_length=1024, hop_length=320,
        center=False,
    )[: len(found)]  # fmt: skip
    semitones = 12 * np.log2(hz / LOWEST_HZ)
    voiced = found[: len(hz), 1] > 0.35
    assert voiced.sum() > 20
    assert np.mean(np.abs(found[: len(hz), 0] - semitones)[voiced] < 1) > 0.85


def test_pitch_needs_long_frames():
    with pytest.raises(ValueError, match="pitch needs frames of two periods"):
        dataclasses.replace(LOG_MEL, n_fft=320)


@RECIPES
def test_batch_equals_librosa_on_shipped_clips(frontend, clips):
    for clip in clips:
        samples = read_file(clip.path, frontend.sample_rate_hz)
        np.testing.assert_allclose(
            feature_rows(samples, frontend), by_librosa(samples, frontend), rtol=0, atol=1e-3
        )


def test_published_recipe_is_librosas_default(clips):
    samples = read_file(clips[0].path, 22_050)
    expected = librosa.feature.mfcc(y=samples, sr=22_050, n_mfcc=39).T
    np.testing.assert_allclose(feature_rows(samples, PUBLISHED), expected, rtol=0, atol=1e-3)


@RECIPES
def test_batch_equals_librosa_on_all_of_emodb(frontend, emodb):
    clips = corpora.load("emodb", emodb).clips
    assert len(clips) == 535
    for clip in clips:
        samples = read_file(clip.path, frontend.sample_rate_hz)
        difference = np.abs(feature_rows(samples, frontend) - by_librosa(samples, frontend)).max()
        assert difference < 1e-3, clip.path


@RECIPES
def test_silence_gives_the_floor(frontend):
    rows = feature_rows(np.zeros(frontend.sample_rate_hz, np.float32), frontend)
    lowest = 10 * np.log10(frontend.floor_power) * np.sqrt(frontend.n_mels)
    np.testing.assert_allclose(rows[:, 0], lowest, rtol=1e-6)
    np.testing.assert_allclose(rows[:, 1:], 0, atol=1e-4)


@pytest.mark.parametrize("size", [1, 160, 333, 1024, 16_000, "random"])
def test_stream_equals_batch(size):
    samples = noise(16_000 if size == 1 else 50_000)
    rng = np.random.default_rng(1)
    stream, rows, start = FeatureStream(STREAM), [], 0
    while start < len(samples):
        n = int(rng.integers(0, 3000)) if size == "random" else size
        rows.append(stream.push(samples[start : start + n]))
        start += n
    np.testing.assert_allclose(
        np.concatenate(rows), feature_rows(samples, STREAM), rtol=0, atol=1e-5
    )


def test_each_row_comes_as_soon_as_its_samples_are_there():
    stream = FeatureStream(STREAM)
    assert len(stream.push(noise(STREAM.n_fft - 1))) == 0
    assert len(stream.push(noise(1))) == 1
    assert len(stream.push(noise(STREAM.hop_samples - 1))) == 0
    assert len(stream.push(noise(1))) == 1


def test_stream_computes_each_frame_once(monkeypatch):
    counted = []
    real = np.fft.rfft
    monkeypatch.setattr(np.fft, "rfft", lambda x, **kw: counted.append(len(x)) or real(x, **kw))
    stream = FeatureStream(STREAM)
    n_rows = sum(len(stream.push(noise(1600, seed))) for seed in range(50))
    assert sum(counted) == n_rows == STREAM.n_rows(50 * 1600)


def test_reset_forgets():
    stream = FeatureStream(STREAM)
    stream.push(noise(777))
    stream.reset()
    np.testing.assert_array_equal(stream.push(noise(5000, 2)), feature_rows(noise(5000, 2), STREAM))


@RECIPES
@pytest.mark.parametrize("n_samples", [2048, 2559, 2560, 30_001])
def test_n_rows_is_what_mfcc_gives(frontend, n_samples):
    assert len(feature_rows(noise(n_samples), frontend)) == frontend.n_rows(n_samples)


def test_n_samples_is_the_least_that_gives_the_rows():
    for n_rows in (1, 2, 78):
        n = STREAM.n_samples(n_rows)
        assert (STREAM.n_rows(n), STREAM.n_rows(n - 1)) == (n_rows, n_rows - 1)


def test_published_lengths_give_the_published_frames():
    assert PUBLISHED.n_rows(96_000) == 188
    assert PUBLISHED.n_rows(130_000) == 254


def test_normalization_gives_zero_mean_and_unit_deviation():
    rows = feature_rows(noise(80_000), STREAM)
    normalized = STREAM.with_normalization(rows).normalize(rows)
    assert normalized.dtype == np.float32
    np.testing.assert_allclose(normalized.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(normalized.std(axis=0), 1, atol=1e-4)


def test_a_constant_coefficient_stays_finite():
    rows = np.ones((10, STREAM.n_mfcc), np.float32)
    assert np.array_equal(STREAM.with_normalization(rows).normalize(rows), np.zeros_like(rows))


def test_json_keeps_everything():
    frontend = STREAM.with_normalization(feature_rows(noise(30_000), STREAM))
    assert Frontend.from_json(frontend.to_json()) == frontend


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"n_fft": 0}, "n_fft must be a whole number of at least 1"),
        ({"hop_samples": 2000}, "would skip samples"),
        ({"n_mfcc": 129}, "n_mfcc 129 is more than n_mels 128"),
        ({"high_hz": 9000.0}, "expected 0 <= low_hz < high_hz <= 8000"),
        ({"floor_power": 0.0}, "floor_power must be above 0"),
        ({"mean": (1.0,)}, "mean must hold 39 finite numbers or none, not 1"),
        ({"mean": (0.0,) * 39}, "mean and scale go together"),
        ({"mean": (0.0,) * 39, "scale": (0.0,) * 39}, "every scale is above 0"),
    ],
)
def test_a_wrong_recipe_is_refused(change, text):
    with pytest.raises(ValueError, match=text):
        dataclasses.replace(STREAM, **change)


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match=r"one-dimensional.*shape \(3, 2\)"):
        feature_rows(np.zeros((3, 2), np.float32), STREAM)
    with pytest.raises(ValueError, match="not int16"):
        feature_rows(np.zeros(3, np.int16), STREAM)
    with pytest.raises(ValueError, match="found NaN"):
        FeatureStream(STREAM).push(np.array([np.nan], np.float32))
    with pytest.raises(ValueError, match="have not been measured"):
        STREAM.normalize(np.zeros((1, 39), np.float32))


def test_a_recipe_that_needs_the_whole_clip_cannot_be_streamed():
    with pytest.raises(ValueError, match="cannot be streamed"):
        FeatureStream(PUBLISHED)


def test_unknown_fields_are_refused():
    with pytest.raises(ValueError, match="missing or unknown fields colour"):
        Frontend.from_json({**STREAM.to_json(), "colour": 1})
