"""Writes an ONNX graph node by node, with its weights in the checkpoint's files or its own."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from adapters.models.checkpoint_files import InvalidCheckpoint
from adapters.models.tensors import (
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

_ALIGNMENT: Final = 4096
"""Bytes; a runtime can map weights that start on a page."""


class WeightsFile:
    """A graph's external data while it is written, one weight after another; a context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def append(self, name: str, array: NDArray[Any]) -> onnx.TensorProto:
        """Write one weight; returns the initializer that refers to it."""
        self._file.write(bytes(-self._file.tell() % _ALIGNMENT))
        start = self._file.tell()
        self._file.write(np.ascontiguousarray(array).data)
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        place: dict[str, str | int] = {
            "location": self._path.name,
            "offset": start,
            "length": array.nbytes,
        }
        return _external(name, kind, array.shape, place)


class Graph:
    """A graph under construction. Values are named by strings, as in ONNX.

    Without a weights file of its own it refers to the checkpoint's files and computes in float32.
    """

    def __init__(self, own: WeightsFile | None = None, *, half: bool = False) -> None:
        """Start an empty graph.

        Args:
            own: where the weights are written; None leaves them in the checkpoint's files.
            half: compute in float16 unless float32 is asked for; needs a weights file of its own.
        """
        if half and own is None:
            raise ValueError("weights in float16 need a file of their own")
        self._own = own
        self.half = half
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._names = 0

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Append a node with one output and return the output's name."""
        output = self._name(kind)
        self._nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def constant(self, values: NDArray[Any] | list[int] | float) -> str:
        """A constant in the graph itself. Lists become int64, floats the graph's compute type."""
        if isinstance(values, list):
            array: NDArray[Any] = np.array(values, dtype=np.int64)
        else:
            single = np.float16 if self.half else np.float32
            array = np.asarray(values, dtype=single if isinstance(values, float) else None)
        name = self._name("constant")
        self._initializers.append(numpy_helper.from_array(array, name))
        return name

    def in_float32(self, value: str) -> str:
        """The value in float32."""
        return self.op("Cast", value, to=TensorProto.FLOAT) if self.half else value

    def from_float32(self, value: str) -> str:
        """A float32 value in the graph's compute type."""
        return self.op("Cast", value, to=TensorProto.FLOAT16) if self.half else value

    def weight(self, tensor: Tensor, *, exact: bool = False) -> str:
        """A weight in the graph's compute type, read from its file by the runtime.

        Args:
            tensor: the weight.
            exact: in float32 even where the graph computes in float16.

        Raises:
            InvalidCheckpoint: it has values that float16 cannot hold.
        """
        if self._own is not None:
            name = self._name("weight")
            array: NDArray[Any] = tensor.array()
            if self.half and not exact:
                array = _halved(array)
            self._initializers.append(self._own.append(name, array))
            return name
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
                raise TypeError(f"{type(tensor).__name__} cannot be written into a graph")

    def lookup(self, table: Tensor, rows: str) -> str:
        """Rows of a table by number: ``rows`` ``[...]`` → ``[..., width]``."""
        if not isinstance(table, SparseRows):
            return self.op("Gather", self.weight(table), rows, axis=0)
        # All rows that are not stored point to one extra row, which is zero.
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
            value: the value that is the output.
            metadata: stored with the model.
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
        place: dict[str, str | int] = {
            "location": tensor.file.name,
            "offset": tensor.offset,
            "length": tensor.length,
        }
        self._initializers.append(
            _external(name, _ONNX_TYPES[tensor.kind], tensor.dimensions, place)
        )
        return name

    def _name(self, kind: str) -> str:
        self._names += 1
        return f"{kind.lower()}_{self._names}"


def _external(
    name: str, kind: int, shape: tuple[int, ...], place: Mapping[str, str | int]
) -> onnx.TensorProto:
    proto = TensorProto(name=name, data_type=kind, dims=shape, data_location=TensorProto.EXTERNAL)
    for key, value in place.items():
        proto.external_data.add(key=key, value=str(value))
    return proto


def _halved(array: NDArray[np.float32]) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        halved = array.astype(np.float16)
    if not np.isfinite(halved).all():
        raise InvalidCheckpoint(
            f"the checkpoint has a weight of {np.abs(array).max():g}; float16 ends at "
            f"{np.finfo(np.float16).max:g}. Use fp32."
        )
    return halved
