"""Tensors in weights files, and the conversions that turn them into OpenCLIP's.

Nothing is read before it is needed. PyTorch is not used, so that an encoder can pass the files
themselves to its runtime.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

_NUMPY_TYPES: Final = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "I32": "<i4", "I64": "<i8"}

STORABLE: Final = frozenset(_NUMPY_TYPES)
"""Allowed types of a stored tensor, by safetensors' names."""


class Tensor(ABC):
    """One tensor of a checkpoint."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Its shape."""

    @property
    @abstractmethod
    def files(self) -> frozenset[Path]:
        """The files that contain it."""

    @abstractmethod
    def array(self) -> NDArray[np.float32]:
        """Its values in float32. The conversion is exact for every stored type."""


@dataclass(frozen=True, slots=True)
class StoredTensor(Tensor):
    """A tensor in a file.

    Attributes:
        file: the file.
        offset: of its first byte in the file.
        length: in bytes.
        kind: its type by safetensors' name, one of `STORABLE`.
        dimensions: its shape.
    """

    file: Path
    offset: int
    length: int
    kind: str
    dimensions: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Tensor.shape`."""
        return self.dimensions

    @property
    def files(self) -> frozenset[Path]:
        """See `Tensor.files`."""
        return frozenset({self.file})

    def raw(self) -> NDArray[np.generic]:
        """Its stored values (bfloat16 as uint16), memory-mapped, not read."""
        return np.memmap(
            self.file, _NUMPY_TYPES[self.kind], "r", offset=self.offset, shape=self.dimensions
        )

    def array(self) -> NDArray[np.float32]:
        """See `Tensor.array`."""
        raw = self.raw()
        if self.kind == "BF16":
            # bfloat16 is the upper half of float32.
            return (raw.astype(np.uint32) << 16).view(np.float32)
        return np.asarray(raw, dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class LoadedTensor(Tensor):
    """A tensor in memory, for a file that cannot be mapped."""

    values: NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Tensor.shape`."""
        return self.values.shape

    @property
    def files(self) -> frozenset[Path]:
        """See `Tensor.files`."""
        return frozenset()

    def array(self) -> NDArray[np.float32]:
        """See `Tensor.array`."""
        return self.values


def rows_of(tensor: Tensor, start: int, stop: int) -> Tensor:
    """Some rows of a stored tensor, as a tensor."""
    match tensor:
        case StoredTensor(dimensions=(height, *others)):
            row = tensor.length // height
            return replace(
                tensor,
                offset=tensor.offset + start * row,
                length=(stop - start) * row,
                dimensions=(stop - start, *others),
            )
        case LoadedTensor():
            return LoadedTensor(tensor.values[start:stop])
    raise TypeError(f"a {type(tensor).__name__} has no rows to take")


def reshaped(tensor: Tensor, *dimensions: int) -> Tensor:
    """A stored tensor with the same numbers in another shape."""
    if math.prod(dimensions) == math.prod(tensor.shape):
        match tensor:
            case StoredTensor():
                return replace(tensor, dimensions=dimensions)
            case LoadedTensor():
                return LoadedTensor(tensor.values.reshape(dimensions))
    raise TypeError(f"{list(tensor.shape)} numbers cannot be {list(dimensions)}")


@dataclass(frozen=True, slots=True)
class Transposed(Tensor):
    """A transposed matrix: turns a linear layer's weight into the matrix to multiply by."""

    of: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Tensor.shape`."""
        return self.of.shape[::-1]

    @property
    def files(self) -> frozenset[Path]:
        """See `Tensor.files`."""
        return self.of.files

    def array(self) -> NDArray[np.float32]:
        """See `Tensor.array`."""
        return np.ascontiguousarray(self.of.array().T)


@dataclass(frozen=True, slots=True)
class Stacked(Tensor):
    """Tensors concatenated along the first axis: query, key and value as one."""

    parts: Sequence[Tensor]

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Tensor.shape`."""
        first = self.parts[0].shape
        return (sum(part.shape[0] for part in self.parts), *first[1:])

    @property
    def files(self) -> frozenset[Path]:
        """See `Tensor.files`."""
        return frozenset().union(*(part.files for part in self.parts))

    def array(self) -> NDArray[np.float32]:
        """See `Tensor.array`."""
        return np.concatenate([part.array() for part in self.parts])


@dataclass(frozen=True, slots=True)
class SparseRows(Tensor):
    """A tall matrix that stores only some of its rows; all others are zero.

    Attributes:
        kept: the stored rows, ``[n, width]``.
        rows: integers ``[n]``, the numbers of these rows in the full matrix.
        height: rows of the full matrix.
    """

    kept: Tensor
    rows: StoredTensor
    height: int

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Tensor.shape`."""
        return (self.height, *self.kept.shape[1:])

    @property
    def files(self) -> frozenset[Path]:
        """See `Tensor.files`."""
        return self.kept.files | self.rows.files

    def array(self) -> NDArray[np.float32]:
        """See `Tensor.array`."""
        whole = np.zeros(self.shape, dtype=np.float32)
        whole[self.rows.raw().astype(np.int64)] = self.kept.array()
        return whole
