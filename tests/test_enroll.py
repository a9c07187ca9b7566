import dataclasses
import json

import numpy as np
import pytest

from edge import enroll
from edge.__main__ import main as edge
from edge.demo import clips as demo_clips
from edge.enroll import network
from edge.frontend import STREAM
from edge.model import Model
from edge.speaker import SpeakerNorm


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def files():
    """The shipped recordings of one speaker."""
    return [str(clip.path) for clip in demo_clips() if clip.path.name.startswith("03")]


def events(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_voice_is_stored_as_statistics_and_nothing_else(files, home, capsys):
    assert enroll.main(["anna", *files]) == 0
    assert "s of speech, statistics only" in capsys.readouterr().out
    path = home / "ser" / "voices" / "anna.json"
    stored = json.loads(path.read_text())
    assert set(stored) == {"format", "features", "n_rows", "mean", "variance", "leaning"}
    assert len(stored["mean"]) == len(stored["variance"]) == Model().card.frontend.n_features
    assert set(stored["leaning"]) == {"model", "seconds", "excess"}
    assert len(stored["leaning"]["seconds"]) == len(stored["leaning"]["excess"]) == 7
    assert path.stat().st_mode & 0o077 == 0
    assert enroll.main(["--list"]) == 0
    assert capsys.readouterr().out == "anna\n"


def test_what_was_stored_is_what_was_heard(files):
    card = Model().card
    frontend = card.frontend
    assert enroll.main(["anna", *files]) == 0
    known = enroll.load("anna", card)
    assert 5 < known.statistics.n_rows * frontend.hop_samples / frontend.sample_rate_hz < 15
    stranger, friend = SpeakerNorm(frontend), SpeakerNorm(frontend, known.statistics)
    assert np.abs(stranger.statistics.mean - friend.statistics.mean).max() > 1
    assert 1 < known.leaning.seconds.sum() < 15
    np.testing.assert_allclose(known.leaning.excess.sum(axis=1), 0, atol=1e-3)
    assert np.abs(known.leaning.shift).max() > 0.01


def test_of_another_model_only_the_voice_is_known(files):
    card = Model().card
    assert enroll.main(["anna", *files]) == 0
    other = dataclasses.replace(card, file=dataclasses.replace(card.file, sha256="0" * 64))
    known = enroll.load("anna", other)
    assert known.statistics.n_rows == enroll.load("anna", card).statistics.n_rows
    assert known.leaning is None


def test_a_voice_that_was_stored_before_there_were_leanings_is_known(files, home):
    assert enroll.main(["anna", *files]) == 0
    path = home / "ser" / "voices" / "anna.json"
    stored = json.loads(path.read_text())
    del stored["leaning"]
    path.write_text(json.dumps(stored))
    assert enroll.load("anna", Model().card).leaning is None


def test_a_known_voice_is_heard_otherwise_than_a_stranger(files, capsys):
    assert enroll.main(["anna", *files]) == 0
    capsys.readouterr()
    answers = []
    for more in ([], ["--speaker", "anna"]):
        assert edge([files[0], "--json", *more]) == 0
        (clip,) = [e for e in events(capsys) if e["event"] == "clip"]
        answers.append(clip["probs"])
    assert answers[0] != answers[1]


def test_too_little_speech_stores_nothing(files, home, capsys):
    assert enroll.main(["anna", files[0]]) == 1
    assert "expected at least 5 s of speech, heard 1." in capsys.readouterr().err
    assert not (home / "ser").exists()


def test_where_nothing_can_be_stored_nobody_has_to_speak(files, capsys, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", "/dev/null/home")
    monkeypatch.setattr(enroll, "Model", None)  # it is not even loaded
    assert enroll.main(["anna", *files]) == 1
    assert "error: /dev/null: cannot be written" in capsys.readouterr().err


def test_a_voice_can_be_forgotten(files, home, capsys):
    assert enroll.main(["anna", *files]) == 0
    assert enroll.main(["anna", "--forget"]) == 0
    assert not list((home / "ser" / "voices").iterdir())
    assert enroll.main(["anna", "--forget"]) == 1
    assert "nobody is enrolled as anna" in capsys.readouterr().err


def test_an_unknown_name_says_who_is_known(files, capsys):
    assert enroll.main(["anna", *files]) == 0
    assert edge([files[0], "--speaker", "bert"]) == 1
    assert "nobody is enrolled as bert (enrolled: anna)" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../anna", "a b", ""])
def test_a_name_never_leaves_the_folder(name, files, capsys):
    assert enroll.main([name, *files]) == 1
    assert "a name is made of letters" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"mean": [0.0]}, "expected 66 finite numbers"),
        ({"variance": [-1.0] * 66}, "66 finite numbers, at least 0"),
        ({"n_rows": 0}, "expected n_rows above 0, not 0"),
        ({"leaning": {"model": network(Model().card), "seconds": [1] * 7}}, "'excess'"),
        ({"features": "other"}, "enrolled for a model with other features"),
    ],
)
def test_a_damaged_voice_is_refused(change, text, files, home, capsys):
    assert enroll.main(["anna", *files]) == 0
    path = home / "ser" / "voices" / "anna.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert edge([files[0], "--speaker", "anna"]) == 1
    assert text in capsys.readouterr().err


def test_other_features_are_another_recipe():
    frontend = Model().card.frontend
    assert enroll.recipe(frontend) != enroll.recipe(STREAM)
    rows = np.random.default_rng(0).normal(size=(9, frontend.n_features))
    assert enroll.recipe(frontend) == enroll.recipe(frontend.with_normalization(rows))
