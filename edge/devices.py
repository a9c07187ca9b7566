"""What can record, found by number or by a part of its name, through the system's PortAudio."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

from edge.errors import AudioError
from edge.quiet import quiet_native

RATES_HZ = (8_000, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000)  # what the listing tries


class SetupError(AudioError):
    """Something about the microphone that only the user can change."""


@dataclass(frozen=True)
class Device:
    """Something that can record."""

    index: int
    name: str
    n_channels: int
    default_rate_hz: int
    is_default: bool

    def __str__(self) -> str:
        channels = "channel" if self.n_channels == 1 else "channels"
        return f"{self.index}: {self.name}, {self.n_channels} {channels}"


def sounddevice_module() -> ModuleType:
    """Return sounddevice, which is imported only now.

    Raises
    ------
    SetupError
        If there is no PortAudio.
    AudioError
        If there is, but it does not start.
    """
    try:
        import sounddevice
    except OSError as error:  # its message is "PortAudio library not found"
        raise SetupError(
            "the microphone needs PortAudio: sudo apt install libportaudio2 "
            "(files, standard input and --demo work without it)"
        ) from error
    except Exception as error:
        # The import starts PortAudio, and if that fails there is no module to take its class from.
        if type(error).__name__ != "PortAudioError":
            raise
        raise AudioError(f"PortAudio does not start ({error})") from error
    return sounddevice


def devices() -> list[Device]:
    """Return every device that can record, by index; AudioError if PortAudio cannot say."""
    sounddevice = sounddevice_module()
    try:
        default, found = sounddevice.default.device[0], sounddevice.query_devices()
    except sounddevice.PortAudioError as error:
        raise AudioError(f"PortAudio cannot list the devices ({error})") from error
    return [
        Device(
            index, device["name"], device["max_input_channels"],
            round(device["default_samplerate"]), index == default,
        )
        for index, device in enumerate(found)
        if device["max_input_channels"] > 0
    ]  # fmt: skip


def device_lines() -> list[str]:
    """Return a line for each device: index, name, channels, rates; ``>`` marks the default."""
    lines = []
    for device in devices():
        rates = ", ".join(
            f"{rate / 1000:g}" for rate in RATES_HZ if opens(device, rate, device.n_channels)
        )
        mark = ">" if device.is_default else " "
        lines.append(f"{mark} {device}, {device.default_rate_hz} Hz (can do {rates or '?'} kHz)")
    return lines


def find(wanted: str | None) -> Device:
    """Return the device of that index or part of a name; None: the default, or else the first.

    Raises
    ------
    SetupError
        If several names match; it lists them.
    AudioError
        If there is no such device now; it lists those that there are.
    """
    found = devices()
    if not found:
        raise AudioError("no microphone found; plug one in")
    if wanted is None:
        return next((device for device in found if device.is_default), found[0])
    if wanted.isdigit():
        matches = [device for device in found if device.index == int(wanted)]
    else:
        matches = [device for device in found if wanted.lower() in device.name.lower()]
        # A full name is not ambiguous because another one contains it.
        matches = [d for d in matches if d.name.lower() == wanted.lower()] or matches
    if len(matches) == 1:
        return matches[0]
    candidates = "; ".join(str(device) for device in matches or found)
    if matches:
        raise SetupError(f"--device {wanted} could be any of {candidates}; give the index")
    raise AudioError(f"no microphone is called {wanted!r}; there are {candidates}")


def find_again(lost: Device) -> Device:
    """Return the device of the same name now, of several the one with the nearest index.

    Indices shift when devices come and go. AudioError if there is none; it lists those that are.
    """
    found = devices()
    matches = [device for device in found if device.name == lost.name]
    if not matches:
        candidates = "; ".join(str(device) for device in found) or "none"
        raise AudioError(f"{lost.name} is not there any more; there are {candidates}")
    return min(matches, key=lambda device: abs(device.index - lost.index))


def opens(device: Device, rate_hz: int, n_channels: int) -> bool:
    """Return whether ``device`` says that it can record at this rate."""
    sounddevice = sounddevice_module()
    try:
        with quiet_native(show_on_error=False):
            sounddevice.check_input_settings(
                device=device.index, channels=n_channels, dtype="float32", samplerate=rate_hz
            )
    except (ValueError, sounddevice.PortAudioError):
        return False
    return True
