import itertools

import numpy as np
import pytest
import soundfile

from edge.audio import read_file
from edge.demo import clips as demo_clips
from edge.errors import SerError
from edge.model import Model
from train.conditions import (
    Spoken,
    Surroundings,
    answer,
    conditions,
    evened,
    false_alarms,
    heard_in,
    others_of,
    uar,
    voice_of,
)

RATE = 16_000
AROUND = Surroundings({"rain": [np.random.default_rng(0).normal(size=RATE).astype("f4")]}, None)


@pytest.fixture(scope="module")
def model():
    return Model()


@pytest.fixture(scope="module")
def spoken():
    return [
        Spoken(clip.path.name[:2], clip.label, read_file(clip.path, RATE)) for clip in demo_clips()
    ]


def test_silence_is_a_wrong_answer(spoken):
    clips = spoken[:2]
    assert uar(clips, [clips[0].label, clips[1].label]) == 100
    assert uar(clips, [clips[0].label, None]) == 50
    assert uar(clips, [None, None]) == 0


def test_an_answer_says_when_it_was_right_for_good(model, spoken):
    for clip in spoken[:3]:
        said = answer(model, "voice", clip)
        assert said.label in model.card.labels
        assert 0 < said.heard_s <= len(clip.samples) / RATE + 0.1
        if said.first_right_s is not None:
            assert 0.5 < said.first_right_s <= len(clip.samples) / RATE + 0.1


@pytest.mark.parametrize("name", ["rain 10 dB", "babble 10 dB", "white 10 dB"])
def test_noise_lies_as_far_below_the_voice_as_its_name_says(spoken, name):
    change = conditions(AROUND, spoken, RATE)[name]
    (noisy,) = heard_in(change, spoken[:1])
    voice, added = spoken[0].samples, noisy.samples - spoken[0].samples
    assert 10 * np.log10(np.mean(voice**2) / np.mean(added**2)) == pytest.approx(10, abs=0.1)


def test_the_first_seconds_are_the_first_seconds(spoken):
    (short,) = heard_in(conditions(AROUND, spoken, RATE)["first 0.5 s"], spoken[:1])
    assert np.array_equal(short.samples, spoken[0].samples[: RATE // 2])


def test_a_room_that_was_measured_with_a_clap_loses_the_colour_of_the_clap():
    rng = np.random.default_rng(0)
    time_s = np.arange(RATE // 2) / RATE
    room = 0.3 * rng.normal(size=len(time_s)) * 10 ** (-3 * time_s / 0.4)
    room[0] = 3.0
    # A resonance: most of such a sound lies around 2 kHz.
    clap = np.sin(2 * np.pi * 2000 * time_s) * np.exp(-time_s / 0.001)
    measured = np.convolve(room, clap)[: len(room)]

    def bands_db(response):
        power = np.abs(np.fft.rfft(response)) ** 2
        hz = np.fft.rfftfreq(len(response), 1 / RATE)
        edges = [250, 500, 1000, 2000, 4000, 7000]
        return 10 * np.log10(
            [np.mean(power[(hz >= a) & (hz < b)]) for a, b in itertools.pairwise(edges)]
        )

    assert np.ptp(bands_db(measured)) > 15
    even = evened(measured, RATE)
    assert np.ptp(bands_db(even)) < np.ptp(bands_db(room)) + 2
    assert np.argmax(np.abs(even)) <= 2
    fades = [np.sum(x[RATE // 10 :] ** 2) / np.sum(x**2) for x in (room, even)]
    assert fades[1] == pytest.approx(fades[0], rel=0.5)


def test_what_is_known_of_a_speaker_comes_from_their_other_clips():
    who = ("03", "03", "08", "03", "03")
    moods = ("anger", "neutral", "neutral", "fear", "neutral")
    clips = [Spoken(s, m, np.zeros(1, "f4")) for s, m in zip(who, moods, strict=True)]
    assert others_of(clips, 0, neutral=False) == [1, 3, 4]
    assert others_of(clips, 1, neutral=True) == [4]
    assert others_of(clips, 2, neutral=False) == []


def test_so_much_is_known_of_a_speaker_as_was_asked_for(model, spoken):
    clips = [clip for clip in spoken if clip.speaker == "03"]
    assert voice_of(model, "voice", clips, 0.0, 0) is None
    assert voice_of(model, "voice", [], 10.0, 0) is None
    some, all_of_it = (voice_of(model, "voice", clips, s, 0) for s in (3.0, np.inf))
    row_s = model.card.frontend.hop_samples / RATE
    some_s, all_s = (voice.statistics.n_rows * row_s for voice in (some, all_of_it))
    assert 3 <= some_s < 3 + max(len(c.samples) for c in clips) / RATE
    assert 2 * some_s < all_s < sum(len(c.samples) for c in clips) / RATE
    assert some.leaning.seconds.sum() < all_of_it.leaning.seconds.sum()


def test_silence_gives_no_report_with_the_gate_and_many_without(model):
    silence = [np.zeros(20 * RATE, np.float32)]
    assert false_alarms(model, "voice", silence)["utterances_per_hour"] == 0
    assert false_alarms(model, "off", silence)["utterances_per_hour"] > 0


def test_the_sounds_of_esc10_are_read_class_by_class(tmp_path):
    for name, n in (("001 - Dog bark", 3), ("002 - Rain", 2)):
        for number in range(n):
            (tmp_path / "esc10" / name).mkdir(parents=True, exist_ok=True)
            path = tmp_path / "esc10" / name / f"{number}.ogg"
            soundfile.write(path, np.zeros(RATE), RATE)
    (tmp_path / "esc10" / "README.md").touch()
    found = Surroundings.read(tmp_path, RATE)
    assert {name: len(sounds) for name, sounds in found.sounds.items()} == {
        "dog bark": 3,
        "rain": 2,
    }
    assert found.room is None
    with pytest.raises(SerError, match="expected ESC-10's folders there"):
        Surroundings.read(tmp_path / "absent", RATE)
