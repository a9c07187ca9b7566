import numpy as np
import pytest

from edge.card import Card
from edge.errors import SerError
from edge.frontend import LOG_MEL
from edge.storage import write_json
from train.calibrate import (
    Answers,
    calibration_error,
    coverage,
    fit_temperature,
    reliability,
    threshold,
)
from train.calibrate import run as calibrate


def drawn(n=4000, sharpness=1.0, seed=0):
    """Answers whose probabilities are right when divided by ``sharpness``."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, 4)) * 2
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(4, p=p) for p in probs])
    return Answers((logits * sharpness).astype(np.float32), np.arange(n), labels)


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_is_found(sharpness):
    assert fit_temperature(drawn(sharpness=sharpness)) == pytest.approx(sharpness, rel=0.06)


def test_calibrated_answers_have_a_small_error_and_overconfident_ones_a_large_one():
    found = drawn(sharpness=3.0)
    before, after = (calibration_error(reliability(found.probs(t), found.labels)) for t in (1, 3))
    assert after < 0.03 < 0.1 < before


def test_windows_of_a_clip_are_averaged():
    found = Answers(
        np.array([[4, 0], [0, 4], [0, 4]], np.float32), np.array([0, 0, 1]), np.array([0, 1])
    )
    np.testing.assert_allclose(found.probs(1.0)[0], [0.5, 0.5], atol=1e-6)
    assert found.probs(1.0)[1, 1] > 0.95


def test_the_surest_answers_come_first():
    probs = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.45, 0.55]])
    curve = coverage(probs, np.array([0, 1, 1, 0]))
    assert [round(p["coverage"], 2) for p in curve] == [0.25, 0.5, 0.75, 1.0]
    assert [round(p["right"], 2) for p in curve] == [1.0, 1.0, 0.67, 0.5]
    assert threshold(curve) == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("left_out", "corpus", "text"),
    [
        (["03"], "emodb", "they differ in 08"),
        (["03", "08", "11"], "emodb", "they differ in 11"),
        (["03", "08"], "savee", "differ in corpus"),
    ],
)
def test_the_runs_must_be_of_the_same_speakers(tmp_path, left_out, corpus, text):
    settings = {"model": {}, "frontend": {}, "window_s": 3.0, "epochs": 1}
    for speaker in left_out:
        write_json(tmp_path / "loso" / f"speaker-{speaker}" / "result.json", {})
    write_json(tmp_path / "loso" / "settings.json", {"corpus": corpus, **settings})
    write_json(tmp_path / "shipped" / "settings.json", {"corpus": "emodb", **settings})
    write_json(tmp_path / "shipped" / "model" / "result.json", {})
    card = Card("x", ("a", "b"), LOG_MEL, 10, provenance={"speakers": ["03", "08"]})
    card.write(tmp_path / "shipped" / "model" / "card.json")
    with pytest.raises(SerError, match=text):
        calibrate(tmp_path / "loso", tmp_path / "shipped")
