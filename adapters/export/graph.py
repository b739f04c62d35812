"""Writes an ONNX graph node by node, its weights left in the checkpoint's own files."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from adapters.checkpoints.tensors import (
    LoadedTensor,
    SparseRows,
    Stacked,
    StoredTensor,
    Tensor,
    Transposed,
)

OPSET: Final = 18
_IR_VERSION: Final = 10
_ONNX_TYPES: Final = {
    "F32": TensorProto.FLOAT,
    "F16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "I32": TensorProto.INT32,
    "I64": TensorProto.INT64,
}


class Graph:
    """A graph under construction. Values are named by strings, as ONNX has it."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._names = 0

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Append a node with one output and return the output's name."""
        output = self._name(kind)
        self._nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def constant(self, values: NDArray[Any] | list[int] | float) -> str:
        """A constant held in the graph itself; lists become int64, floats float32."""
        if isinstance(values, list):
            array: NDArray[Any] = np.array(values, dtype=np.int64)
        else:
            array = np.asarray(values, dtype=np.float32 if isinstance(values, float) else None)
        name = self._name("constant")
        self._initializers.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, tensor: Tensor) -> str:
        """A weight as float32, read from its file by the runtime."""
        match tensor:
            case StoredTensor():
                stored = self._external(tensor)
                if tensor.kind == "F32":
                    return stored
                return self.op("Cast", stored, to=TensorProto.FLOAT)
            case Transposed():
                return self.op("Transpose", self.weight(tensor.of), perm=[1, 0])
            case Stacked():
                return self.op("Concat", *map(self.weight, tensor.parts), axis=0)
            case LoadedTensor():
                return self.constant(np.ascontiguousarray(tensor.values))
            case _:
                raise TypeError(f"{type(tensor).__name__} has no form in a graph")

    def lookup(self, table: Tensor, rows: str) -> str:
        """Rows of a table by number: ``rows`` ``[...]`` → ``[..., width]``."""
        if not isinstance(table, SparseRows):
            return self.op("Gather", self.weight(table), rows, axis=0)
        # Rows that are not kept all point to one more, which is zero.
        kept = table.kept.shape[0]
        place = np.full(table.height, kept, dtype=np.int32)
        place[table.rows.raw().astype(np.int64)] = np.arange(kept, dtype=np.int32)
        zero = self.constant(np.zeros((1, table.kept.shape[1]), dtype=np.float32))
        filled = self.op("Concat", self.weight(table.kept), zero, axis=0)
        return self.op("Gather", filled, self.op("Gather", self.constant(place), rows), axis=0)

    def model(
        self,
        name: str,
        *,
        inputs: Mapping[str, tuple[int, list[str | int]]],
        output: tuple[str, list[str | int]],
        value: str,
        metadata: Mapping[str, str],
    ) -> onnx.ModelProto:
        """The finished model, opset 18.

        Args:
            name: of the graph.
            inputs: name → (element type, shape); strings are dynamic dimensions.
            output: name and shape of the float32 output.
            value: the value that is put out.
            metadata: to be stored with the model.
        """
        self._nodes.append(helper.make_node("Identity", [value], [output[0]]))
        graph = helper.make_graph(
            self._nodes,
            name,
            [helper.make_tensor_value_info(key, *kind) for key, kind in inputs.items()],
            [helper.make_tensor_value_info(output[0], TensorProto.FLOAT, output[1])],
            self._initializers,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=_IR_VERSION,
            producer_name="clip-embedding-server",
        )
        helper.set_model_props(model, dict(metadata))
        return model

    def _external(self, tensor: StoredTensor) -> str:
        name = self._name("weight")
        proto = TensorProto(
            name=name,
            data_type=_ONNX_TYPES[tensor.kind],
            dims=tensor.dimensions,
            data_location=TensorProto.EXTERNAL,
        )
        for key, value in (
            ("location", tensor.file.name),
            ("offset", tensor.offset),
            ("length", tensor.length),
        ):
            proto.external_data.add(key=key, value=str(value))
        self._initializers.append(proto)
        return name

    def _name(self, kind: str) -> str:
        self._names += 1
        return f"{kind.lower()}_{self._names}"
