import numpy as np
import pytest

from train.augment import (
    Circumstance,
    band,
    changed,
    circumstances,
    coloured,
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


def test_a_microphone_lifts_what_it_says_and_keeps_the_loudness():
    low, high = tone(300), tone(3000)
    heard = coloured(low + high, RATE, (0.0, 6.0, 0.0, -6.0, 0.0))
    assert power(heard) == pytest.approx(power(low + high), rel=1e-3)
    spectrum = np.abs(np.fft.rfft(heard))
    assert 20 * np.log10(spectrum[300] / spectrum[3000]) == pytest.approx(12, abs=0.1)


def test_a_speaker_keeps_their_circumstances_and_shares_them_with_nobody():
    mine, again, yours = (
        circumstances(speaker, RATE, (0.9, 1.1), 3) for speaker in ("03", "03", "08")
    )
    assert [how.speed for how in mine[:2]] == [0.9, 1.1]
    assert [how.snr_db for how in mine] == [how.snr_db for how in again]
    assert len(mine) == 5
    assert {how.snr_db for how in mine[2:]}.isdisjoint({how.snr_db for how in yours[2:]})
