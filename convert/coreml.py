"""From the graph of one window to a Core ML classifier, in float16 and smaller.

coremltools translates the graph; three passes of our own then make it lean. Files are for macOS 13
and iOS 16 and later, and can be written on any system (`convert.mlprogram` checks them there).
"""

from __future__ import annotations

import dataclasses
import json
import platform
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convert.graph import classifier
from convert.mlprogram import MLProgram, answering
from convert.palette import Inputs, palette
from convert.parity import TOLERANCES, Parity, measure
from convert.run import Made, Run
from edge.card import Card
from edge.coreml import COMPUTE_UNITS
from edge.model import Model
from edge.quiet import quiet_native

if TYPE_CHECKING:
    from coremltools.models import MLModel

# half: weights and arithmetic in float16; the others store the same weights in 8, 6 or 4 bits.
PRECISIONS = ("half", "linear8", "palette6", "palette4")

# Assumed: below so many entries a smaller weight is not worth its error.
_MIN_ENTRIES = 512

# Operators that change where values lie and not what they are.
_LAYOUTS = ("cast", "expand_dims", "gather", "reshape", "slice_by_index", "squeeze", "transpose")


def to_coreml(function: Any, card: Card, *, lean: bool = True, full: bool = False) -> MLModel:
    """Return a classifier in float16 (``full``: float32) that names the likeliest label.

    Parameters
    ----------
    function : TensorFlow ConcreteFunction
        One float32 input of fixed shape to {"probs": (1, n_labels)}.
    card : Card
        For the labels and the description; it also travels inside, as JSON under "card".
    lean : bool
        Whether to run our passes; off only to show what they are worth.
    """
    with quiet_native():
        import coremltools

        passes = coremltools.PassPipeline.DEFAULT
        if lean:
            for name in _passes():
                passes.append_pass(name)
        precision = coremltools.precision
        (specs, _) = function.structured_input_signature
        return coremltools.convert(
            [function],
            source="tensorflow",
            convert_to="mlprogram",
            inputs=[
                coremltools.TensorType(spec.name, tuple(spec.shape), np.float32) for spec in specs
            ],
            classifier_config=coremltools.ClassifierConfig(
                list(card.labels), predicted_feature_name="label"
            ),
            minimum_deployment_target=coremltools.target.macOS13,
            compute_precision=precision.FLOAT32 if full else precision.FLOAT16,
            pass_pipeline=passes,
            skip_model_load=True,
        )


def describe(model: MLModel, card: Card, input_text: str) -> None:
    """Write who, what and under which licence into the model, for Xcode and whoever opens it."""
    model.author = f"{card.name}, trained on {card.provenance.get('corpus', 'recordings')}"
    model.license = str(card.provenance.get("licence", "not stated"))
    model.short_description = (
        f"Which of {len(card.labels)} emotions {card.window_s:.1f} s of speech sound like: "
        f"{', '.join(card.labels)}. What a voice sounds like is not what somebody feels."
    )
    model.version = str(card.provenance.get("date", ""))
    (name,) = model.input_description
    model.input_description[name] = input_text
    model.output_description["label"] = "The likeliest label"
    model.output_description["label_probs"] = "The probability of every label"
    model.user_defined_metadata["card"] = json.dumps(dataclasses.asdict(card), ensure_ascii=False)


def inputs_of(model: MLModel, windows: np.ndarray) -> Inputs:
    """Return what the layers are given for normalised windows (n, n_rows, n_features)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "full.mlpackage"
        save(model, path)
        return Inputs(MLProgram(path), windows)


def compress(model: MLModel, precision: str, inputs: Inputs | None = None) -> MLModel:
    """Return ``model`` with its weights stored in the way that ``precision`` names.

    A palette needs ``inputs``, on windows of training clips, to know which weights matter.
    """
    if precision == "half":
        return model
    with quiet_native():
        import coremltools.optimize.coreml as optimize

    if precision == "linear8":
        config = optimize.OpLinearQuantizerConfig(
            mode="linear_symmetric", weight_threshold=_MIN_ENTRIES
        )
        with quiet_native():
            return optimize.linear_quantize_weights(model, optimize.OptimizationConfig(config))

    n_bits = {"palette6": 6, "palette4": 4}[precision]
    if inputs is None:
        raise ValueError(f"{precision} needs the inputs of the layers")
    # What sees the input, and what answers: everything else depends on the one, and nothing makes
    # up for the other.
    ends, layers = {*_first_layers(model), *_last_layers(model)}, {}
    for name, moment in inputs.moments.items():
        bits = n_bits + 2 if name in ends else n_bits

        def rounded(
            weight: np.ndarray, moment: np.ndarray = moment, bits: int = bits
        ) -> tuple[np.ndarray, np.ndarray]:
            return palette(weight, moment, bits)

        layers[name] = optimize.OpPalettizerConfig(
            mode="custom", lut_function=rounded, weight_threshold=_MIN_ENTRIES
        )
    with quiet_native():
        config = optimize.OptimizationConfig(op_name_configs=layers)
        return optimize.palettize_weights(model, config)


def _first_layers(model: MLModel) -> list[str]:
    """Return the names of the convolutions that see the input itself."""
    main = model._mil_program.functions["main"]
    seen, names = set(main.inputs.values()), []
    for op in main.operations:
        if op.op_type in _LAYOUTS and op.x in seen:
            seen.update(op.outputs)
        elif op.op_type == "conv" and op.x in seen:
            names.append(op.name)
    return names


def _last_layers(model: MLModel) -> list[str]:
    """Return the names of the layers behind which there is no other, one of each network."""
    waiting, names = list(model._mil_program.functions["main"].outputs), []
    while waiting:
        op = waiting.pop().op
        if op is not None and op.op_type in ("conv", "linear"):
            names.append(op.name)
        elif op is not None:
            waiting += op.get_flattened_inputs()
    return names


def operators(model: MLModel) -> Counter[str]:
    """Return how often each operator occurs in a program that has not been saved yet."""
    main = model._mil_program.functions["main"]
    return Counter(op.op_type for op in main.operations if op.op_type != "const")


def make(run: Run, precisions: Sequence[str], folder: Path) -> list[Made]:
    """Convert a run to ``folder``; what is measured is what the saved packages compute."""
    made, arrays, card = [], run.windows(), run.card
    program = to_coreml(classifier(run.saved_model, card), card)
    describe(program, card, "Features of one window: rows of normalised features, as the card says")
    inputs = None
    if any(precision.startswith("palette") for precision in precisions):
        inputs = inputs_of(program, arrays["calibration"])
    for precision in precisions:
        path = folder / f"{run.name}.{precision}.mlpackage"
        save(compress(program, precision, inputs), path)
        card = run.write_card(path, precision)
        tolerance = TOLERANCES[precision]
        parity = measure(answering(path, card), arrays, card, tolerance)
        operators = dict(MLProgram(path).operators)
        on_device: dict[str, Parity] | str = "not run: needs macOS"
        if platform.system() == "Darwin":
            on_device = {
                units: measure(Model(path, compute_units=units).probs, arrays, card, tolerance)
                for units in COMPUTE_UNITS
            }
        made.append(Made(path, card, operators, parity, on_device))
    return made


def operators_before(run: Run) -> dict[str, int]:
    """Return the operators that coremltools makes without our passes."""
    graph = classifier(run.saved_model, run.card)
    return dict(operators(to_coreml(graph, run.card, lean=False)))


def save(model: MLModel, path: Path) -> None:
    """Write a package, in files that everybody may read."""
    with quiet_native():
        model.save(str(path))
    for file in path.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)


@lru_cache
def _passes() -> tuple[str, ...]:
    """Register our passes with coremltools once; return their names. They belong at the end."""
    from coremltools.converters.mil.mil import Builder
    from coremltools.converters.mil.mil.passes.graph_pass import AbstractGraphPass
    from coremltools.converters.mil.mil.passes.helper import block_context_manager
    from coremltools.converters.mil.mil.passes.pass_registry import register_pass

    def rewrite(name: str, replacement: Callable[[Any], Any]) -> None:
        """Register a pass that puts ``replacement(operation)``, if any, in an operation's place."""

        class Pass(AbstractGraphPass):
            def apply(self, program: Any) -> None:
                for function in program.functions.values():
                    self._walk(function)

            @block_context_manager
            def _walk(self, block: Any) -> None:
                for op in list(block.operations):
                    new = replacement(op)
                    if new is not None:
                        block.replace_uses_of_var_after_op(
                            anchor_op=op, old_var=op.outputs[0], new_var=new
                        )
                        block.remove_ops([op])

        Pass.__name__ = name
        register_pass(namespace="ser")(Pass)

    def squeeze_without_transpose(op: Any) -> Any:
        """A squeeze that drops axes of a transposed tensor drops other axes of the tensor itself.

        coremltools takes transposes out wherever the rank stays the same; a squeeze is where it
        stops.
        """
        source = op.x.op if op.op_type == "squeeze" else None
        if source is None or source.op_type != "transpose":
            return None
        order = [int(axis) for axis in source.perm.val]
        axes = {order[axis] for axis in op.axes.val}
        kept = [axis for axis in order if axis not in axes]
        if kept != sorted(kept):
            return None
        return Builder.squeeze(x=source.x, axes=sorted(axes), before_op=op, name=op.name)

    def conv_that_pads(op: Any) -> Any:
        """A convolution can pad its input itself."""
        if op.op_type != "conv" or op.pad_type.val != "valid" or op.x.op is None:
            return None
        padding = op.x.op
        if padding.op_type != "pad" or padding.mode.val != "constant" or padding.constant_val.val:
            return None
        pairs = padding.pad.val.tolist()
        n_spatial = 2 * (op.x.rank - 2)
        if any(pairs[:-n_spatial]):
            return None
        return Builder.conv(
            x=padding.x, weight=op.weight, bias=op.bias, strides=op.strides,
            dilations=op.dilations, groups=op.groups, pad_type="custom",
            pad=pairs[-n_spatial:], before_op=op, name=op.name,
        )  # fmt: skip

    def short_names(op: Any) -> None:
        """Names are a third of such a small file, and most of each is how often it was called."""
        for thing in (op, *op.outputs):
            thing.name = thing.name.replace("StatefulPartitionedCall/", "")

    rewrite("squeeze_without_transpose", squeeze_without_transpose)
    rewrite("conv_that_pads", conv_that_pads)
    rewrite("short_names", short_names)
    return (
        "ser::squeeze_without_transpose",
        "ser::conv_that_pads",
        "common::dead_code_elimination",
        "common::const_deduplication",
        "ser::short_names",
        "common::dedup_op_and_var_names",
    )
