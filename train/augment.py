"""Other circumstances for the same clip: another tempo and pitch, room, noise and microphone.

A speaker keeps a circumstance over all clips, as a person keeps a room; so what an adaptive front
end gets to know of them in training is what it will get to know on the device. A microphone only
shifts log-mel features, so there is another one whenever a window is drawn. Everything is
synthetic: no recording of a noise or a room is needed to train, and those that the model is tested
with are new to it.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import soxr

from edge.frontend import Frontend, dct_basis, mel_centres_hz
from edge.study import in_room

# Assumed, all of them: what a microphone meets in a flat or an office.
SNR_DB = (5.0, 35.0)
REVERBERATION_S = (0.2, 1.2)  # time to fall by 60 dB
DIRECT_DB = (-12.0, 9.0)  # direct sound over reverberation
COLOUR = (0.0, 2.0)  # power falls as 1 / f ** colour: 0 is white, 1 pink, 2 brown
ROOM_COLOUR = (0.0, 1.0)  # the same of a room's reverberation: walls swallow high tones first
# A microphone, and a room whose walls ring, lift some frequencies and lose others.
RESPONSE_HZ = (100.0, 300.0, 1000.0, 3000.0, 8000.0)
RESPONSE_DB = (-12.0, 12.0)
LOUD_DB = (0.0, 12.0)  # of the loudest sample over what a recorder can hold
P_ROOM, P_TELEPHONE, P_LOUD = 0.5, 0.25, 0.25
LOW_EDGE_HZ, HIGH_EDGE_HZ = (200.0, 400.0), (3000.0, 4000.0)  # around TELEPHONE_HZ


@dataclass(frozen=True)
class Circumstance:
    """How a clip is changed.

    Attributes
    ----------
    speed : float
        Factor of tempo and pitch alike (Ko et al., Interspeech 2015): to training, a clip played
        faster or slower is another speaker's.
    snr_db, colour : float or None
        Level of the speech over a noise, and how the noise's power falls with frequency.
    room : float32, shape (n,), or None
        Impulse response.
    loud_db : float or None
        Level of the loudest sample over full scale, where it is clipped.
    band_hz : (float, float) or None
        What is left of the spectrum, as by a telephone.
    """

    speed: float = 1.0
    snr_db: float | None = None
    colour: float = 0.0
    room: np.ndarray | None = None
    loud_db: float | None = None
    band_hz: tuple[float, float] | None = None


def circumstances(
    speaker: str, rate_hz: int, speeds: tuple[float, ...], n_noisy: int
) -> list[Circumstance]:
    """Return circumstances for one speaker: each other speed, then ``n_noisy`` with noise."""
    rng = np.random.default_rng(zlib.crc32(speaker.encode()))
    noisy = [
        Circumstance(
            speed=float(rng.choice((1.0, *speeds))),
            snr_db=float(rng.uniform(*SNR_DB)),
            colour=float(rng.uniform(*COLOUR)),
            room=room(rate_hz, rng) if rng.random() < P_ROOM else None,
            loud_db=float(rng.uniform(*LOUD_DB)) if rng.random() < P_LOUD else None,
            band_hz=(
                (float(rng.uniform(*LOW_EDGE_HZ)), float(rng.uniform(*HIGH_EDGE_HZ)))
                if rng.random() < P_TELEPHONE
                else None
            ),
        )
        for _ in range(n_noisy)
    ]
    return [Circumstance(speed=speed) for speed in speeds] + noisy


def room(rate_hz: int, rng: np.random.Generator) -> np.ndarray:
    """Return an impulse response, float32: the direct sound, then noise that fades away."""
    fade_s, direct_db = rng.uniform(*REVERBERATION_S), rng.uniform(*DIRECT_DB)
    time_s = np.arange(round(fade_s * rate_hz)) / rate_hz
    tail = noise(len(time_s), float(rng.uniform(*ROOM_COLOUR)), rng) * 10 ** (-3 * time_s / fade_s)
    tail *= 10 ** (-direct_db / 20) / np.sqrt(np.sum(tail**2))
    tail[0] = 1.0
    return tail.astype(np.float32)


def changed(
    samples: np.ndarray, rate_hz: int, how: Circumstance, rng: np.random.Generator
) -> np.ndarray:
    """Return ``samples``, float32 (n,), as they would be heard in a circumstance."""
    if how.speed != 1:
        # To play faster is to claim a higher rate and resample to the one that is expected.
        samples = soxr.resample(samples, rate_hz * how.speed, rate_hz)
    if how.room is not None:
        samples = reverberant(samples, how.room)
    if how.snr_db is not None:
        samples = with_noise(samples, noise(len(samples), how.colour, rng), how.snr_db)
    if how.loud_db is not None:
        samples = clipped(samples, how.loud_db)
    if how.band_hz is not None:
        samples = band(samples, rate_hz, *how.band_hz)
    return samples.astype(np.float32, copy=False)


def reverberant(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Return ``samples`` in a room, as long and as loud as before."""
    wet = in_room(samples, response)
    gain = np.sqrt(np.mean(samples**2) / max(np.mean(wet**2), 1e-12))
    return (wet * gain).astype(np.float32)


def noise(n: int, colour: float, rng: np.random.Generator) -> np.ndarray:
    """Return ``n`` samples of noise whose power falls as 1 / f ** ``colour``."""
    spectrum = np.fft.rfft(rng.normal(size=n))
    frequency = np.maximum(np.arange(len(spectrum)), 1)
    return np.fft.irfft(spectrum / frequency ** (colour / 2), n)


def with_noise(samples: np.ndarray, added: np.ndarray, snr_db: float) -> np.ndarray:
    """Return ``samples`` with ``added``, as long, scaled to ``snr_db`` below them (mean powers)."""
    ratio = np.mean(samples**2) / max(np.mean(added**2), 1e-12)
    return (samples + added * np.sqrt(ratio / 10 ** (snr_db / 10))).astype(np.float32)


def clipped(samples: np.ndarray, loud_db: float) -> np.ndarray:
    """Return ``samples`` so loud that the loudest would be ``loud_db`` over full scale, clipped."""
    loudest = max(float(np.abs(samples).max(initial=0)), 1e-12)
    return np.clip(samples * (10 ** (loud_db / 20) / loudest), -1, 1).astype(np.float32)


def band(samples: np.ndarray, rate_hz: int, low_hz: float, high_hz: float) -> np.ndarray:
    """Return ``samples`` without what lies outside of a band."""
    spectrum = np.fft.rfft(samples)
    frequency = np.fft.rfftfreq(len(samples), 1 / rate_hz)
    spectrum[(frequency < low_hz) | (frequency > high_hz)] = 0
    return np.fft.irfft(spectrum, len(samples)).astype(np.float32)


def microphone(frontend: Frontend, rng: np.random.Generator) -> np.ndarray:
    """Return what another microphone adds to every feature row, float32 (n_features,).

    Its gains at `RESPONSE_HZ` are drawn; between those frequencies the gain in dB is linear over
    their logarithm, beyond them constant. Pitch and voicing stay what they are.
    """
    gains = rng.uniform(*RESPONSE_DB, len(RESPONSE_HZ))
    added = np.interp(np.log(mel_centres_hz(frontend)), np.log(RESPONSE_HZ), gains)
    if frontend.n_mfcc:
        added = added @ dct_basis(frontend.n_mels, frontend.n_mfcc)
    rest = np.zeros(frontend.n_features - len(added))
    return np.concatenate([added, rest]).astype(np.float32)
