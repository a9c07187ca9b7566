import numpy as np
import pytest

from edge.frontend import LOG_MEL, STREAM, feature_rows
from train.augment import (
    RESPONSE_DB,
    RESPONSE_HZ,
    Circumstance,
    band,
    changed,
    circumstances,
    clipped,
    microphone,
    noise,
    reverberant,
    room,
    with_noise,
)

RATE = 16_000


def tone(hz=1000.0, n=RATE):
    return (0.1 * np.sin(2 * np.pi * hz * np.arange(n) / RATE)).astype(np.float32)


def power(samples):
    return float(np.mean(np.square(samples, dtype=np.float64)))


@pytest.mark.parametrize("snr_db", [0, 10, 20])
def test_noise_lies_as_far_below_as_it_says(snr_db):
    speech, rng = tone(), np.random.default_rng(0)
    heard = with_noise(speech, noise(len(speech), 1.0, rng), snr_db)
    assert 10 * np.log10(power(speech) / power(heard - speech)) == pytest.approx(snr_db, abs=0.01)


@pytest.mark.parametrize("colour", [0.0, 1.0, 2.0])
def test_the_colour_is_the_slope_of_the_spectrum(colour):
    spectrum = np.abs(np.fft.rfft(noise(2**16, colour, np.random.default_rng(1)))) ** 2
    low, high = spectrum[1000:1100].mean(), spectrum[10_000:11_000].mean()
    assert np.log10(low / high) == pytest.approx(colour * np.log10(10.0), abs=0.25)


def test_a_faster_clip_is_shorter_and_higher():
    faster = changed(tone(1000), RATE, Circumstance(speed=1.25), np.random.default_rng(0))
    assert len(faster) == RATE / 1.25
    peak = np.abs(np.fft.rfft(faster)).argmax() * RATE / len(faster)
    assert peak == pytest.approx(1250, abs=2)


def test_a_room_keeps_length_and_loudness():
    speech = tone()
    speech[RATE // 2 :] = 0
    wet = reverberant(speech, room(RATE, np.random.default_rng(3)))
    assert len(wet) == len(speech)
    assert power(wet) == pytest.approx(power(speech), rel=1e-3)
    assert power(wet[RATE // 2 :]) > 0  # it rings on


def test_a_telephone_passes_the_middle_only():
    mixed = tone(100) + tone(1000) + tone(5000)
    np.testing.assert_allclose(band(mixed, RATE, 300, 3400), tone(1000), atol=1e-5)


def test_what_is_too_loud_is_cut_off():
    heard = clipped(tone(), 6.0)
    assert np.abs(heard).max() == 1
    np.testing.assert_allclose(heard, np.clip(tone() * 19.95, -1, 1), atol=1e-3)
    assert np.abs(clipped(np.zeros(5, "f4"), 6.0)).max() == 0


def test_a_microphone_adds_to_every_row_what_its_filter_would():
    rng = np.random.default_rng(4)
    samples = (0.1 * rng.normal(size=2 * RATE)).astype(np.float32)
    hz = np.maximum(np.fft.rfftfreq(len(samples), 1 / RATE), RESPONSE_HZ[0])
    drawn = np.random.default_rng(0).uniform(*RESPONSE_DB, len(RESPONSE_HZ))
    gain = 10 ** (np.interp(np.log(hz), np.log(RESPONSE_HZ), drawn) / 20)
    through = np.fft.irfft(np.fft.rfft(samples) * gain).astype(np.float32)
    for frontend in (LOG_MEL, STREAM):
        added = microphone(frontend, np.random.default_rng(0))
        found = (feature_rows(through, frontend) - feature_rows(samples, frontend)).mean(axis=0)
        n = frontend.n_mfcc or frontend.n_mels
        # Within a band the gain is not quite even.
        np.testing.assert_allclose(added[:n], found[:n], atol=0.5)
        np.testing.assert_array_equal(added[n:], 0)


def test_a_speaker_keeps_their_circumstances_and_shares_them_with_nobody():
    mine, again, yours = (
        circumstances(speaker, RATE, (0.9, 1.1), 3) for speaker in ("03", "03", "08")
    )
    assert [how.speed for how in mine[:2]] == [0.9, 1.1]
    assert [how.snr_db for how in mine] == [how.snr_db for how in again]
    assert len(mine) == 5
    assert {how.snr_db for how in mine[2:]}.isdisjoint({how.snr_db for how in yours[2:]})
