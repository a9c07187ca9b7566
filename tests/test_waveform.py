"""Models that hear samples answer like the front end and the model behind it."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from convert import waveform
from convert.frontend import features, heard_first
from convert.run import Run
from edge.audio import read_file
from edge.card import Card
from edge.frontend import LOG_MEL, PUBLISHED, STREAM


def measured(frontend):
    rng = np.random.default_rng(0)
    return frontend.with_normalization(rng.normal(size=(9, frontend.n_features), scale=30))


@pytest.mark.parametrize(
    "frontend",
    [
        STREAM,
        PUBLISHED,  # centred, with top_db
        dataclasses.replace(STREAM, n_fft=600, hop_samples=250),  # a length that is no power of 2
        dataclasses.replace(STREAM, n_fft=509, hop_samples=200),  # a prime, nothing to share
        LOG_MEL,  # adapts to the speaker
        dataclasses.replace(LOG_MEL, adapt_s=0.0),
        dataclasses.replace(STREAM, low_hz=300.0, high_hz=3400.0),
    ],
)
def test_the_front_end_as_a_graph_is_the_front_end(frontend, clips):
    frontend = measured(frontend)
    n_rows = 30
    n = frontend.n_samples(n_rows)
    for clip in clips[:3]:
        samples = read_file(clip.path, frontend.sample_rate_hz)[:n]
        expected = heard_first(samples, frontend)
        found = features(tf.constant(samples), frontend, n_rows).numpy()
        np.testing.assert_allclose(found, expected, atol=2e-3)


def test_silence_is_the_floor_in_both():
    frontend = measured(STREAM)
    samples = np.zeros(frontend.n_samples(20), np.float32)
    expected = heard_first(samples, frontend)
    np.testing.assert_allclose(
        features(tf.constant(samples), frontend, 20).numpy(), expected, atol=1e-3
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from train.model import TimNet
    from train.presets import PRESETS

    folder = tmp_path_factory.mktemp("run")
    card = Card("tiny", ("a", "b", "c"), measured(LOG_MEL), 100, temperature=1.3)
    card.write(folder / "card.json")
    config = dataclasses.replace(PRESETS["timnet"], n_blocks=2, n_filters=8)
    model = TimNet(config, card.n_rows, card.frontend.n_features, 3)
    windows = np.random.default_rng(1).normal(size=(4, card.n_rows, card.frontend.n_features))
    model.save_deployed(str(folder / "saved_model"), windows.astype("f4"))
    return Run(folder, "tiny")


def test_both_files_answer_like_front_end_and_model_with_builtin_operators(run, tmp_path):
    made = waveform.make(run, tmp_path)
    assert [m.path.name for m in made] == [
        "tiny.waveform.tflite",
        "tiny.waveform-coreml.mlpackage",
    ]
    for model in made:
        assert model.parity.prob_difference < 1e-4
        assert model.parity.n_clips == 14
        assert model.parity.within
        assert Card.read_for(model.path).file.precision == "waveform"
        assert not any("flex" in name.lower() for name in model.operators)
    answer = waveform.tflite_probs(made[0].path)
    quiet = answer(np.zeros(run.card.frontend.n_samples(100), np.float32))
    np.testing.assert_allclose(quiet.sum(), 1, rtol=1e-5)
