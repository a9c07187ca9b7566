"""The microphone, through sounddevice and the system's PortAudio, for as long as it takes.

The device is opened at a rate of its own. Its thread copies and enqueues; what the program is too
slow for is dropped, oldest first, and reported where it is missing. A device that goes away, or
is not there yet, is waited for.
"""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from edge.audio import BLOCK_S, Lost, Notice, Resampler
from edge.devices import Device, SetupError, find, find_again, opens, sounddevice_module
from edge.errors import AudioError
from edge.quiet import quiet_native

# All assumed.
QUEUE_S = 5.0  # how far behind the program may fall before audio is dropped
STALL_S = 3.0  # how long a device may deliver nothing before it counts as gone
N_LOOKS = 6  # in that time, whether it has stopped by itself
MUTE_S = 5.0  # how long it may deliver zeros before it counts as muted, or no numbers as broken
RETRY_S, LONGEST_RETRY_S = 1.0, 30.0  # from one attempt to open it to the next, doubling

PREFERRED_RATES_HZ = (48_000, 44_100, 32_000, 16_000, 8_000)


class Microphone:
    """Live mono blocks at a rate of one's choice, with `Lost` and `Notice` in between.

    Iterating waits for the next audio. Use it as a context manager, or `close` it.

    Parameters
    ----------
    wanted : str or None
        Index or part of a name; None for the system's default. An index counts once: from then
        on the device that it meant is known by its name.
    sample_rate_hz : int
        Rate of the blocks; the device runs at its own.
    channel : int or None
        Which channel to hear, from 1; None for the mean of the first two.
    reconnect : bool
        Wait for a device that is not there or goes away, instead of raising `AudioError`.

    Attributes
    ----------
    n_delivered, n_dropped, n_taken : int
        Samples at the device's rate since the program started: that the device has delivered,
        that were dropped because the program was too slow, and that were handed on. What has
        been delivered is dropped, taken, or still in the queue.

    Raises
    ------
    SetupError
        If there is no PortAudio, the name is ambiguous, or there is no such channel.
    AudioError
        If PortAudio does not start.
    """

    def __init__(
        self,
        wanted: str | None,
        sample_rate_hz: int,
        channel: int | None = None,
        reconnect: bool = True,
    ) -> None:
        if channel is not None and channel < 1:
            raise ValueError(f"channel must be at least 1, not {channel}")
        self._sounddevice = sounddevice_module()
        self._wanted, self._channel, self._reconnect = wanted, channel, reconnect
        self._sample_rate_hz = sample_rate_hz
        self._meant: Device | None = None
        self._stream: Any = None
        self._heard_at: float | None = None
        self.name = wanted or "microphone"
        self.n_delivered = self.n_dropped = self.n_taken = 0

    def __enter__(self) -> Microphone:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the device."""
        stream, self._stream = self._stream, None
        if stream is not None:
            with contextlib.suppress(self._sounddevice.PortAudioError):
                stream.close()

    def __iter__(self) -> Iterator[np.ndarray | Lost | Notice]:
        retry_s, said = RETRY_S, ""
        while True:
            try:
                self._open()
                yield from self._absence()
                said = ""
                yield Notice("listening", f"listening to {self.name} at {self.device_rate_hz} Hz")
                for item in self._resampled():
                    if isinstance(item, np.ndarray) and len(item):
                        retry_s = 0.0  # what has worked is tried again at once, and only that
                    yield item
            except SetupError:
                raise
            except AudioError as error:
                if not self._reconnect:
                    raise
                if str(error) != said:
                    said = str(error)
                    yield Notice("waiting", f"{error}; waiting for it")
            finally:
                self.close()
            try:
                time.sleep(retry_s)
            except KeyboardInterrupt:
                yield from self._absence()  # the end must be told of it too
                raise
            retry_s = min(max(RETRY_S, 2 * retry_s), LONGEST_RETRY_S)
            self._look_again()

    def _absence(self) -> Iterator[Lost]:
        """Yield what has passed unheard since the last block, if there ever was one."""
        if self._heard_at is not None:
            now = time.monotonic()
            away_s, self._heard_at = now - self._heard_at, now
            yield Lost(round(away_s * self._sample_rate_hz), "the microphone was away")

    def _look_again(self) -> None:
        """Make PortAudio see what has been plugged in since it looked last."""
        # The only way that there is: https://github.com/spatialaudio/python-sounddevice/issues/16
        # Each may fail without the other: what has not started cannot be ended, but started again.
        with quiet_native():
            with contextlib.suppress(self._sounddevice.PortAudioError):
                self._sounddevice._terminate()
            with contextlib.suppress(self._sounddevice.PortAudioError):
                self._sounddevice._initialize()

    def _open(self) -> None:
        device = find(self._wanted) if self._meant is None else find_again(self._meant)
        if self._wanted is not None and self._wanted.isdigit():
            self._meant = device
        self.name = device.name
        if self._channel is not None and self._channel > device.n_channels:
            raise SetupError(f"--channel {self._channel}: there are only those of {device}")
        n_channels = min(2, device.n_channels) if self._channel is None else self._channel
        candidates = (device.default_rate_hz, *PREFERRED_RATES_HZ)
        self.device_rate_hz = next(
            (rate for rate in candidates if opens(device, rate, n_channels)), candidates[0]
        )
        self._blocks: queue.Queue[tuple[int, np.ndarray, bool]] = queue.Queue(
            round(QUEUE_S / BLOCK_S)
        )
        try:
            with quiet_native(show_on_error=False):  # what PortAudio says is in the exception
                self._stream = self._sounddevice.InputStream(
                    samplerate=self.device_rate_hz,
                    blocksize=round(BLOCK_S * self.device_rate_hz),
                    device=device.index,
                    channels=n_channels,
                    dtype="float32",
                    callback=self._take,
                )
                self._stream.start()
        except (ValueError, self._sounddevice.PortAudioError) as error:
            self.close()
            raise AudioError(
                f"cannot record from {device} ({error}); another program may hold it, "
                "or this user may not (Linux: sudo usermod -aG audio $USER)"
            ) from error

    def _take(self, block: np.ndarray, n_frames: int, when: object, status: Any) -> None:
        """PortAudio's thread: copy and enqueue, the oldest goes if there is no room, never wait."""
        entry = (self.n_delivered, block.copy(), bool(status.input_overflow))
        self.n_delivered += len(block)
        while True:
            try:
                return self._blocks.put_nowait(entry)
            except queue.Full:
                with contextlib.suppress(queue.Empty):
                    self._blocks.get_nowait()

    def _next(self) -> tuple[int, np.ndarray, bool]:
        """Wait for a block; AudioError if the device has stopped, or is silent for too long."""
        for _ in range(N_LOOKS):
            try:
                entry = self._blocks.get(timeout=STALL_S / N_LOOKS)
            except queue.Empty:
                if not self._stream.active:
                    break
            else:
                self._heard_at = time.monotonic()
                return entry
        raise AudioError(f"{self.name} delivers nothing any more (unplugged?)")

    def _resampled(self) -> Iterator[np.ndarray | Lost | Notice]:
        """Yield what arrives, mono and at the wanted rate; nothing is carried over a loss."""
        rates = (self.device_rate_hz, self._sample_rate_hz)
        resampler, nothing = Resampler(*rates), np.zeros(0, np.float32)
        try:
            for item in self._arriving():
                if isinstance(item, Lost) and item.n_samples:
                    yield resampler.push(nothing, last=True)
                    resampler = Resampler(*rates)
                    yield Lost(round(item.n_samples * rates[1] / rates[0]), item.reason)
                elif isinstance(item, (Lost, Notice)):
                    yield item
                elif self._channel is None:
                    yield resampler.push(item.mean(axis=1))
                else:
                    yield resampler.push(item[:, self._channel - 1])
        except AudioError:
            yield resampler.push(nothing, last=True)
            raise

    def _arriving(self) -> Iterator[np.ndarray | Lost | Notice]:
        """Yield blocks (n, n_channels), and what is missing between them, until the device ends."""
        expected = self.n_taken + self.n_dropped
        n_zeros = n_wrong = 0
        while True:
            start, block, overflow = self._next()
            if start > expected:
                self.n_dropped += start - expected
                yield Lost(start - expected, "the program was too slow")
            expected = start + len(block)
            self.n_taken += len(block)
            if overflow:
                yield Lost(0, "the device lost audio, nobody knows how much")
            if not np.isfinite(block).all():
                n_wrong += len(block)
                yield Lost(len(block), "the device gave no numbers")
                if n_wrong >= MUTE_S * self.device_rate_hz:
                    raise AudioError(f"{self.name} gives NaN or infinity, and no samples")
                continue
            n_wrong = 0
            if block.any():
                n_zeros = 0
            elif n_zeros < MUTE_S * self.device_rate_hz <= n_zeros + len(block):
                yield Notice(
                    "listening",
                    f"{self.name} gives digital silence: is it muted, or may this program not "
                    "listen? (macOS: System Settings, Privacy & Security, Microphone)",
                )
            n_zeros += 0 if block.any() else len(block)
            yield block
