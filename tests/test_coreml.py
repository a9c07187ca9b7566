"""Core ML packages, as far as they can be checked on any system, and on a Mac to the end."""

import dataclasses
import json
import platform
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from convert import coreml
from convert.graph import classifier
from convert.mlprogram import MLProgram, answering
from convert.operators import OPERATORS
from convert.palette import Inputs, palette, unfolded
from edge.card import Card, ModelFile, content_sha256
from edge.coreml import COMPUTE_UNITS, CoreMLRuntime
from edge.errors import ModelError
from edge.frontend import STREAM
from edge.model import Model, softmax
from edge.quiet import quiet_native

with quiet_native():
    import coremltools
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813
    from coremltools.converters.mil.mil import types as mil_types

rng = np.random.default_rng(0)
KERNEL = rng.normal(size=(4, 3, 2, 1)).astype("f4")  # out, in, height, width
BIAS = rng.normal(size=4).astype("f4")
MATRIX = rng.normal(size=(5, 4)).astype("f4")


def conv_in_tf(x, pads, **more):
    x = tf.transpose(tf.pad(x, [[0, 0], [0, 0], pads, [0, 0]]), (0, 2, 3, 1))
    y = tf.nn.conv2d(x, KERNEL.transpose(2, 3, 1, 0), padding="VALID", **more) + BIAS
    return tf.transpose(y, (0, 3, 1, 2))


# By operator: the shape of a random input, the operator in MIL, and what TensorFlow says.
CASES = {
    "conv": (
        (1, 3, 9, 1),
        lambda x: mb.conv(
            x=x, weight=KERNEL, bias=BIAS, strides=[2, 1], dilations=[3, 1],
            pad_type="custom", pad=[3, 1, 0, 0],
        ),
        lambda x: conv_in_tf(x, [3, 1], strides=[2, 1], dilations=[3, 1]),
    ),
    "pad": (
        (1, 3, 4, 1),
        lambda x: mb.pad(x=x, pad=[2, 1, 0, 0], mode="constant", constant_val=0.5),
        lambda x: tf.pad(x, [[0, 0], [0, 0], [2, 1], [0, 0]], constant_values=0.5),
    ),
    "linear": (
        (2, 4),
        lambda x: mb.linear(x=x, weight=MATRIX, bias=np.ones(5, "f4")),
        lambda x: tf.matmul(x, MATRIX.T) + 1,
    ),
    "matmul": (
        (2, 3, 4),
        lambda x: mb.matmul(x=x, y=MATRIX, transpose_y=True),
        lambda x: tf.matmul(x, np.broadcast_to(MATRIX, (2, 5, 4)), transpose_b=True),
    ),
    "softmax": ((2, 7), lambda x: mb.softmax(x=x, axis=-1), tf.nn.softmax),
    "sigmoid": ((3, 7), lambda x: mb.sigmoid(x=x), tf.sigmoid),
    "relu": ((3, 7), lambda x: mb.relu(x=x), tf.nn.relu),
    "relu6": ((3, 7), lambda x: mb.relu6(x=mb.mul(x=x, y=9.0)), lambda x: tf.nn.relu6(9 * x)),
    "concat": (
        (2, 3),
        lambda x: mb.concat(values=[x, MATRIX[:2, :4], x], axis=1),
        lambda x: tf.concat([x, MATRIX[:2, :4], x], axis=1),
    ),
    "stack": (
        (2, 4),
        lambda x: mb.stack(values=[x, MATRIX[:2]], axis=1),
        lambda x: tf.stack([x, MATRIX[:2]], axis=1),
    ),
    "split": (
        (2, 6),
        lambda x: mb.split(x=x, split_sizes=[1, 2, 3], axis=1)[2],
        lambda x: tf.split(x, [1, 2, 3], axis=1)[2],
    ),
    "gather": (
        (5, 3),
        lambda x: mb.gather(x=x, indices=np.array([4, 0, 4, 2], np.int32), axis=0),
        lambda x: tf.gather(x, [4, 0, 4, 2], axis=0),
    ),
    "reshape": (
        (2, 6),
        lambda x: mb.reshape(x=x, shape=[3, 1, 4]),
        lambda x: tf.reshape(x, [3, 1, 4]),
    ),
    "slice_by_index": (
        (5, 6),
        lambda x: mb.slice_by_index(
            x=x, begin=[1, 0], end=[2, -1], stride=[1, 2], begin_mask=[False, True],
            squeeze_mask=[True, False],
        ),
        lambda x: x[1, :-1:2],
    ),
    "slice_by_size": (
        (5, 6),
        lambda x: mb.slice_by_size(x=x, begin=[1, 2], size=[2, -1]),
        lambda x: tf.slice(x, [1, 2], [2, -1]),
    ),
    "cast": (
        (2, 3),
        lambda x: mb.cast(x=mb.cast(x=x, dtype="int32"), dtype="fp32"),
        lambda x: tf.cast(tf.cast(x, tf.int32), tf.float32),
    ),
    "add": ((2, 5), lambda x: mb.add(x=x, y=MATRIX[:1, :1]), lambda x: x + MATRIX[0, 0]),
    "sub": ((2, 4), lambda x: mb.sub(x=x, y=MATRIX[:1]), lambda x: x - MATRIX[:1]),
    "mul": ((2, 4), lambda x: mb.mul(x=x, y=MATRIX[:1]), lambda x: x * MATRIX[:1]),
    "real_div": ((2, 4), lambda x: mb.real_div(x=x, y=MATRIX[:1]), lambda x: x / MATRIX[:1]),
    "maximum": ((2, 4), lambda x: mb.maximum(x=x, y=0.25), lambda x: tf.maximum(x, 0.25)),
    "minimum": ((2, 4), lambda x: mb.minimum(x=x, y=0.25), lambda x: tf.minimum(x, 0.25)),
    "abs": ((2, 4), lambda x: mb.abs(x=x), tf.abs),
    "tanh": ((2, 4), lambda x: mb.tanh(x=x), tf.tanh),
    "sqrt": ((2, 4), lambda x: mb.sqrt(x=mb.square(x=x)), lambda x: tf.sqrt(x * x)),
    "square": ((2, 4), lambda x: mb.square(x=x), tf.square),
    "exp": ((2, 4), lambda x: mb.exp(x=x), tf.exp),
    "rsqrt": (
        (2, 4),
        lambda x: mb.rsqrt(x=mb.square(x=x), epsilon=0.01),
        lambda x: tf.math.rsqrt(x * x + 0.01),
    ),
    "log": (
        (2, 4),
        lambda x: mb.log(x=mb.square(x=x), epsilon=0.01),
        lambda x: tf.math.log(x * x + 0.01),
    ),
    "reduce_mean": (
        (2, 3, 4),
        lambda x: mb.reduce_mean(x=x, axes=[0, 2], keep_dims=False),
        lambda x: tf.reduce_mean(x, [0, 2]),
    ),
    "reduce_sum": (
        (2, 3, 4),
        lambda x: mb.reduce_sum(x=x, axes=[-1], keep_dims=True),
        lambda x: tf.reduce_sum(x, [-1], keepdims=True),
    ),
    "reduce_max": (
        (2, 3, 4),
        lambda x: mb.reduce_max(x=x, axes=[1], keep_dims=False),
        lambda x: tf.reduce_max(x, [1]),
    ),
    "transpose": (
        (2, 3, 4),
        lambda x: mb.transpose(x=x, perm=[2, 0, 1]),
        lambda x: tf.transpose(x, [2, 0, 1]),
    ),
    "expand_dims": (
        (2, 3),
        lambda x: mb.expand_dims(x=x, axes=[0, 2]),
        lambda x: x[None, :, None, :],
    ),
    "squeeze": ((2, 1, 3), lambda x: mb.squeeze(x=x, axes=[1]), lambda x: tf.squeeze(x, [1])),
}  # fmt: skip

# These have no counterpart in TensorFlow; the tests of whole models and of compression hold them.
ELSEWHERE = {"classify", "constexpr_affine_dequantize", "constexpr_lut_to_dense"}


def saved_program(folder, shape, body, dtype=mil_types.fp32):
    program = mb.program(
        input_specs=[mb.TensorSpec(shape, dtype)], opset_version=coremltools.target.iOS16
    )(lambda x: body(x))
    with quiet_native():
        model = coremltools.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=coremltools.target.macOS13,
            compute_precision=coremltools.precision.FLOAT32,
            pass_pipeline=coremltools.PassPipeline.EMPTY,
            skip_model_load=True,
        )
    coreml.save(model, folder / "a.mlpackage")
    return MLProgram(folder / "a.mlpackage")


@pytest.mark.parametrize("name", CASES)
def test_an_operator_computes_what_tensorflow_does(name, tmp_path):
    shape, in_mil, in_tf = CASES[name]
    program = saved_program(tmp_path, shape, in_mil)
    assert name in program.operators
    x = (3 * np.random.default_rng(1).normal(size=shape)).astype("f4")
    (found,) = program.predict(x=x).values()
    np.testing.assert_allclose(found, in_tf(tf.constant(x)).numpy(), rtol=1e-5, atol=1e-6)


def test_every_operator_is_tested():
    assert set(OPERATORS) == set(CASES) | ELSEWHERE


def test_results_are_rounded_to_the_type_that_the_program_says(tmp_path):
    third = np.float16(1 / 3)
    program = saved_program(tmp_path, (2,), lambda x: mb.mul(x=x, y=third), mil_types.fp16)
    x = np.array([0.1, 1000.1], "f4")
    (found,) = program.predict(x=x).values()
    assert found.dtype == np.float16
    exact = x.astype(np.float16).astype("f8") * float(third)
    np.testing.assert_array_equal(found, exact.astype(np.float16))


def test_an_operator_that_is_not_known_is_an_error(tmp_path):
    with pytest.raises(ModelError, match="unknown operator erf"):
        saved_program(tmp_path, (2,), lambda x: mb.erf(x=x))


def test_a_way_of_working_that_is_not_known_is_an_error(tmp_path):
    program = saved_program(
        tmp_path, (1, 2, 4, 4), lambda x: mb.pad(x=x, pad=[1, 1, 1, 1], mode="reflect")
    )
    with pytest.raises(NotImplementedError, match="pad: mode reflect"):
        program.predict(x=np.zeros((1, 2, 4, 4), "f4"))


def test_what_is_no_package_is_refused(tmp_path):
    with pytest.raises(ModelError, match="not a readable Core ML package"):
        MLProgram(tmp_path / "absent.mlpackage")


LABELS = ("anger", "joy", "sadness")


def tiny_card(n_rows=40, temperature=1.7):
    frontend = STREAM.with_normalization(rng.normal(size=(9, STREAM.n_features)))
    provenance = {"corpus": "tones", "licence": "CC0 1.0", "date": "2026-01-01"}
    return Card("tiny", LABELS, frontend, n_rows, temperature=temperature, provenance=provenance)


def presets():
    from train.presets import PRESETS

    return sorted(PRESETS)


@pytest.fixture(scope="module")
def saved_models(tmp_path_factory):
    """One folder for each preset, of untrained networks whose gates and gains are not all one."""
    from train.model import TimNet
    from train.presets import PRESETS

    folder = tmp_path_factory.mktemp("presets")
    card = tiny_card()

    def saved(name):
        if not (folder / name).exists():
            config = dataclasses.replace(PRESETS[name], n_blocks=2)
            model = TimNet(config, card.n_rows, card.frontend.n_features, len(LABELS))
            draw = np.random.default_rng(3)
            for variable in model.variables:
                if len(variable.shape) == 1:
                    variable.assign(draw.uniform(0.5, 1.5, variable.shape))
            windows = draw.normal(size=(4, card.n_rows, card.frontend.n_features))
            model.save_deployed(str(folder / name), windows.astype("f4"))
        return folder / name

    return saved


@pytest.mark.parametrize("preset", presets())
def test_every_variant_is_lean_and_answers_like_its_graph(saved_models, tmp_path, preset):
    from train.presets import PRESETS

    card = tiny_card()
    graph = classifier(saved_models(preset), card)
    path = tmp_path / "tiny.half.mlpackage"
    coreml.save(coreml.to_coreml(graph, card), path)
    operators = MLProgram(path).operators
    # However many blocks: one into the layout of convolutions, one for the shuffled stream; a stem
    # lays bands and channels, and the rows that go past it, side by side.
    config = PRESETS[preset]
    stem, n_networks = 2 if any(config.stems) else 0, len(config.stems)
    assert operators["transpose"] <= 3 * n_networks + stem
    # The frames of a block in rows, once or twice, and its statistics in one.
    n_blocks = n_networks * (3 if config.shuffle else 2) * config.n_blocks
    assert operators["reshape"] <= 2 * n_blocks + 3 * n_networks + stem
    assert "pad" not in operators
    probs = answering(path, card)
    for _ in range(3):
        rows = rng.normal(size=(card.n_rows, card.frontend.n_features)).astype("f4")
        window = tf.constant(rows[None])
        np.testing.assert_allclose(probs(rows), graph(window)["probs"].numpy()[0], atol=0.01)


@pytest.fixture(scope="module")
def program(saved_models):
    card = tiny_card()
    model = coreml.to_coreml(classifier(saved_models("timnet"), card), card)
    coreml.describe(model, card, "features")
    return model


@pytest.mark.parametrize(
    ("precision", "operator", "limit"),
    [
        ("linear8", "constexpr_affine_dequantize", 0.02),
        ("palette6", "constexpr_lut_to_dense", 0.05),
        ("palette4", "constexpr_lut_to_dense", 0.25),
    ],
)
def test_smaller_weights_are_read_as_they_are_stored(program, tmp_path, precision, operator, limit):
    card = tiny_card()
    windows = rng.normal(size=(4, card.n_rows, card.frontend.n_features)).astype("f4")
    for name in ("half", precision):
        small = coreml.compress(program, name, coreml.inputs_of(program, windows))
        coreml.save(small, tmp_path / f"{name}.mlpackage")
    sizes = {p.stem: weights(p).stat().st_size for p in tmp_path.glob("*.mlpackage")}
    assert sizes[precision] < 0.6 * sizes["half"]
    spec = (tmp_path / f"{precision}.mlpackage/Data/com.apple.CoreML/model.mlmodel").read_bytes()
    assert operator.encode() in spec
    full, small = (answering(tmp_path / f"{n}.mlpackage", card) for n in ("half", precision))
    rows = rng.normal(size=(card.n_rows, card.frontend.n_features)).astype("f4")
    difference = np.abs(full(rows) - small(rows)).max()
    assert 0 < difference < limit


@pytest.mark.parametrize("preset", ["timnet", "timnet-live", "timnet-all"])
def test_the_first_and_the_last_layer_keep_more_values_than_the_others(saved_models, preset):
    card = tiny_card()
    model = coreml.to_coreml(classifier(saved_models(preset), card), card)
    windows = rng.normal(size=(2, card.n_rows, card.frontend.n_features)).astype("f4")
    small = coreml.compress(model, "palette4", coreml.inputs_of(model, windows))
    sizes = []
    for op in small._mil_program.functions["main"].operations:
        if op.op_type in ("conv", "linear"):
            packed = op.weight.op
            is_palette = packed.op_type == "constexpr_lut_to_dense"
            sizes.append(np.size(packed.lut.val if is_palette else op.weight.val))
    # Where there is no stem, every stream sees the input; each network has a last layer.
    n_ends = {"timnet": 2 + 1, "timnet-live": 1 + 2 + 2, "timnet-all": 3 + 1}[preset]
    ends = sorted(sizes)[-n_ends:]
    assert len(sizes) - n_ends == sizes.count(16)
    assert min(ends) >= 64


def test_a_palette_changes_a_layer_s_answers_less_than_rounding_to_it():
    draw = np.random.default_rng(5)
    # Inputs that go together, as neighbouring channels do.
    inputs = draw.normal(size=(500, 6)) @ draw.normal(size=(6, 24)) + 0.1 * draw.normal(
        size=(500, 24)
    )
    weight = draw.normal(size=(10, 12, 2, 1)).astype(np.float16)
    values, numbers = palette(weight, inputs.T @ inputs, 4)
    assert values.dtype == np.float16
    assert len(values) == 16
    assert numbers.shape == weight.shape

    def error(found):
        rows = (found.astype("f8") - weight).reshape(10, -1)
        return np.linalg.norm(inputs @ rows.T)

    nearest = values[np.abs(weight[..., None] - values).argmin(axis=-1)]
    assert error(values[numbers]) < 0.7 * error(nearest)


def test_where_inputs_have_nothing_in_common_a_palette_is_rounding():
    weight = np.random.default_rng(6).normal(size=(5, 8)).astype(np.float32)
    values, numbers = palette(weight, np.eye(8), 4)
    nearest = np.abs(weight[..., None] - values).argmin(axis=-1)
    np.testing.assert_array_equal(numbers, nearest)


def test_what_a_layer_is_given_is_seen_as_it_is_multiplied(program, tmp_path):
    card = tiny_card()
    coreml.save(program, tmp_path / "tiny.mlpackage")
    loaded = MLProgram(tmp_path / "tiny.mlpackage")
    window = rng.normal(size=(card.n_rows, card.frontend.n_features)).astype("f4")
    seen = []
    loaded.predict(lambda *given: seen.append(given), window=window[None])
    convolutions = [arguments for kind, _, arguments in seen if kind == "conv"]
    for arguments in convolutions:
        columns = unfolded(**arguments)
        rows = arguments["weight"].reshape(len(arguments["weight"]), -1)
        expected = OPERATORS["conv"](**arguments)
        found = (columns @ rows.T + arguments.get("bias", 0)).T.reshape(expected.shape)
        np.testing.assert_allclose(found, expected, atol=1e-3)
    inputs = Inputs(loaded, window[None])
    assert len(inputs.moments) == sum(kind in ("conv", "linear") for kind, _, _ in seen)


def weights(package):
    return package / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"


def test_a_package_says_what_it_is(program, tmp_path):
    coreml.save(program, tmp_path / "tiny.mlpackage")
    card = tiny_card()
    loaded = MLProgram(tmp_path / "tiny.mlpackage")
    assert loaded.inputs == {"window": (1, card.n_rows, card.frontend.n_features)}
    description = loaded.description
    assert description.predictedFeatureName == "label"
    assert description.input[0].type.multiArrayType.dataType == 65568  # FLOAT32
    metadata = description.metadata
    assert metadata.license == "CC0 1.0"
    assert "anger, joy, sadness" in metadata.shortDescription
    assert metadata.author == "tiny, trained on tones"
    inside = json.loads(metadata.userDefined["card"])
    assert tuple(inside["labels"]) == LABELS
    assert inside["temperature"] == 1.7


def test_a_damaged_weight_file_is_an_error(program, tmp_path):
    path = tmp_path / "tiny.mlpackage"
    coreml.save(program, path)
    file = weights(path)
    file.write_bytes(b"\0" * file.stat().st_size)
    with pytest.raises(ModelError, match="weight file: no known record"):
        MLProgram(path)


@pytest.fixture
def package(program, tmp_path):
    """A whole package with its card beside it."""
    path = tmp_path / "tiny.half.mlpackage"
    coreml.save(program, path)
    card = tiny_card()
    file = ModelFile(path.name, content_sha256(path), "half")
    Card(card.name, card.labels, card.frontend, card.n_rows, card.temperature, file=file).write(
        path.with_suffix(".json")
    )
    return path


def test_elsewhere_than_on_a_mac_it_says_what_to_use(package, monkeypatch):
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    with pytest.raises(ModelError, match=r"Core ML runs on macOS only; .* use .*\.tflite"):
        Model(package)


def test_a_changed_package_is_refused(package):
    weights(package).write_bytes(weights(package).read_bytes() + b"\0")
    with pytest.raises(ModelError, match="SHA-256 differs"):
        Model(package)


class FakeMLModel:
    """Core ML's part, played by the reference executor."""

    def __init__(self, path, compute_units):
        self.program, self.units = MLProgram(Path(path)), compute_units

    def get_spec(self):
        return types.SimpleNamespace(description=self.program.description)

    def predict(self, inputs):
        return self.program.predict(**inputs)


def test_the_device_runs_a_package_through_the_same_interface(package, monkeypatch):
    fake = types.ModuleType("coremltools")
    fake.models = types.SimpleNamespace(MLModel=FakeMLModel)
    fake.ComputeUnit = coremltools.ComputeUnit
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    with monkeypatch.context() as patch:
        proto = {n: m for n, m in sys.modules.items() if n.startswith("coremltools")}
        patch.setitem(sys.modules, "coremltools", fake)
        for name, module in proto.items():
            if name != "coremltools":
                patch.setitem(sys.modules, name, module)
        model = Model(package, compute_units="cpu-and-neural-engine")
    assert isinstance(model.runtime, CoreMLRuntime)
    assert model.runtime._model.units == coremltools.ComputeUnit.CPU_AND_NE
    rows = rng.normal(size=(model.card.n_rows, model.card.frontend.n_features)).astype("f4")
    np.testing.assert_allclose(model.probs(rows), answering(package, model.card)(rows), atol=1e-3)
    np.testing.assert_allclose(
        softmax(model.logits(rows) / model.card.temperature).sum(), 1, rtol=1e-5
    )


def test_compute_units_are_those_of_coremltools():
    assert set(COMPUTE_UNITS.values()) == set(coremltools.ComputeUnit.__members__)


@pytest.mark.skipif(platform.system() != "Darwin", reason="not run: needs macOS")
@pytest.mark.parametrize("units", COMPUTE_UNITS)
def test_core_ml_itself_answers_like_the_reference(package, units):
    model = Model(package, compute_units=units)
    expected = answering(package, model.card)
    for _ in range(5):
        rows = rng.normal(size=(model.card.n_rows, model.card.frontend.n_features)).astype("f4")
        np.testing.assert_allclose(model.probs(rows), expected(rows), atol=0.02)
