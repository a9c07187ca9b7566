import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from edge.model import softmax
from train.fit import Trainer, loss
from train.model import BandConv, Conv, TimNet, _shares
from train.presets import FUSIONS, PRESETS, Config, multiply_accumulates

SMALL = Config(n_blocks=3, n_filters=8, batch_size=16)


def windows(n=4, n_rows=30, n_features=39):
    return np.random.default_rng(0).normal(size=(n, n_rows, n_features)).astype(np.float32)


def stirred(model):
    """Give every weight and statistic a value of its own."""
    rng = np.random.default_rng(1)
    for variable in model.variables:
        variable.assign(variable + np.abs(rng.normal(size=variable.shape)).astype("f4") * 0.1)
    return model


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dilation", [1, 2, 8, 64])
def test_the_matrix_product_is_keras_dilated_convolution(dilation, reverse):
    x = windows(n_rows=20, n_features=5)
    layer = Conv(6, dilation, reverse)
    layer.build(5)
    stirred(layer)
    peer = keras.layers.Conv1D(6, 2, dilation_rate=dilation, padding="causal", use_bias=False)
    normalize = keras.layers.BatchNormalization()
    direction = slice(None, None, -1) if reverse else slice(None)
    peer.build((None, 20, 5))
    taps = layer.kernel.numpy().reshape(2, 5, 6)
    peer.set_weights([taps[direction]])
    normalize.build((None, 20, 6))
    normalize.set_weights(
        [w.numpy() for w in (layer.gamma, layer.beta, layer.mean, layer.variance)]
    )
    expected = tf.nn.relu(normalize(peer(x[:, direction]))).numpy()[:, direction]
    found = tf.transpose(layer(tf.transpose(x, (2, 0, 1))), (1, 2, 0)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("reverse", [False, True])
def test_streams_hear_one_side_only(reverse):
    layer = Conv(6, 2, reverse)
    layer.build(5)
    stirred(layer)
    z = np.random.default_rng(0).normal(size=(5, 1, 20)).astype("f4")
    changed = z.copy()
    changed[:, :, 10] += 1
    different = np.flatnonzero((layer(z) != layer(changed)).numpy().any(axis=(0, 1)))
    assert set(different) <= ({8, 10} if reverse else {10, 12})
    assert len(different)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("n_rows", [30, 147, 188])
def test_the_deployed_graph_answers_like_the_batch(name, n_rows):
    n_features = 66 if any(PRESETS[name].stems) else 39
    x = windows(3, n_rows, n_features)
    model = stirred(TimNet(PRESETS[name], n_rows, n_features, 7))
    graph = model.deploy(x)
    found = np.concatenate([graph(tf.constant(one[None]))["logits"] for one in x])
    np.testing.assert_allclose(found, model(x), rtol=1e-3, atol=1e-4)


def test_a_convolution_over_bands_is_that_of_keras():
    x = windows(2, 21, 10)
    layer = BandConv(6, 4, 5, 4, 2)
    layer.build(1)
    stirred(layer)
    peer = keras.layers.Conv2D(6, (4, 5), (4, 2), padding="same", use_bias=False)
    peer.build((None, 21, 10, 1))
    peer.set_weights([layer.kernel.numpy().reshape(4, 5, 1, 6)])
    normalize = keras.layers.BatchNormalization()
    normalize.build((None, 6, 5, 6))
    normalize.set_weights(
        [w.numpy() for w in (layer.gamma, layer.beta, layer.mean, layer.variance)]
    )
    expected = tf.nn.relu(normalize(peer(x[..., None]))).numpy()
    found = tf.transpose(layer(x[None]), (1, 2, 3, 0)).numpy()
    assert (1, *layer.n_out((21, 10)), 6) == (1, *expected.shape[1:])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_what_goes_past_the_stem_arrives_as_it_is():
    config = dataclasses.replace(SMALL, stems=(((3, 4, 3, 4, 2),),), beside=2)
    stem = TimNet(config, 30, 12, 7).members[0].stem
    x = windows(2, 30, 12)
    channels = stem(x).numpy()  # (channels, clips, frames)
    assert channels.shape == (3 * 5 + 4 * 2, 2, 8)
    np.testing.assert_array_equal(channels[-8:, 1, 3], x[1, 12:16, 10:].ravel())
    x[:, :, 10:] += 1
    np.testing.assert_array_equal(stem(x).numpy()[:-8], channels[:-8])


def test_a_bounded_network_keeps_within_its_bounds():
    member = stirred(TimNet(PRESETS["timnet-live"], 40, 66, 7)).members[0]
    z = tf.constant(1e4 * windows(2, 40, 66))
    assert member.stem.convs[0](z[None, :, :, :64]).numpy().max() == 6
    entered = member.streams[0].entry(member.stem(z)).numpy()
    assert (entered.min(), entered.max()) == (-3, 3)
    gated = member.streams[0].blocks[0][0](entered).numpy()
    assert gated.max() == 6


def test_several_answer_with_the_mean_of_their_logits():
    config = dataclasses.replace(SMALL, stems=(((3, 4, 3, 4, 2),), ()))
    model = stirred(TimNet(config, 30, 12, 7))
    x = windows(4, 30, 12)
    one, two = (member.answer(member.pooled(x)).numpy() for member in model.members)
    assert np.abs(one - two).max() > 0.01
    np.testing.assert_allclose(model(x), (one + two) / 2, atol=1e-5)
    assert model.embed(x).shape == (4, 2 * SMALL.n_filters)


def test_several_learn_each_on_its_own():
    stem, other = ((3, 4, 3, 4, 2),), ((2, 2, 3, 2, 2),)
    x, labels = learnable()
    learnt = []
    for stems in ((stem, ()), (stem, other)):
        trainer = Trainer(dataclasses.replace(SMALL, stems=stems), 30, 39, 3)
        trainer.reset(0)
        trainer.epoch(x, labels, np.random.default_rng(0))
        learnt.append([np.array(weight) for weight in trainer.model.members[0].weights])
    for one, two in zip(*learnt, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-4)


def test_factors_make_channels_alike_in_steps_that_int8_keeps():
    sizes = np.geomspace(0.1, 1, 48)
    pooled = sizes * np.random.default_rng(0).normal(size=(500, 48))
    shares = _shares(pooled)
    steps = 127 * shares / shares.max()
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-9)
    alike = (pooled * shares).std(axis=0)
    assert alike.max() / alike.min() < 1.5 < sizes.max() / sizes.min()


def test_presets_differ_as_their_names_say():
    variants = {name: config for name, config in PRESETS.items() if not any(config.stems)}
    sizes = {name: TimNet(c, 188, 39, 7).count_params() for name, c in variants.items()}
    assert sizes["timnet"] == sizes["timnet-td"]
    stream = 39 * 39 + 39 + 16 * (2 * 39 * 39 + 4 * 39)
    assert sizes["timnet"] == 2 * stream + 8 + 39 * 7 + 7
    assert sizes["timnet-td-sh"] - sizes["timnet-td"] == stream
    assert sizes["timnet-td-sa"] - sizes["timnet-td"] == 39 - 8
    assert sizes["timnet-td-cl"] - sizes["timnet-td"] == 39 * 128 + 128 + 128 * 7 - 39 * 7
    assert PRESETS["timnet-all"].shuffle
    assert PRESETS["timnet-all"].fusion == "static"
    assert PRESETS["timnet-all"].focal_gamma == 2


def test_dropout_grows_from_block_to_block():
    rates = [PRESETS["timnet-td"].dropout_of(block) for block in range(8)]
    np.testing.assert_allclose(rates, np.linspace(0.1, 0.3, 8))
    assert {PRESETS["timnet"].dropout_of(block) for block in range(8)} == {0.1}


def test_dropout_silences_whole_channels_of_single_clips():
    from train.model import spatial_dropout

    z = spatial_dropout(tf.ones((50, 40, 6)), 0.25, tf.constant([1, 2])).numpy()
    assert set(np.unique(z)) == {0.0, np.float32(1 / 0.75)}
    assert (z == z[:, :, :1]).all()
    assert abs((z == 0).mean() - 0.25) < 0.05
    assert len({tuple(column) for column in (z[:, :, 0] == 0).T}) > 1


def test_training_draws_dropout_and_inference_does_not():
    model = TimNet(
        dataclasses.replace(SMALL, **dataclasses.asdict(PRESETS["timnet-td"])), 30, 39, 7
    )
    x = windows()
    np.testing.assert_array_equal(model(x), model(x))
    first, second = (model(x, seed=tf.constant([0, n])).numpy() for n in (1, 2))
    assert np.abs(first - second).max() > 1e-3


def test_the_shuffled_stream_hears_a_fixed_order_at_inference():
    config = dataclasses.replace(SMALL, shuffle=True)
    one, two = (TimNet(config, 30, 39, 7, seed=seed).members[0] for seed in (1, 2))
    np.testing.assert_array_equal(one.order, two.order)
    assert sorted(one.order) == list(range(30))
    assert list(one.order) != list(range(30))


def test_fusions_follow_their_formulas():
    from train.model import Fusion

    rng = np.random.default_rng(0)
    f, b = rng.normal(size=(2, 3, 4, 5)).astype("f4")

    def softmax(x):
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)

    def attend(q, kv):
        return (softmax(q @ kv.transpose(0, 2, 1) / np.sqrt(5)) @ kv).mean(axis=1)

    query = rng.normal(size=5).astype("f4")
    weight = rng.normal(size=4).astype("f4")
    static = np.einsum("nb,nbc->nc", softmax((f + b) @ query / np.sqrt(5)), f + b)
    expected = {
        "dynamic": np.einsum("b,nbc->nc", weight, f + b),
        "static": static,
        "self": attend(f, f) + attend(b, b),
        "cross": attend(f, b) + attend(b, f),
    }
    assert set(expected) == set(FUSIONS)
    for kind, value in expected.items():
        layer = Fusion(kind)
        layer.build(4, 5)
        layer.set_weights({"dynamic": [weight], "static": [query]}.get(kind, []))
        np.testing.assert_allclose(
            layer([list(tf.unstack(f, axis=1)), list(tf.unstack(b, axis=1))]), value, atol=1e-5
        )


def test_the_loss_is_smoothed_cross_entropy_and_focus_lessens_the_easy():
    logits = np.array([[4.0, 0, 0], [0, 1, 2]], "f4")
    labels = np.array([0, 1])
    peer = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    expected = float(peer(np.eye(3)[labels], logits))
    assert float(loss(logits, labels, 0.1, 0.0)) == pytest.approx(expected, rel=1e-5)
    focal = keras.losses.CategoricalFocalCrossentropy(
        alpha=1.0, gamma=2.0, from_logits=True, label_smoothing=0.1
    )
    expected = float(focal(np.eye(3)[labels], logits))
    assert float(loss(logits, labels, 0.1, 2.0)) == pytest.approx(expected, rel=1e-5)
    weighted = loss(logits, labels, 0.1, 0.0, np.array([1.0, 3.0], "f4"))
    expected = 0.5 * sum(w * float(peer(np.eye(3)[[k]], logits[[i]]))
                         for i, (k, w) in enumerate([(0, 1), (1, 3)]))  # fmt: skip
    assert float(weighted) == pytest.approx(expected, rel=1e-5)


def test_a_saved_model_loads_and_answers_the_same(tmp_path):
    model = stirred(TimNet(PRESETS["timnet-all"], 30, 39, 7))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(windows()), model(windows()))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"fusion": "magic"}, "fusion must be one of"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
        ({"n_blocks": 0}, "n_blocks, n_filters and batch_size must be at least 1"),
        ({"stems": (((8, 3, 2),),)}, "stems must hold, for each network, any number of .filters"),
        ({"stems": ()}, "stems must hold, for each network, any number of .filters"),
        ({"beside": 2}, "beside needs a stem to go past"),
    ],
)
def test_a_wrong_config_is_refused(change, text):
    with pytest.raises(ValueError, match=text):
        dataclasses.replace(SMALL, **change)


@pytest.fixture(scope="module")
def trainer():
    return Trainer(SMALL, 30, 39, 3)


def learnable(n=40):
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=n)
    return windows(n) + 2 * np.eye(39, dtype="f4")[labels][:, None], labels


def test_training_learns_and_counts_every_clip_once(trainer):
    x, labels = learnable()
    trainer.reset(0)
    rng = np.random.default_rng(0)
    history = [trainer.epoch(x, labels, rng) for _ in range(60)]
    assert history[-1][0] < 0.7 * history[0][0]
    assert np.mean(history[-1][1] == labels) > 0.9
    assert np.mean(trainer.logits(x).argmax(axis=1) == labels) > 0.8


def test_a_reset_trainer_repeats_itself_without_compiling_again(trainer):
    x, labels = learnable()

    def losses(seed):
        trainer.reset(seed)
        rng = np.random.default_rng(0)
        return [trainer.epoch(x, labels, rng)[0] for _ in range(3)]

    first, other, again = losses(1), losses(2), losses(1)
    np.testing.assert_allclose(first, again, rtol=1e-4)
    assert not np.allclose(first, other, rtol=1e-3)
    assert trainer._step.experimental_get_tracing_count() == 1


@pytest.mark.parametrize(("balanced", "share"), [(False, 0.1), (True, 0.5)])
def test_a_balanced_loss_counts_labels_alike_and_another_counts_clips(balanced, share):
    # Windows that are all the same leave nothing to learn but how often each label is to be said.
    config = dataclasses.replace(SMALL, balanced=balanced, label_smoothing=0.0, n_blocks=1)
    x, labels = np.zeros((80, 30, 39), "f4"), np.arange(80) % 10 == 0
    trainer = Trainer(config, 30, 39, 2)
    rng = np.random.default_rng(0)
    trainer.reset(0, labels.astype(int))
    for _ in range(60):
        trainer.epoch(x, labels.astype(int), rng)
    assert softmax(trainer.logits(x))[0, 1] == pytest.approx(share, abs=0.06)


def test_answers_do_not_depend_on_the_batch(trainer):
    x, _ = learnable(21)
    whole = trainer.logits(x)
    single = np.concatenate([trainer.logits(x[i : i + 1]) for i in range(len(x))])
    np.testing.assert_allclose(whole, single, atol=1e-5)


@pytest.mark.parametrize("name", ["timnet-live", "timnet-all", "timnet-td-cl"])
def test_multiplications_are_counted_as_tensorflow_counts_them(name):
    model = TimNet(PRESETS[name], 200, 66, 7)
    graph = model.deploy(windows(3, 200, 66))
    counted = 0
    for op in graph.graph.get_operations():
        if op.type == "Conv2D":
            _, frames, bands, _ = op.outputs[0].shape
            counted += int(np.prod(op.inputs[1].shape) * frames * bands)
    head = multiply_accumulates(PRESETS[name], 200, 66, 7) - counted
    assert 0 <= head < 0.01 * counted  # what is left are the layers behind the streams
