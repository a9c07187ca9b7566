import json
import shutil

import numpy as np
import pytest

from edge.card import Card
from edge.errors import ModelError
from edge.model import Model, default_model, dequantize, quantize, softmax
from edge.storage import write_with


@pytest.fixture
def copy(tmp_path):
    """The shipped model, to be damaged."""
    path = tmp_path / default_model().name
    shutil.copy(default_model(), path)
    shutil.copy(default_model().with_suffix(".json"), path.with_suffix(".json"))
    return path


def change_card(path, **changes):
    card = path.with_suffix(".json")
    card.write_text(json.dumps(json.loads(card.read_text()) | changes))


def test_the_shipped_model_is_int8_and_has_a_complete_card():
    card = Model().card
    assert card.file.precision == "int8"
    assert card.provenance["held_out_speakers"] == ["03", "09"]
    assert not {"03", "09"} & set(card.provenance["speakers"])
    assert card.provenance["licence"] == "EMO-DB (Burkhardt et al., 2005): CC0 1.0"


def test_a_damaged_model_is_refused(copy):
    content = bytearray(copy.read_bytes())
    content[len(content) // 2] ^= 1
    copy.write_bytes(content)
    with pytest.raises(ModelError, match="SHA-256 differs"):
        Model(copy)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"format": 1}, "expected a card of format 3, not 1"),
        ({"extra": 1}, "missing or unknown fields extra"),
        ({"n_rows": 99}, r"card says input float32 or int8 \(1, 99, 66\)"),
        ({"labels": ["a", "b"]}, r"card says output float32 or int8 \(1, 2\)"),
        ({"labels": ["a", "a"]}, "two or more different labels"),
        ({"temperature": 0}, "temperature must be above 0, not 0"),
        ({"uncertain_below": 1.5}, r"uncertain_below must be in \[0, 1\], not 1.5"),
        ({"file": None}, "its card belongs to None"),
        ({"frontend": {}}, "front end: missing or unknown fields"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(copy, changes, text):
    change_card(copy, **changes)
    with pytest.raises(ModelError, match=text):
        Model(copy)


def test_missing_files_are_named(copy, tmp_path):
    copy.with_suffix(".json").unlink()
    with pytest.raises(ModelError, match="no such card"):
        Model(copy)
    with pytest.raises(ModelError, match="cannot read the model"):
        Model(tmp_path / "absent.tflite")
    with pytest.raises(ModelError, match=r"expected a \.tflite file"):
        Model(copy.with_suffix(".json"))


def test_a_file_that_is_no_model_is_refused(copy):
    import hashlib

    copy.write_bytes(b"nonsense" * 100)
    file = {"name": copy.name, "precision": "int8"}
    change_card(copy, file=file | {"sha256": hashlib.sha256(copy.read_bytes()).hexdigest()})
    with pytest.raises(ModelError, match="cannot run it"):
        Model(copy)


def test_the_card_survives_a_round_trip(tmp_path):
    card = Card.read(default_model().with_suffix(".json"))
    card.write(tmp_path / "card.json")
    assert Card.read(tmp_path / "card.json") == card


def test_quantization_rounds_and_saturates():
    tensor = {"dtype": np.int8, "quantization": (0.5, -10)}
    values = np.array([0.0, 0.26, -0.26, 1000.0, -1000.0], np.float32)
    steps = quantize(values, tensor)
    assert steps.dtype == np.int8
    assert steps.tolist() == [-10, -9, -11, 127, -128]
    np.testing.assert_allclose(dequantize(steps, tensor), [0, 0.5, -0.5, 68.5, -59])


def test_a_louder_window_than_any_in_training_still_saturates():
    model = Model()
    rows = np.full((model.card.n_rows, model.card.frontend.n_features), 1e6, np.float32)
    probs = model.probs(rows)
    np.testing.assert_allclose(probs.sum(), 1, rtol=1e-5)


def test_a_window_of_the_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r"window: expected shape \(\d+, 66\), not \(5, 66\)"):
        Model().probs(np.zeros((5, 66), np.float32))


def test_threads_do_not_change_the_answer():
    rng = np.random.default_rng(0)
    one, two = Model(n_threads=1), Model(n_threads=2)
    rows = rng.normal(size=(one.card.n_rows, 66)).astype(np.float32) * 30
    np.testing.assert_array_equal(one.logits(rows), two.logits(rows))
    with pytest.raises(ValueError, match="n_threads must be at least 1"):
        Model(n_threads=0)


def test_softmax_of_large_logits():
    np.testing.assert_allclose(softmax(np.array([1000.0, 1000.0])), [0.5, 0.5])


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "kept.json"
    path.write_text("old")

    def fail(temporary):
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_with(path, fail)
    assert [p.name for p in tmp_path.iterdir()] == ["kept.json"]
    assert path.read_text() == "old"


def test_the_card_s_temperature_softens_the_probabilities(copy):
    change_card(copy, temperature=2.5)
    shipped, softened = Model(), Model(copy)
    rows = np.zeros((shipped.card.n_rows, shipped.card.frontend.n_features), np.float32)
    assert np.allclose(softened.probs(rows), softmax(shipped.logits(rows) / 2.5))
    assert softened.probs(rows).max() < shipped.probs(rows).max()
