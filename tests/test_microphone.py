"""The microphone with a made-up sounddevice that does what real ones do."""

import builtins
import itertools
import sys
import types

import numpy as np
import pytest
import soundfile

from edge import microphone as module
from edge.__main__ import main
from edge.audio import Lost, Notice, read_file
from edge.devices import SetupError, device_lines, find
from edge.errors import AudioError
from edge.microphone import Microphone
from tests.test_commands import events

BLOCK = 4800  # 0.1 s at 48 kHz


class PortAudioError(Exception):
    pass


class FakeSounddevice(types.ModuleType):
    """Devices by name, and ``plays``: what each opened stream delivers before it falls silent.

    An entry of ``plays`` is a list of blocks (n,), of which "overflow" marks the next, or an
    exception that opening raises. A stream that has played everything has been unplugged.
    ``failing`` are the looks for devices, from 1, after which PortAudio has not started.
    """

    def __init__(self, plays=(), names=("USB microphone",), rates=(44_100, 48_000), channels=2):
        super().__init__("sounddevice")
        self.PortAudioError = PortAudioError
        self.plays, self.rates, self.channels = list(plays), rates, channels
        self.names = list(names)
        self.default = types.SimpleNamespace(device=(1, 0))
        self.opened, self.n_looks = [], 0
        self.runs, self.failing = True, ()

    def query_devices(self):
        self.check_runs()
        speaker = {"name": "speaker", "max_input_channels": 0, "default_samplerate": 44_100.0}
        return [speaker] + [
            {
                "name": name,
                "max_input_channels": self.channels,
                "default_samplerate": float(self.rates[-1]),
            }
            for name in self.names
        ]

    def check_input_settings(self, device, channels, dtype, samplerate):
        if samplerate not in self.rates:
            raise PortAudioError("Invalid sample rate")

    def check_runs(self):
        if not self.runs:
            raise PortAudioError("PortAudio not initialized")

    def _terminate(self):
        self.check_runs()
        self.runs = False

    def _initialize(self):
        self.n_looks += 1
        self.runs = self.n_looks not in self.failing
        if not self.runs:
            raise PortAudioError("Error initializing PortAudio")

    def InputStream(self, *, callback, channels, **options):  # noqa: N802
        play = self.plays.pop(0) if self.plays else []
        if isinstance(play, BaseException):
            raise play
        self.opened.append({**options, "channels": channels})

        class Stream:
            def start(self):
                overflow = False
                for block in play:
                    if isinstance(block, str):
                        overflow = True
                        continue
                    status = types.SimpleNamespace(input_overflow=overflow)
                    overflow = False
                    # The second channel has its own sign, so that one can tell them apart.
                    signs = np.array([1, -1], "f4")[:channels]
                    buffer = block[:, None] * signs if channels > 1 else block[:, None].copy()
                    callback(buffer, len(block), None, status)
                    buffer[:] = np.nan  # PortAudio uses its buffer again: keep nothing of it

            active = True

            def close(self):
                self.active = False

        return Stream()


@pytest.fixture
def plug_in(monkeypatch):
    """Return a function that installs a `FakeSounddevice`; time then passes by itself."""
    clock = itertools.count()
    slept = []
    fake_time = types.SimpleNamespace(monotonic=lambda: float(next(clock)), sleep=slept.append)
    monkeypatch.setattr(module, "time", fake_time)
    monkeypatch.setattr(module, "STALL_S", 0.01)

    def plug(*arguments, **options):
        fake = FakeSounddevice(*arguments, **options)
        fake.slept, fake.time = slept, fake_time
        monkeypatch.setitem(sys.modules, "sounddevice", fake)
        return fake

    return plug


def noise(n_blocks, seed=0):
    samples = (0.1 * np.random.default_rng(seed).normal(size=n_blocks * BLOCK)).astype("f4")
    return list(np.split(samples, n_blocks))


def until(mic, n_notices, state="waiting"):
    """Return what ``mic`` yields up to the n-th notice of a state."""
    items = []
    for item in mic:
        items.append(item)
        n_notices -= isinstance(item, Notice) and item.state == state
        if not n_notices:
            return items
    raise AssertionError("a microphone never ends")


def samples_of(items):
    return np.concatenate([item for item in items if isinstance(item, np.ndarray)])


def losses(items):
    return [item for item in items if isinstance(item, Lost)]


def test_it_is_heard_like_a_file(plug_in, tmp_path):
    blocks = noise(10)
    soundfile.write(tmp_path / "a.wav", np.concatenate(blocks), 48_000, subtype="FLOAT")
    fake = plug_in([blocks])
    with Microphone("usb", 16_000, channel=1) as mic:
        heard = samples_of(until(mic, 1))
    assert mic.device_rate_hz == 48_000
    assert fake.opened[0]["device"] == 1
    np.testing.assert_allclose(heard, read_file(tmp_path / "a.wav", 16_000), atol=1e-6)
    assert mic.n_delivered == mic.n_taken == 48_000
    assert mic.n_dropped == 0


@pytest.mark.parametrize(("channel", "factor"), [(None, 0), (1, 1), (2, -1)])
def test_any_channel_or_the_mean(plug_in, channel, factor):
    blocks = noise(3)
    plug_in([blocks], rates=(16_000,))
    heard = samples_of(until(Microphone(None, 16_000, channel), 1))
    np.testing.assert_allclose(heard, factor * np.concatenate(blocks), atol=1e-6)


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_it_is_opened_at_a_rate_that_the_device_offers(plug_in, rate):
    fake = plug_in([[np.full(rate, 0.1, "f4")]], rates=(rate,))
    mic = Microphone(None, 16_000, channel=1)
    assert len(samples_of(until(mic, 1))) == 16_000
    assert fake.opened[0]["samplerate"] == rate


def test_a_device_that_lies_about_its_default_rate_is_opened_at_another(plug_in):
    fake = plug_in([noise(1)])
    fake.check_input_settings = lambda samplerate, **_: (
        None if samplerate == 32_000 else (_ for _ in ()).throw(PortAudioError("no"))
    )
    until(Microphone(None, 16_000), 1)
    assert fake.opened[0]["samplerate"] == 32_000


def test_what_the_program_is_too_slow_for_is_reported_where_it_is_missing(plug_in):
    blocks = [np.full(BLOCK, n + 1, "f4") for n in range(60)]
    plug_in([blocks], rates=(48_000,))
    mic = Microphone(None, 48_000, channel=1)
    items = until(mic, 1)
    (lost,) = losses(items)
    assert lost == Lost(10 * BLOCK, "the program was too slow")
    kept = [item for item in items if isinstance(item, np.ndarray) and len(item)]
    assert [block[0] for block in kept] == list(range(11, 61))  # the oldest went
    assert items[2] is lost  # after the notice and what the resampler still held: nothing
    assert mic.n_delivered == mic.n_taken + mic.n_dropped == 60 * BLOCK


def test_an_overflow_of_the_device_is_a_loss_of_unknown_length(plug_in):
    plug_in([[*noise(2), "overflow", *noise(1)]])
    items = until(Microphone(None, 16_000, channel=1), 1)
    (lost,) = losses(items)
    assert lost.n_samples == 0
    assert "nobody knows how much" in lost.reason
    assert len(samples_of(items)) == 3 * 1600


def test_an_unplugged_device_is_waited_for_and_the_gap_reported(plug_in):
    fake = plug_in([noise(5), PortAudioError("gone"), PortAudioError("gone"), noise(5)])
    items = until(Microphone("USB", 16_000, channel=1), 3)
    messages = [item.message for item in items if isinstance(item, Notice)]
    assert messages[0] == "listening to USB microphone at 48000 Hz"
    assert "delivers nothing any more (unplugged?); waiting" in messages[1]
    assert "cannot record from 1: USB microphone" in messages[2]  # said once, tried twice
    assert messages[3] == messages[0]
    (lost,) = losses(items)
    assert lost.reason == "the microphone was away"
    assert lost.n_samples == 16_000  # the made-up clock gives a second from one look to the next
    assert fake.slept == [0.0, 1.0, 2.0]  # the first time at once: it has worked
    assert fake.n_looks == 3
    assert len(samples_of(items)) == 16_000


def test_the_wait_grows_and_has_an_end(plug_in):
    fake = plug_in([PortAudioError("busy")] * 8 + [noise(1)])
    until(Microphone(None, 16_000), 2)
    assert fake.slept == [1, 2, 4, 8, 16, 30, 30, 30]


@pytest.mark.parametrize("play", [[], [np.full(BLOCK, np.nan, "f4")] * 50])
def test_a_device_that_opens_but_is_not_heard_is_waited_for_ever_longer(plug_in, play):
    fake = plug_in([play] * 3 + [noise(1)] + [play] * 2)
    items = until(Microphone(None, 16_000), 6)
    assert fake.slept == [1, 2, 4, 0, 1]
    states = [item.state for item in items if isinstance(item, Notice)]
    assert states == ["listening", "waiting"] * 6


def test_a_portaudio_that_does_not_start_again_is_waited_for(plug_in):
    fake = plug_in([noise(1), noise(1)])
    fake.failing = (1, 2)
    items = until(Microphone(None, 16_000), 3)
    messages = [item.message for item in items if isinstance(item, Notice)]
    assert messages[2] == (
        "PortAudio cannot list the devices (PortAudio not initialized); waiting for it"
    )
    assert messages[3] == messages[0] == "listening to USB microphone at 48000 Hz"
    assert fake.n_looks == 3


def test_an_index_means_the_same_device_after_others_have_come_and_gone(plug_in):
    fake = plug_in([noise(1)] * 3, names=("A", "B", "B"))
    there = [["B", "B"], ["A", "C"], ["D", "A", "B", "C"]]  # from one look to the next

    def plug(seconds):
        fake.names = there.pop(0)

    fake.time.sleep = plug
    items = until(Microphone("3", 16_000), 4)
    messages = [item.message for item in items if isinstance(item, Notice)]
    assert messages[4] == (
        "B is not there any more; there are 1: A, 2 channels; 2: C, 2 channels; waiting for it"
    )
    assert [opened["device"] for opened in fake.opened] == [3, 2, 3]
    assert [m for m in messages if "listening" in m] == ["listening to B at 48000 Hz"] * 3


def test_a_microphone_that_is_plugged_in_later_is_found(plug_in):
    fake = plug_in([noise(1)], names=())
    sleep = fake.slept.append

    def plug(seconds):
        sleep(seconds)
        fake.names = ["USB microphone"] if len(fake.slept) == 3 else []

    fake.time.sleep = plug
    first, *_, last = until(Microphone("USB", 16_000), 1, "listening")
    assert first == Notice("waiting", "no microphone found; plug one in; waiting for it")
    assert last.message == "listening to USB microphone at 48000 Hz"


def test_ctrl_c_while_waiting_still_reports_the_gap(plug_in, capsys):
    fake = plug_in([noise(20), PortAudioError("gone")])

    def interrupt(seconds):
        raise KeyboardInterrupt

    fake.time.sleep = interrupt
    assert main(["--json"]) == 0
    found = events(capsys.readouterr().out)
    (gap,) = [e for e in found if e["event"] == "gap"]
    assert gap["reason"] == "the microphone was away"
    assert found[-1]["event"] == "summary"
    assert found[-1]["heard_s"] == pytest.approx(2.0)
    assert found[-1]["lost_s"] == gap["end_s"] - gap["start_s"] > 0


def test_without_reconnecting_it_ends_with_one_line_and_a_summary(plug_in, capsys):
    plug_in([noise(20)])
    assert main(["--json", "--no-reconnect"]) == 1
    out, err = capsys.readouterr()
    assert events(out)[-1]["heard_s"] == pytest.approx(2.0)
    assert err == "error: USB microphone delivers nothing any more (unplugged?)\n"
    plug_in([PortAudioError("Device unavailable [PaErrorCode -9985]")])
    assert main(["--no-reconnect"]) == 1
    assert "Device unavailable [PaErrorCode -9985]); another program" in capsys.readouterr().err
    plug_in(names=())
    assert main(["--no-reconnect"]) == 1
    assert "no microphone found; plug one in" in capsys.readouterr().err


def test_blocks_without_numbers_are_a_loss_and_many_a_broken_device(plug_in):
    nan = np.full(BLOCK, np.nan, "f4")
    plug_in([[*noise(2), nan, *noise(2)], [nan] * 50])
    items = until(Microphone(None, 16_000), 2)
    assert losses(items)[0] == Lost(1600, "the device gave no numbers")
    assert np.isfinite(samples_of(items)).all()
    messages = [item.message for item in items if isinstance(item, Notice)]
    assert messages[-1].startswith("USB microphone gives NaN or infinity")


def test_digital_silence_is_said_once(plug_in):
    zeros = np.zeros(BLOCK, "f4")
    plug_in([[zeros] * 49 + noise(1), [zeros] * 50, noise(1)])
    items = until(Microphone(None, 16_000, channel=1), 2)
    mute = [i for i in items if isinstance(i, Notice) and "digital silence" in i.message]
    assert len(mute) == 1
    assert "Privacy & Security" in mute[0].message
    assert len(samples_of(items)) == 10 * 16_000  # silence is audio


def test_names_are_found_by_a_part_and_listed_when_they_fit_badly(plug_in):
    plug_in(names=("USB microphone", "Webcam", "USB headset", "USB"))
    assert find("headset").index == 3
    assert find("WEB").index == 2
    assert find("3").name == "USB headset"
    assert find("usb").index == 4  # a full name wins
    assert find(None).index == 1
    with pytest.raises(SetupError, match=r"could be any of 1: USB microphone.*; 3: USB headset"):
        find("USB ")
    with pytest.raises(AudioError, match=r"called 'array'; there are 1: USB microphone.* 4: USB,"):
        find("array")
    with pytest.raises(AudioError, match="called '0'"):
        find("0")  # the speaker


def test_without_a_default_the_first_is_heard(plug_in):
    plug_in(names=("A", "B")).default.device = (-1, -1)
    assert find(None).name == "A"


def test_what_waiting_cannot_change_is_an_error_at_once(plug_in, capsys):
    plug_in(names=("USB microphone", "USB headset"))
    assert main(["--device", "USB"]) == 1
    assert "--device USB could be any of" in capsys.readouterr().err
    assert main(["--device", "1", "--channel", "3"]) == 1
    assert "--channel 3: there are only those of 1: USB microphone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError("PortAudio library not found"), "sudo apt install libportaudio2"),
        (PortAudioError("Internal error"), "error: PortAudio does not start (Internal error)\n"),
    ],
)
def test_no_portaudio_is_one_line(capsys, monkeypatch, error, said):
    real = builtins.__import__

    def no_portaudio(name, *arguments, **options):
        if name == "sounddevice":
            raise error
        return real(name, *arguments, **options)

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(builtins, "__import__", no_portaudio)
    for command in ([], ["--list-devices"]):
        assert main(command) == 1
        assert said in capsys.readouterr().err


def test_devices_are_listed_with_rates_channels_and_the_default(plug_in, capsys):
    plug_in(names=("USB microphone", "Webcam"))
    assert main(["--list-devices"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "> 1: USB microphone, 2 channels, 48000 Hz (can do 44.1, 48 kHz)",
        "  2: Webcam, 2 channels, 48000 Hz (can do 44.1, 48 kHz)",
    ]
    plug_in(names=())
    assert device_lines() == []
