"""A saved ``.mlpackage`` computed in NumPy, so that it can be checked without a Mac.

What is read is what a Mac would read: the protobuf and the weight file on disk, not the program
that the converter had in memory. `convert.operators` knows what the operators compute; one that it
does not know is an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from convert.operators import OPERATORS
from edge.card import Card
from edge.errors import ModelError
from edge.quiet import quiet_native

# The values of MIL's DataType (MIL.proto).
_DTYPES = {
    1: np.bool_, 2: np.str_, 10: np.float16, 11: np.float32, 12: np.float64, 21: np.int8,
    22: np.int16, 23: np.int32, 24: np.int64, 31: np.uint8, 32: np.uint16, 33: np.uint32,
}  # fmt: skip
# The weight file's format: at every offset that the program names lies a record of 64 bytes that
# begins with this mark, the data's type, its size in bytes and its own offset.
_MARK = 0xDEADBEEF
_RECORD = np.dtype([("mark", "<u4"), ("type", "<u4"), ("n_bytes", "<u8"), ("offset", "<u8")])
_BLOB_DTYPES = {1: np.float16, 2: np.float32, 3: np.uint8, 4: np.int8}


See = Callable[[str, str, dict[str, Any]], None]


class MLProgram:
    """The ``main`` function of a saved ML Program.

    Parameters
    ----------
    package : Path
        The ``.mlpackage`` folder.

    Raises
    ------
    ModelError
        If it is not a whole ML Program, or an operator is unknown.

    Attributes
    ----------
    inputs : dict of str to tuple of int
        Name and shape of what `predict` takes.
    description : protobuf ModelDescription
    """

    def __init__(self, package: Path) -> None:
        with quiet_native():  # coremltools reports what it cannot do on this system
            from coremltools.proto import Model_pb2

        folder = package / "Data" / "com.apple.CoreML"
        spec = Model_pb2.Model()
        try:
            spec.ParseFromString((folder / "model.mlmodel").read_bytes())
            weights = folder / "weights" / "weight.bin"
            self._weights = weights.read_bytes() if weights.exists() else b""
        except (OSError, ValueError) as error:
            raise ModelError(f"{package}: not a readable Core ML package ({error})") from error
        if spec.WhichOneof("Type") != "mlProgram":
            raise ModelError(f"{package}: expected an ML Program, not {spec.WhichOneof('Type')}")
        self.description = spec.description
        function = spec.mlProgram.functions["main"]
        block = function.block_specializations[function.opset]
        self.inputs = {i.name: _shape(i.type.tensorType) for i in function.inputs}
        self._input_dtypes = {i.name: _DTYPES[i.type.tensorType.dataType] for i in function.inputs}
        self._outputs = list(block.outputs)
        self._constants: dict[str, Any] = {}
        self._operations = []
        for operation in block.operations:
            if operation.type == "const":
                self._constants[operation.outputs[0].name] = self._value(
                    operation.attributes["val"]
                )
            elif operation.type in OPERATORS:
                self._operations.append(operation)
            else:
                raise ModelError(f"{package}: unknown operator {operation.type}")
        # Weights that are stored small are made large once, as Core ML does when it loads them.
        for operation in self._operations:
            if operation.type.startswith("constexpr_"):
                stored = {k: self._value(v) for k, v in operation.attributes.items() if k != "name"}
                self._store(self._constants, operation, OPERATORS[operation.type](**stored))
        self._operations = [o for o in self._operations if not o.type.startswith("constexpr_")]
        self._constants = {name: _wide(value) for name, value in self._constants.items()}

    @property
    def operators(self) -> Counter[str]:
        """How often each operator is computed for one answer."""
        return Counter(operation.type for operation in self._operations)

    def predict(self, see: See | None = None, /, **inputs: np.ndarray) -> dict[str, Any]:
        """Return the outputs by name for inputs of exactly the program's shapes.

        ``see`` is told every operator's type, the name of its output, and what it is given.
        """
        values = dict(self._constants)
        for name, shape in self.inputs.items():
            if inputs[name].shape != shape:
                raise ValueError(f"{name}: expected shape {shape}, not {inputs[name].shape}")
            values[name] = inputs[name].astype(self._input_dtypes[name])
        for operation in self._operations:
            arguments = {}
            for name, argument in operation.inputs.items():
                bound = [
                    values[b.name] if b.WhichOneof("binding") == "name" else self._value(b.value)
                    for b in argument.arguments
                ]
                arguments[name] = [_wide(v) for v in bound] if name == "values" else _wide(bound[0])
            if see is not None:
                see(operation.type, operation.outputs[0].name, arguments)
            self._store(values, operation, OPERATORS[operation.type](**arguments))
        return {name: values[name] for name in self._outputs}

    @staticmethod
    def _store(values: dict[str, Any], operation: Any, result: Any) -> None:
        """Keep an operator's results, rounded to the types that it declares."""
        results = result if isinstance(result, (list, tuple)) else [result]
        for output, value in zip(operation.outputs, results, strict=True):
            if isinstance(value, np.ndarray | np.generic):
                declared = output.type.tensorType
                if np.shape(value) != _shape(declared):
                    raise ModelError(
                        f"{operation.type} {output.name}: the program says {_shape(declared)}, "
                        f"computed was {np.shape(value)}"
                    )
                value = np.asarray(value).astype(_DTYPES[declared.dataType])
            values[output.name] = value

    def _value(self, value: Any) -> Any:
        """Return a constant of the protobuf or of the weight file."""
        if value.WhichOneof("value") == "blobFileValue":
            return self._blob(value.blobFileValue.offset, _shape(value.type.tensorType))
        immediate = value.immediateValue
        if immediate.WhichOneof("value") == "list":
            return [self._value(v) for v in immediate.list.values]
        tensor, kind = immediate.tensor, value.type.tensorType
        dtype, field = _DTYPES[kind.dataType], tensor.WhichOneof("value")
        stored = getattr(tensor, field).values
        if field == "bytes":
            return np.frombuffer(stored, dtype).reshape(_shape(kind))
        if field == "strings":
            return stored[0]
        return np.array(list(stored)).astype(dtype).reshape(_shape(kind))

    def _blob(self, offset: int, shape: tuple[int, ...]) -> np.ndarray:
        record = np.frombuffer(self._weights, _RECORD, 1, offset)[0]
        if record["mark"] != _MARK or int(record["type"]) not in _BLOB_DTYPES:
            raise ModelError(f"weight file: no known record at {offset}")
        dtype = np.dtype(_BLOB_DTYPES[int(record["type"])])
        n = int(record["n_bytes"]) // dtype.itemsize
        return np.frombuffer(self._weights, dtype, n, int(record["offset"])).reshape(shape)


def _shape(kind: Any) -> tuple[int, ...]:
    return tuple(d.constant.size for d in kind.dimensions)


def _wide(value: Any) -> Any:
    """Return float16 numbers as the float32 numbers that they stand for."""
    if isinstance(value, np.ndarray) and value.dtype == np.float16:
        return value.astype(np.float32)
    return value


def answering(package: Path, card: Card) -> Callable[[np.ndarray], np.ndarray]:
    """Return what maps a window (n_rows, n_features) to probabilities, as `Model` does."""
    program = MLProgram(package)
    (name,) = program.inputs

    def probs(window: np.ndarray) -> np.ndarray:
        answer = program.predict(**{name: window[None]})
        (by_label,) = (value for value in answer.values() if isinstance(value, dict))
        return np.array([by_label[label] for label in card.labels], np.float32)

    return probs
