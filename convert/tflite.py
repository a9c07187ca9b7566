"""From the graph of one window to TFLite in four precisions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from convert.parity import TOLERANCES, measure
from convert.run import Made, Run
from edge.model import Model, interpreter_module
from edge.quiet import quiet_native

PRECISIONS = ("float32", "float16", "dynamic", "int8")


def to_tflite(saved_model: Path, precision: str, calibration: np.ndarray | None = None) -> bytes:
    """Return a TFLite model of fixed shapes, with builtin operators only.

    Parameters
    ----------
    saved_model : Path
        A SavedModel with one signature: (1, n_rows, n_features) to logits.
    precision : str
        One of `PRECISIONS`. "dynamic" stores int8 weights and computes on float input; "int8" is
        int8 throughout, input and output included.
    calibration : float32, shape (n, n_rows, n_features)
        Normalised windows from training clips, to measure the ranges of an int8 model; needed for
        that alone.
    """
    # Loaded after TensorFlow, tflite-runtime 2.14 finds TensorFlow's symbols in place of its own
    # and reads no model ("vector::reserve"); loaded before it, both work.
    interpreter_module()
    with quiet_native():
        import tensorflow as tf

        converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
        if precision != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        # Per-channel weights in FULLY_CONNECTED need version 12 of it; tflite-runtime 2.14 has 9.
        converter._experimental_disable_per_channel_quantization_for_dense_layers = True
        if precision == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if precision == "int8":
            if calibration is None:
                raise ValueError("int8 needs calibration windows")

            def representative() -> Iterator[list[np.ndarray]]:
                for window in calibration:
                    yield [window[None]]

            converter.representative_dataset = representative
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.int8
        return without_names(converter.convert())


def without_names(content: bytes) -> bytes:
    """Return a TFLite model without the names of what lies between its input and its output.

    Nothing reads them on the device, and of a small int8 model they are a twentieth.
    """
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    for graph in model.subgraphs:
        for index, tensor in enumerate(graph.tensors):
            if index not in (*graph.inputs, *graph.outputs):
                tensor.name = None
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def operators(content: bytes) -> Counter[str]:
    """Return how often each operator occurs in a TFLite model."""
    module = interpreter_module()
    interpreter = module.Interpreter(
        model_content=content,
        # Without it the operators that XNNPACK takes over would be listed as one.
        experimental_op_resolver_type=module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    return Counter(op["op_name"] for op in interpreter._get_ops_details())


def make(run: Run, precisions: Iterable[str], folder: Path) -> list[Made]:
    """Convert a run to ``folder``, and measure each model with the device's own code."""
    made, arrays = [], run.windows()
    for precision in precisions:
        path = folder / f"{run.name}.{precision}.tflite"
        path.write_bytes(to_tflite(run.saved_model, precision, arrays["calibration"]))
        card = run.write_card(path, precision)
        parity = measure(Model(path).probs, arrays, card, TOLERANCES[precision])
        made.append(Made(path, card, dict(operators(path.read_bytes())), parity))
    return made
