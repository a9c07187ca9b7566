"""The weights that training starts from, and the voices that they were learnt from."""

import dataclasses
import json

import numpy as np
import pytest
import soundfile

from edge.audio import read_file
from edge.errors import SerError
from train import pretrain
from train.fit import Trainer
from train.presets import PRESETS

PATHS = (
    "games/fillets-ng/sound/city/cs/vit-m-a.ogg",
    "games/fillets-ng/sound/share/borejokes/nl/b-v-b.ogg",
    "games/fillets-ng/sound/city/cs/vit-hs-c.ogg",  # neither fish
    "games/hedgewars/Data/Sounds/voices/Pirate/Yes.ogg",
    "games/hedgewars/Data/Sounds/voices/Robot/Yes.ogg",
    "games/hedgewars/Data/Sounds/splash.ogg",
)


@pytest.fixture
def packages(tmp_path, clips):
    speech = read_file(clips[0].path, 16_000)
    for path in PATHS:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / path, speech, 16_000)
    return tmp_path


def test_a_voice_is_a_character_of_a_game(packages):
    cry = packages / "games/hedgewars/Data/Sounds/voices/Pirate/Ouch.ogg"
    soundfile.write(cry, np.zeros(4_000), 16_000)
    found = pretrain.voices(packages)
    assert found.speakers == (
        "fillets-ng-data-cs-m", "fillets-ng-data-nl-v", "hedgewars-data-Pirate",
    )  # fmt: skip
    assert "GPL" in found.licence


def test_no_voice_is_heard_more_than_others(packages, monkeypatch):
    monkeypatch.setattr(pretrain, "MOST_CLIPS", 2)
    folder = packages / "games/hedgewars/Data/Sounds/voices/Pirate"
    for name in "abc":
        (folder / f"{name}.ogg").write_bytes((folder / "Yes.ogg").read_bytes())
    names = [clip.speaker for clip in pretrain.voices(packages).clips]
    assert names.count("hedgewars-data-Pirate") == 2


def test_a_package_that_is_missing_is_named(packages, capsys):
    (packages / PATHS[3]).unlink()
    assert pretrain.main(["--data", str(packages), "--out", str(packages / "s.npz")]) == 1
    assert "no voices of hedgewars-data" in capsys.readouterr().err
    assert not (packages / "s.npz").exists()


def test_a_clip_that_cannot_be_read_is_named(packages):
    (packages / PATHS[3]).write_bytes(b"no audio")
    with pytest.raises(SerError, match=r"Yes\.ogg: cannot be read"):
        pretrain.voices(packages)


def test_what_was_learnt_is_what_training_starts_from(packages, monkeypatch):
    small = dataclasses.replace(PRESETS["timnet-live"], n_blocks=1, speeds=(), n_noisy=0)
    monkeypatch.setitem(pretrain.PRESETS, "timnet-live", small)
    out = packages / "start.npz"
    assert pretrain.main(["--data", str(packages), "--epochs", "2", "--out", str(out)]) == 0
    about = json.loads((packages / "start.json").read_text())
    assert (about["n_clips"], about["n_voices"], about["epochs"]) == (3, 3, 2)
    assert about["lesson_left"] > 0

    monkeypatch.setattr(pretrain, "START", out)
    trainer = Trainer(small, 40, 66, 7)
    trainer.reset(0)
    learnt = [np.array(v) for v in trainer.model.trunk]
    kernel = trainer.model.members[0].output_layer.kernel
    output = np.array(kernel)
    trainer.reset(1)
    with np.load(out) as stored:
        for number, weight in enumerate(learnt):
            np.testing.assert_array_equal(weight, stored[f"weight_{number}"])
            np.testing.assert_array_equal(trainer.model.trunk[number], weight)
    assert np.abs(kernel - output).max() > 0.1  # that is drawn anew


def test_the_weights_that_ship_fit_the_preset_that_ships_and_no_other():
    Trainer(PRESETS["timnet-live"], 40, 66, 7)
    with pytest.raises(SerError, match="another shape"):
        Trainer(dataclasses.replace(PRESETS["timnet-live"], n_filters=40), 40, 66, 7)
