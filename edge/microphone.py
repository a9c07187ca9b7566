"""The microphone, through sounddevice and the system's PortAudio."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from edge.audio import BLOCK_S, finite, resample
from edge.errors import AudioError

QUEUE_S = 5.0  # Assumed: how far behind the program may fall before audio is dropped.


def _sounddevice() -> ModuleType:
    try:
        import sounddevice
    except OSError as error:  # its message is "PortAudio library not found"
        raise AudioError(
            "the microphone needs PortAudio: sudo apt install libportaudio2 "
            "(files, standard input and --demo work without it)"
        ) from error
    return sounddevice


def device_lines() -> list[str]:
    """Return a line for each device that can record; the default is marked with ``>``."""
    sounddevice = _sounddevice()
    default = sounddevice.default.device[0]
    return [
        f"{'>' if index == default else ' '} {index}: {device['name']}, "
        f"{device['max_input_channels']} channels, {device['default_samplerate']:.0f} Hz"
        for index, device in enumerate(sounddevice.query_devices())
        if device["max_input_channels"] > 0
    ]


class Microphone:
    """Live mono blocks at a rate of one's choice.

    Iterating blocks until the next audio is there, and never ends by itself. Use it as a context
    manager: the device is open inside.

    Parameters
    ----------
    device : str or None
        Index or part of a name, as sounddevice takes them; None for the system's default.
    sample_rate_hz : int
        Rate of the blocks; the device runs at its own.

    Attributes
    ----------
    dropped_samples : int
        Samples lost so far, at the device's rate: those that the program was too slow to take.
    overflows : int
        How often the device itself reported lost audio (of unknown length).

    Raises
    ------
    AudioError
        If there is no PortAudio, no such device, or it cannot be opened.
    """

    def __init__(self, device: str | None, sample_rate_hz: int) -> None:
        sounddevice = _sounddevice()
        chosen = int(device) if device is not None and device.isdigit() else device
        try:
            found: dict[str, Any] = sounddevice.query_devices(chosen, "input")
            self.device_rate_hz = round(found["default_samplerate"])
            self._stream = sounddevice.InputStream(
                samplerate=self.device_rate_hz,
                blocksize=round(BLOCK_S * self.device_rate_hz),
                device=chosen,
                channels=min(2, found["max_input_channels"]),
                dtype="float32",
                callback=self._take,
            )
        except (ValueError, sounddevice.PortAudioError) as error:
            asked = "the default device" if device is None else f"device {device!r}"
            raise AudioError(
                f"cannot record from {asked} ({error}); "
                "python -m edge --list-devices shows what there is"
            ) from error
        self.name: str = found["name"]
        self.dropped_samples = 0
        self.overflows = 0
        self._sample_rate_hz = sample_rate_hz
        self._blocks: queue.Queue[np.ndarray] = queue.Queue(maxsize=round(QUEUE_S / BLOCK_S))

    def _take(self, block: np.ndarray, n_frames: int, time: object, status: Any) -> None:
        """PortAudio's thread: copy and enqueue, count what is lost, never wait."""
        if status.input_overflow:
            self.overflows += 1
        while True:
            try:
                self._blocks.put_nowait(block.copy())
                return
            except queue.Full:
                # The oldest goes: what is said now matters more than what was said before.
                try:
                    self.dropped_samples += len(self._blocks.get_nowait())
                except queue.Empty:
                    continue

    def __enter__(self) -> Microphone:
        self._stream.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stream.close()

    def __iter__(self) -> Iterator[np.ndarray]:
        blocks = finite(self._arriving(), self.name)
        return resample(blocks, self.device_rate_hz, self._sample_rate_hz)

    def _arriving(self) -> Iterator[np.ndarray]:
        while True:
            try:
                yield self._blocks.get(timeout=1.0)
            except queue.Empty:
                if not self._stream.active:
                    raise AudioError(
                        f"{self.name} stopped; is it still plugged in? Start the program again"
                    ) from None
