"""What the model hears: mel bands or cepstral coefficients, and pitch, in NumPy alone.

Training, conversion, the device and the tests all come here. A `Frontend` is stored in the card
beside every model, so the device computes what the model was trained on or refuses to start.

`feature_rows` answers for a whole waveform, `FeatureStream` for the same waveform in blocks of any
size. Both run the same few lines over the same frames (`_power`, `_rows`), in float64, so they
agree to rounding whatever the block size, the NumPy version or the processor.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

_Rows = TypeVar("_Rows", int, np.ndarray)

# Assumed: from the lowest man's voice to a scream, in steps of about two thirds of a semitone.
LOWEST_HZ, HIGHEST_HZ, N_CANDIDATES = 70.0, 600.0, 60
N_PITCH = 2  # features: pitch, voicing
# Assumed: harmonics of a voice stand out in this range.
PITCH_BAND_HZ = (50.0, 4000.0)
PITCH_FLOOR = 1e-9  # Assumed: far below the power of anything that is heard.
PITCH_SHARPNESS = 30.0  # Assumed: a candidate that is better by 0.1 weighs 20 times as much.
PITCH_PREFERENCE = 0.02  # Assumed: of a pitch over its lower octave, which is as periodic.
WINDOW_LEAST = 0.2  # Assumed: the window's own autocorrelation below which too little is left.


@dataclass(frozen=True)
class Frontend:
    """The recipe from samples to feature rows.

    Attributes
    ----------
    sample_rate_hz : int
        Rate of the samples that the recipe expects.
    n_fft : int
        Samples in one frame, all of them under the periodic Hann window.
    hop_samples : int
        Samples from one frame to the next.
    n_mels : int
        Bands of the mel filter bank (Slaney's scale, each filter of unit area).
    low_hz, high_hz : float
        Range of the filter bank.
    n_mfcc : int
        Cepstral coefficients kept, the 0th included; 0: no cepstrum, the features are the bands
        of the log-mel spectrum.
    pitch : bool
        Whether pitch and voicing (`pitch`) follow as the last two features.
    centred : bool
        Whether frame ``i`` is centred on sample ``i * hop_samples`` (with ``n_fft // 2`` zeros
        before the first and after the last sample), or starts there.
    floor_power : float
        Mel power below which everything is alike: ``10 * log10(floor_power)`` is the lowest dB.
    top_db : float or None
        If set, also nothing lower than this many dB below the loudest band of the whole clip.
        A clip has to have ended for that, so such a recipe cannot be streamed.
    mean, scale : tuple of float, or empty
        Per feature, of the training set: ``(feature - mean) / scale`` is what the model is given
        when nothing is known of the speaker. Empty: not yet measured, and `normalize` refuses.
    adapt_s : float
        If above 0, the speaker's own mean and scale take the place of the training set's as speech
        is heard; those count like so many seconds of it (`edge.speaker`).
    """

    sample_rate_hz: int
    n_fft: int
    hop_samples: int
    n_mels: int
    n_mfcc: int
    low_hz: float
    high_hz: float
    centred: bool
    floor_power: float
    top_db: float | None
    pitch: bool = False
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    adapt_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("sample_rate_hz", "n_fft", "hop_samples", "n_mels", "n_mfcc"):
            value = getattr(self, name)
            least = 0 if name == "n_mfcc" else 1
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(
                    f"front end: {name} must be a whole number of at least {least}, not {value!r}"
                )
        if self.hop_samples > self.n_fft:
            raise ValueError(
                f"front end: hop_samples {self.hop_samples} is more than n_fft {self.n_fft}, "
                "which would skip samples"
            )
        if self.n_mfcc > self.n_mels:
            raise ValueError(f"front end: n_mfcc {self.n_mfcc} is more than n_mels {self.n_mels}")
        if not 0 <= self.low_hz < self.high_hz <= self.sample_rate_hz / 2:
            raise ValueError(
                f"front end: expected 0 <= low_hz < high_hz <= {self.sample_rate_hz / 2:g}, "
                f"not {self.low_hz:g} and {self.high_hz:g}"
            )
        if self.pitch and self.sample_rate_hz > LOWEST_HZ * self.n_fft / 2:
            raise ValueError(
                f"front end: pitch needs frames of two periods of {LOWEST_HZ:g} Hz, not n_fft = "
                f"{self.n_fft}"
            )
        if not self.floor_power > 0:
            raise ValueError(f"front end: floor_power must be above 0, not {self.floor_power!r}")
        if not 0 <= self.adapt_s < float("inf"):
            raise ValueError(f"front end: adapt_s must be at least 0, not {self.adapt_s!r}")
        if self.adapt_s and self.n_mfcc:
            raise ValueError("front end: adapt_s needs features that are all levels: n_mfcc = 0")
        for name in ("mean", "scale"):
            values = tuple(float(v) for v in getattr(self, name))
            if len(values) not in (0, self.n_features) or not np.all(np.isfinite(values)):
                raise ValueError(
                    f"front end: {name} must hold {self.n_features} finite numbers or none, "
                    f"not {len(values)}"
                )
            object.__setattr__(self, name, values)
        if any(s <= 0 for s in self.scale) or len(self.mean) != len(self.scale):
            raise ValueError("front end: mean and scale go together, and every scale is above 0")

    @property
    def n_features(self) -> int:
        """Features in a row."""
        return (self.n_mfcc or self.n_mels) + (N_PITCH if self.pitch else 0)

    @property
    def streamable(self) -> bool:
        """Whether a row needs no sample but its own frame's."""
        return not self.centred and self.top_db is None

    def n_rows(self, n_samples: int) -> int:
        """Return how many rows ``n_samples`` samples give."""
        if self.centred:
            n_samples += 2 * (self.n_fft // 2)
        return max(0, 1 + (n_samples - self.n_fft) // self.hop_samples)

    def n_samples(self, n_rows: int) -> int:
        """Return how many samples ``n_rows`` rows (at least one) are computed from."""
        span = self.n_fft + (n_rows - 1) * self.hop_samples
        return span - 2 * (self.n_fft // 2) if self.centred else span

    def middle(self, row: _Rows) -> _Rows:
        """Return the sample in the middle of a row's frame, if frames are not centred."""
        return row * self.hop_samples + self.n_fft // 2

    def with_normalization(self, rows: np.ndarray) -> Frontend:
        """Return this recipe with mean and scale of ``rows``, shape (n, n_features).

        The scale is the standard deviation.
        """
        rows = np.asarray(rows, np.float64)
        # A coefficient that never varies carries nothing; unit scale keeps it finite.
        spread = rows.std(axis=0)
        return dataclasses.replace(
            self,
            mean=tuple(rows.mean(axis=0).tolist()),
            scale=tuple(np.where(spread > 1e-6, spread, 1.0).tolist()),
        )

    def normalize(self, rows: np.ndarray) -> np.ndarray:
        """Return ``(rows - mean) / scale`` as float32, shape (..., n_features)."""
        if not self.mean:
            raise ValueError("front end: mean and scale have not been measured yet")
        deviation: np.ndarray = rows - np.asarray(self.mean, np.float32)
        return (deviation / np.asarray(self.scale, np.float32)).astype(np.float32, copy=False)

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary that `from_json` turns back into an equal front end."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Frontend:
        """Read what `to_json` wrote; ValueError names a field that is missing or unknown."""
        known = {field.name for field in dataclasses.fields(cls)}
        if wrong := known.symmetric_difference(stored):
            raise ValueError(f"front end: missing or unknown fields {', '.join(sorted(wrong))}")
        return cls(**stored)


# Cited: librosa 0.11's defaults as TIM-Net's published code calls it, librosa.feature.mfcc(
# y, sr=22050, n_mfcc=39). (The paper's text says 50 ms, 12.5 ms and Hamming; the code does not.)
PUBLISHED = Frontend(
    sample_rate_hz=22_050, n_fft=2048, hop_samples=512, n_mels=128, n_mfcc=39,
    low_hz=0.0, high_hz=11_025.0, centred=True, floor_power=1e-10, top_db=80.0,
)  # fmt: skip

# Assumed: the same cepstrum for a live stream, at the rate of most speech corpora. A 64 ms frame
# still resolves the harmonics of a voice; 25 ms steps give 40 rows a second. The floor of -80 dB
# (1e-8) lies above the rounding noise of 16-bit audio, so that digital silence and a quiet
# recorder look alike; no statistic of the clip is used.
STREAM = Frontend(
    sample_rate_hz=16_000, n_fft=1024, hop_samples=400, n_mels=128, n_mfcc=39,
    low_hz=0.0, high_hz=8_000.0, centred=False, floor_power=1e-8, top_db=None,
)  # fmt: skip

# Assumed: log-mel bands of 64 ms frames, which resolve the harmonics of a voice, every 20 ms;
# nothing below 50 Hz, where rooms hum and no voice speaks. The training set's statistics count
# like 2 s.
LOG_MEL = Frontend(
    sample_rate_hz=16_000, n_fft=1024, hop_samples=320, n_mels=64, n_mfcc=0, low_hz=50.0,
    high_hz=8_000.0, centred=False, floor_power=1e-10, top_db=None, pitch=True, adapt_s=2.0,
)  # fmt: skip


def feature_rows(samples: np.ndarray, frontend: Frontend) -> np.ndarray:
    """Return the features of a waveform, one row per frame.

    Parameters
    ----------
    samples : float32, shape (n_samples,)
        Mono waveform in [-1, 1] at ``frontend.sample_rate_hz``.

    Returns
    -------
    float32, shape (n_rows, n_features)
        Orthonormal DCT-II of the log-mel spectrum, in dB, or that spectrum itself; then pitch and
        voicing, if the front end has them. Not normalised. Samples after the last whole frame are
        not heard.

    Raises
    ------
    ValueError
        If ``samples`` is not one-dimensional floating point, or not finite.

    Notes
    -----
    After Davis and Mermelstein (1980); agrees with ``librosa.feature.mfcc`` to 1e-3 dB.
    """
    samples = _checked(samples)
    if frontend.centred:
        samples = np.pad(samples, frontend.n_fft // 2)
    return _rows(_power(_frames(samples, frontend), frontend), frontend)


class FeatureStream:
    """`feature_rows` of an endless waveform that arrives in blocks of any size.

    Parameters
    ----------
    frontend : Frontend
        A streamable recipe: not centred and without ``top_db``.
    """

    def __init__(self, frontend: Frontend) -> None:
        if not frontend.streamable:
            raise ValueError(
                "this front end cannot be streamed: centred frames and top_db need the whole clip; "
                "expected centred = false and top_db = null (train with --frontend logmel)"
            )
        self.frontend = frontend
        self.reset()

    def reset(self) -> None:
        """Forget all samples, as if nothing had been pushed."""
        self._pending = np.zeros(0, np.float32)

    def push(self, block: np.ndarray) -> np.ndarray:
        """Take the next samples (n,); return the rows (k, n_features) that they complete.

        Each row is returned once and equals the row of `feature_rows` over everything pushed so
        far, to 1e-5. Samples kept for the next frame never exceed one frame, so the work for a
        second of audio is the same however long the stream is.
        """
        pending = np.concatenate([self._pending, _checked(block)])
        rows = _rows(_power(_frames(pending, self.frontend), self.frontend), self.frontend)
        self._pending = pending[len(rows) * self.frontend.hop_samples :].copy()
        return rows


def _checked(samples: np.ndarray) -> np.ndarray:
    samples = np.asarray(samples)
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(
            "samples: expected a one-dimensional floating-point waveform in [-1, 1], "
            f"not {samples.dtype} of shape {samples.shape}"
        )
    if not np.isfinite(samples).all():
        raise ValueError("samples: expected finite numbers, found NaN or infinity")
    return samples


def _frames(samples: np.ndarray, frontend: Frontend) -> np.ndarray:
    """Return a view of every whole frame, shape (n_frames, n_fft)."""
    if len(samples) < frontend.n_fft:
        return np.empty((0, frontend.n_fft), samples.dtype)
    return np.lib.stride_tricks.sliding_window_view(samples, frontend.n_fft)[
        :: frontend.hop_samples
    ]


def _power(frames: np.ndarray, frontend: Frontend) -> np.ndarray:
    """Return the power spectrum, float64, shape (n_frames, n_fft // 2 + 1)."""
    # The float64 window makes the transform a float64 one in NumPy 1 and 2 alike.
    spectrum = np.fft.rfft(frames * hann(frontend.n_fft), axis=-1)
    power: np.ndarray = spectrum.real**2 + spectrum.imag**2
    return power


def _rows(power: np.ndarray, frontend: Frontend) -> np.ndarray:
    """Return the features of power spectra, float32, shape (n_frames, n_features)."""
    db = 10 * np.log10(np.maximum(power @ mel_filters(frontend), frontend.floor_power))
    if frontend.top_db is not None and db.size:
        db = np.maximum(db, db.max() - frontend.top_db)
    if frontend.n_mfcc:
        db = db @ dct_basis(frontend.n_mels, frontend.n_mfcc)
    if frontend.pitch:
        db = np.concatenate([db, pitch(power, frontend)], axis=1)
    return db.astype(np.float32)


def pitch(power: np.ndarray, frontend: Frontend) -> np.ndarray:
    """Return pitch and voicing of power spectra, float64, shape (n_frames, 2).

    Parameters
    ----------
    power : float64, shape (n_frames, n_fft // 2 + 1)

    Returns
    -------
    float64, shape (n_frames, 2)
        Semitones above `LOWEST_HZ`, and how periodic the frame is: 0 for noise, 1 for a pure tone.
        Where nothing is periodic, the pitch lies in the middle of its range.

    Notes
    -----
    The autocorrelation at candidate periods is a cosine transform of the spectrum; the root of the
    power in place of the power keeps formants from posing as pitch (Tolonen and Karjalainen, IEEE
    Trans. Speech and Audio Processing 8, 2000), and it is divided by the window's own (Boersma,
    1993). The candidates are averaged with weights that the best get, so that the answer never
    jumps for a rounding error; above 400 Hz the octave below, just as periodic, weighs in.
    """
    cosines, total, semitones, preference = pitch_matrices(frontend)
    magnitude = np.sqrt(power + PITCH_FLOOR)
    periodicity = (magnitude @ cosines) / (magnitude @ total)
    scores = PITCH_SHARPNESS * (periodicity + preference)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    return np.stack([weights @ semitones, (weights * periodicity).sum(axis=1)], axis=1)


@functools.lru_cache
def pitch_matrices(
    frontend: Frontend,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return what `pitch` multiplies by.

    Returns
    -------
    cosines : float64, shape (n_fft // 2 + 1, N_CANDIDATES)
        From a spectrum to its autocorrelation at the candidates' periods.
    total : float64, shape (n_fft // 2 + 1, 1)
        From a spectrum to its autocorrelation at 0.
    semitones, preference : float64, shape (N_CANDIDATES,)
    """
    hz = np.geomspace(LOWEST_HZ, HIGHEST_HZ, N_CANDIDATES)
    bins = np.arange(frontend.n_fft // 2 + 1)
    bins_hz = bins * frontend.sample_rate_hz / frontend.n_fft
    sides = np.where((bins == 0) | (bins == frontend.n_fft // 2), 1.0, 2.0)
    cosines = sides[:, None] * np.cos(2 * np.pi * bins_hz[:, None] / hz)
    window = np.abs(np.fft.rfft(hann(frontend.n_fft)))
    own = (window @ cosines) / (window @ sides)
    heard = (bins_hz >= PITCH_BAND_HZ[0]) & (bins_hz < PITCH_BAND_HZ[1])
    octaves = np.log2(hz / LOWEST_HZ)
    return (
        cosines * heard[:, None] / np.maximum(own, WINDOW_LEAST),
        (sides * heard)[:, None],
        12 * octaves,
        PITCH_PREFERENCE * (octaves - octaves.mean()),
    )


@functools.lru_cache
def hann(n: int) -> np.ndarray:
    """Return the periodic Hann window, float64, shape (n,)."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)


@functools.lru_cache
def mel_filters(frontend: Frontend) -> np.ndarray:
    """Return the filter bank, float64, shape (n_fft // 2 + 1, n_mels).

    Triangles between neighbouring points that are evenly spaced on Slaney's mel scale (Auditory
    Toolbox, 1998), each of unit area.
    """
    edges_hz = _mel_edges_hz(frontend)
    bins_hz = np.arange(frontend.n_fft // 2 + 1) * frontend.sample_rate_hz / frontend.n_fft
    below, centre, above = edges_hz[:-2], edges_hz[1:-1], edges_hz[2:]
    rising = (bins_hz[:, None] - below) / (centre - below)
    falling = (above - bins_hz[:, None]) / (above - centre)
    return np.maximum(0, np.minimum(rising, falling)) * 2 / (above - below)


def mel_centres_hz(frontend: Frontend) -> np.ndarray:
    """Return where each band of the filter bank peaks, float64, shape (n_mels,)."""
    return _mel_edges_hz(frontend)[1:-1]


def _mel_edges_hz(frontend: Frontend) -> np.ndarray:
    low_mel, high_mel = _hz_to_mel(np.array([frontend.low_hz, frontend.high_hz])).tolist()
    return _mel_to_hz(np.linspace(low_mel, high_mel, frontend.n_mels + 2))


# Cited: Slaney's scale is linear up to 1 kHz (15 mel, 200/3 Hz each) and logarithmic above it,
# with 27 steps for a factor of 6.4.
_BREAK_HZ, _BREAK_MEL, _HZ_PER_MEL, _LOG_STEP = 1000.0, 15.0, 200.0 / 3, np.log(6.4) / 27


def _hz_to_mel(hz: np.ndarray) -> np.ndarray:
    log = _BREAK_MEL + np.log(np.maximum(hz, _BREAK_HZ) / _BREAK_HZ) / _LOG_STEP
    return np.where(hz < _BREAK_HZ, hz / _HZ_PER_MEL, log)


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    log = _BREAK_HZ * np.exp(_LOG_STEP * (np.maximum(mel, _BREAK_MEL) - _BREAK_MEL))
    return np.where(mel < _BREAK_MEL, mel * _HZ_PER_MEL, log)


@functools.lru_cache
def dct_basis(n_mels: int, n_mfcc: int) -> np.ndarray:
    """Return the orthonormal DCT-II as a matrix, float64, shape (n_mels, n_mfcc)."""
    phase = np.pi * (np.arange(n_mels)[:, None] + 0.5) * np.arange(n_mfcc) / n_mels
    basis = np.cos(phase) * np.sqrt(2 / n_mels)
    basis[:, 0] /= np.sqrt(2)
    return basis
