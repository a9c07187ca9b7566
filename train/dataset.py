"""From clips to feature rows for training and testing, through the device's own code."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np

from edge.audio import read_file
from edge.frontend import Frontend, feature_rows
from edge.gate import CHUNK_SAMPLES, VOICE_RATE_HZ, SpeechGate
from edge.recognizer import HOP_S, hop_rows, window_starts
from edge.speaker import SpeakerNorm, Statistics
from train import teacher
from train.augment import Circumstance, changed, circumstances, microphone
from train.corpora import Corpus
from train.presets import Config

# Cited: TIM-Net's published input lengths, in samples at 22 050 Hz. Assumed for other corpora.
PUBLISHED_SAMPLES = {"emodb": 96_000, "savee": 130_000, "iemocap": 310_000}
STREAM_WINDOW_S = 3.0  # Assumed: about as long as most clips of EMO-DB.
SHORT_S = 0.5  # Assumed: the device asks later than that.
MOST_CLIPS = 11  # Assumed: half a minute of somebody's other clips.
NOISY_SHARE = 0.2  # Assumed: of the windows, if there are noisy versions of the clips.
# Assumed: how often a training window's speaker is one of whom everything is known, a stranger, one
# of whom a few clips are known, or a few in one mood.
P_KNOWN = {"all": 0.2, "nothing": 0.6, "some": 0.1, "a mood": 0.1}


def default_window_s(corpus: str, frontend: Frontend) -> float:
    """Return the window's length where the user asks for none."""
    if frontend.streamable:
        return STREAM_WINDOW_S
    return PUBLISHED_SAMPLES.get(corpus, PUBLISHED_SAMPLES["emodb"]) / frontend.sample_rate_hz


@dataclass(frozen=True)
class Heard:
    """Rows of a clip in one circumstance, not normalised.

    Attributes
    ----------
    rows : float32, shape (n, n_features)
    speech : bool, shape (n,)
        Where the gate hears speech, which is what counts of a speaker.
    speed : float
        At which the clip is played.
    taught : float16, shape (n, width), or None
        What the teacher makes of the clip as it is; see `train.teacher.frames`.
    """

    rows: np.ndarray
    speech: np.ndarray
    speed: float = 1.0
    taught: np.ndarray | None = None

    @functools.cached_property
    def statistics(self) -> Statistics:
        """Those of speech."""
        return Statistics.of(self.rows[self.speech])


# Of one clip: as it is, then in other circumstances, which training hears too: at other speeds, and
# last in noise.
Features = tuple[Heard, ...]


def clip_features(
    samples: np.ndarray,
    frontend: Frontend,
    window_samples: int,
    others: Sequence[Circumstance] = (),
    seed: int = 0,
    taught: bool = False,
) -> Features:
    """Return the features of one clip, float32 (n_samples,) at the front end's rate.

    A recipe that needs the whole clip gets what TIM-Net's authors gave it: the clip cropped or
    filled with zeros on both sides to the window, which is then the only one. A streamable recipe
    gets what a `Recognizer` would hear of the clip.

    ``others`` are circumstances to train in besides the recording's own, ``seed`` draws their
    noise; with ``taught`` the teacher hears the clip too.
    """
    if not frontend.streamable:
        rows = feature_rows(_centred(samples, window_samples), frontend)
        return (Heard(rows, np.ones(len(rows), bool)),)
    samples, speech = utterance(samples, frontend.sample_rate_hz)
    lesson = teacher.frames(samples) if taught else None
    versions = []
    for number, how in enumerate((Circumstance(), *others)):
        rng = np.random.default_rng([seed, number])
        heard = changed(samples, frontend.sample_rate_hz, how, rng)
        missing = max(0, frontend.n_fft - len(heard))  # to one frame at least
        rows = feature_rows(np.pad(heard, (0, missing)), frontend)
        middle = frontend.middle(np.arange(len(rows))) * how.speed  # in the clip as it is
        chunk = np.floor_divide(middle, CHUNK_SAMPLES).astype(int)
        flags = speech[np.minimum(chunk, len(speech) - 1)]
        versions.append(Heard(rows, flags if flags.any() else ~flags, how.speed, lesson))
    return tuple(versions)


def utterance(samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what a `Recognizer` hears of a clip: from its first speech to its last.

    Returns
    -------
    float32, shape (n,)
        All of ``samples`` if there is no speech.
    bool, shape (n_chunks,)
        Which chunks of `CHUNK_SAMPLES` are speech; the last one speaks for a rest too.
    """
    gate = _gate(rate_hz)
    gate.reset()
    n_chunks = len(samples) // CHUNK_SAMPLES
    chunks = samples[: n_chunks * CHUNK_SAMPLES].reshape(n_chunks, CHUNK_SAMPLES)
    speech = np.array([gate.push(chunk) for chunk in chunks], bool)
    if not speech.any():
        return samples, np.ones(n_chunks + 1, bool)
    heard = np.flatnonzero(speech)
    first, end = max(0, heard[0] - gate.n_before), heard[-1] + 1 + gate.n_after
    flags = np.append(speech, False)[first:end]
    return samples[first * CHUNK_SAMPLES : end * CHUNK_SAMPLES], flags


@functools.cache
def _gate(rate_hz: int) -> SpeechGate:
    return SpeechGate("voice" if rate_hz == VOICE_RATE_HZ else "energy", rate_hz)


def _centred(samples: np.ndarray, n_samples: int) -> np.ndarray:
    """Return ``samples`` cropped or filled with zeros on both sides alike."""
    missing = n_samples - len(samples)
    if missing < 0:
        start = -missing // 2
        return samples[start : start + n_samples]
    return np.pad(samples, (missing // 2, missing - missing // 2))


def corpus_features(
    corpus: Corpus,
    frontend: Frontend,
    window_samples: int,
    speeds: tuple[float, ...] = (),
    n_noisy: int = 0,
    taught: bool = False,
    n_jobs: int = 1,
) -> Iterator[Features]:
    """Yield the features of every clip of ``corpus``, in order.

    ``speeds`` and ``n_noisy`` are as in `train.presets.Config`, ``taught`` is whether the teacher
    hears the clips too; ``n_jobs`` clips are read at a time.
    """
    others = {
        speaker: circumstances(speaker, frontend.sample_rate_hz, speeds, n_noisy)
        for speaker in corpus.speakers
    }
    parallel = joblib.Parallel(n_jobs=n_jobs, return_as="generator")
    yield from parallel(
        joblib.delayed(_read)(
            clip.path, frontend, window_samples, others[clip.speaker], number, taught
        )
        for number, clip in enumerate(corpus.clips)
    )


def _read(
    path: Path,
    frontend: Frontend,
    window_samples: int,
    others: list[Circumstance],
    seed: int,
    taught: bool,
) -> Features:
    samples = read_file(path, frontend.sample_rate_hz)
    return clip_features(samples, frontend, window_samples, others, seed, taught)


def measured(frontend: Frontend, clips: list[Features], speakers: list[str]) -> Frontend:
    """Return the front end with the mean and scale of the training clips, as they are.

    Those of an adaptive front end are of speech alone, and the scale is the deviation within a
    speaker: what the speakers' means add to it is what adaptation takes away.
    """
    if not frontend.adapt_s:
        return frontend.with_normalization(np.concatenate([clip[0].rows for clip in clips]))
    own = speaker_statistics(clips, speakers, 0).values()
    mean = functools.reduce(Statistics.merged, own).mean
    scale = np.sqrt(np.mean([one.variance for one in own], axis=0))
    return dataclasses.replace(frontend, mean=tuple(mean.tolist()), scale=tuple(scale.tolist()))


def speaker_statistics(
    clips: list[Features], speakers: list[str], version: int
) -> dict[str, Statistics]:
    """Return the statistics of all clips of each speaker, in the given version."""
    gathered: dict[str, Statistics] = {}
    for clip, speaker in zip(clips, speakers, strict=True):
        own = clip[version].statistics
        gathered[speaker] = gathered[speaker].merged(own) if speaker in gathered else own
    return gathered


def filled(rows: np.ndarray, n_rows: int) -> np.ndarray:
    """Return ``rows`` (n, n_features), repeated until they fill a window of ``n_rows``."""
    return np.resize(rows, (n_rows, rows.shape[1]))


class TrainingWindows:
    """Draws a window of each clip, an epoch at a time.

    Where a clip is shorter than a window, and in a share ``config.short`` of the draws, there is
    less in a window than it holds, as at the beginning of an utterance.

    In a share ``config.microphones`` of the draws, another microphone hears the speaker
    (`train.augment.microphone`), what is known of them included.

    An adaptive front end is at a random point of getting to know the speaker (`P_KNOWN`): it has
    heard the window alone, a few clips more, a few in one mood alone, or all clips of the speaker.

    Parameters
    ----------
    clips, speakers, labels : sequence
    frontend : Frontend
        With mean and scale.
    n_rows : int
        Length of a window.
    config : Config
        Of which ``short``, ``n_noisy`` and ``microphones`` count here.
    """

    def __init__(
        self,
        clips: list[Features],
        speakers: list[str],
        labels: np.ndarray,
        frontend: Frontend,
        n_rows: int,
        config: Config,
    ) -> None:
        self._config = config
        self._clips, self._speakers, self._n_rows = clips, speakers, n_rows
        self._frontend = frontend
        self._row_s = frontend.hop_samples / frontend.sample_rate_hz
        self._short_rows = max(1, round(SHORT_S / self._row_s))
        self._n_versions = len(clips[0])
        self._all = [speaker_statistics(clips, speakers, v) for v in range(self._n_versions)]
        self._clips_of: dict[str, list[int]] = {}
        self._moods_of: dict[str, dict[int, list[int]]] = {}
        for number, (speaker, label) in enumerate(zip(speakers, labels.tolist(), strict=True)):
            self._clips_of.setdefault(speaker, []).append(number)
            self._moods_of.setdefault(speaker, {}).setdefault(label, []).append(number)

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw a window of each clip.

        Returns
        -------
        float32, shape (n_clips, n_rows, n_features)
            Normalised.
        float, shape (n_clips, 2)
            Where each begins and ends, in seconds of the clip as it is.
        """
        drawn = [self._window(clip, rng) for clip in range(len(self._clips))]
        return np.stack([window for window, _ in drawn]), np.array([span for _, span in drawn])

    def _window(
        self, clip: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, tuple[float, float]]:
        version = self._version(rng)
        heard, n_rows = self._clips[clip][version], self._n_rows
        if self._config.short and rng.random() < self._config.short:
            n_rows = int(rng.integers(min(self._short_rows, n_rows), n_rows + 1))
        start = int(rng.integers(max(0, len(heard.rows) - n_rows) + 1))
        here = slice(start, min(start + n_rows, len(heard.rows)))
        span = (here.start * self._row_s * heard.speed, here.stop * self._row_s * heard.speed)
        window = filled(heard.rows[here], self._n_rows)
        added = np.zeros(window.shape[1], np.float32)
        if self._config.microphones and rng.random() < self._config.microphones:
            added = microphone(self._frontend, rng)
        if not self._frontend.adapt_s:
            return self._frontend.normalize(window + added), span
        spoken = heard.rows[here][heard.speech[here]]
        known = self._known(clip, version, spoken, rng)
        if known is not None:
            known = dataclasses.replace(known, mean=known.mean + added)
        return SpeakerNorm(self._frontend, known).normalize(window + added), span

    def _version(self, rng: np.random.Generator) -> int:
        n_quiet = self._n_versions - self._config.n_noisy
        if self._config.n_noisy and rng.random() < NOISY_SHARE:
            return n_quiet + int(rng.integers(self._config.n_noisy))
        return int(rng.integers(n_quiet)) if n_quiet > 1 else 0

    def _known(
        self, clip: int, version: int, spoken: np.ndarray, rng: np.random.Generator
    ) -> Statistics | None:
        speaker, known_of = self._speakers[clip], rng.choice([*P_KNOWN], p=[*P_KNOWN.values()])
        if known_of == "all":
            return self._all[version][speaker]
        known = [Statistics.of(spoken)] if len(spoken) else []
        if known_of != "nothing":
            others = self._clips_of[speaker]
            if known_of == "a mood":
                moods = list(self._moods_of[speaker].values())
                others = moods[rng.integers(len(moods))]
            n_others = min(len(others), int(rng.integers(1, MOST_CLIPS + 1)))
            chosen = rng.choice(others, n_others, replace=False)
            known += [self._clips[n][version].statistics for n in chosen if n != clip]
        return functools.reduce(Statistics.merged, known) if known else None


def device_windows(
    clips: list[Features], n_rows: int, frontend: Frontend, known: list[Statistics] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return what a `Recognizer` with the default hop gives its model, and whose it is.

    Parameters
    ----------
    clips : list of Features
    n_rows : int
    frontend : Frontend
        With mean and scale.
    known : list of Statistics, optional
        All that was ever heard of the speaker of each clip. Otherwise every clip is a stranger's,
        and an adaptive front end knows what it has heard of the clip by the end of the window.

    Returns
    -------
    float32, shape (n_windows, n_rows, n_features)
        Normalised.
    int, shape (n_windows,)
        Index of the clip that each window belongs to.
    """
    hop = hop_rows(HOP_S, frontend.hop_samples / frontend.sample_rate_hz)
    windows, owners = [np.empty((0, n_rows, frontend.n_features), np.float32)], []
    for number, clip in enumerate(clips):
        rows, speech, heard = clip[0].rows, clip[0].speech, 0
        norm = SpeakerNorm(frontend, None if known is None else known[number])
        for start in window_starts(len(rows), n_rows, hop):
            end = start + n_rows
            if known is None:
                norm.hear(rows[heard:end][speech[heard:end]])
                heard = end
            windows.append(norm.normalize(filled(rows[start:end], n_rows))[None])
            owners.append(number)
    return np.concatenate(windows), np.array(owners, int)
