"""Files of embeddings read back, a block of rows at a time."""

import importlib.util
import math
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from application.bulk_ports import BulkFailure, EmbeddingsIndexPort, IndexBlock

ROWS_AT_A_TIME: Final = 16_384
"""Rows of a block: 48 MiB at 768 floats."""

_MAX_DIMENSION: Final = 65_536
_MAX_PATH: Final = 65_536
_HOW: Final = "Make one with: clip-server embed PHOTOS --output photos.npz"


def open_index(path: Path) -> EmbeddingsIndexPort:
    """The index in a file that ``clip-server embed`` wrote.

    Raises:
        BulkFailure: it does not exist, has an unknown suffix, needs a package that is not
            installed, or is not an index.
    """
    kinds: dict[str, Callable[[Path], EmbeddingsIndexPort]] = {
        ".npz": NpzIndex,
        ".jsonl": JsonLinesIndex,
        ".parquet": ParquetIndex,
    }
    kind = kinds.get(path.suffix.lower())
    if kind is None:
        raise BulkFailure(f"{path}: the name of an index ends in {', '.join(kinds)}. {_HOW}")
    if not path.is_file():
        raise BulkFailure(f"{path} is not a file. {_HOW}")
    return kind(path)


class NpzIndex(EmbeddingsIndexPort):
    """The arrays ``path``, ``embedding`` and ``model_fingerprint`` of an ``.npz`` file."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        with self._opened() as archive:
            with archive.open("model_fingerprint.npy") as member:
                self.fingerprint = str(np.load(member, allow_pickle=False))
            with archive.open("embedding.npy") as member:
                shape, dtype = _header(member)
        if len(shape) != 2 or dtype != np.dtype("<f4") or not 1 <= shape[1] <= _MAX_DIMENSION:
            raise self._damaged(f"embedding is {dtype} {list(shape)}, not float32 [rows, numbers]")
        self._rows, self.dimension = shape

    def blocks(self) -> Iterator[IndexBlock]:
        """See `EmbeddingsIndexPort.blocks`."""
        # Read as streams: numpy would load a whole array, and zipfile checks each one's checksum.
        with (
            self._opened() as archive,
            archive.open("embedding.npy") as vectors,
            archive.open("path.npy") as paths,
        ):
            _header(vectors)
            shape, kind = _header(paths)
            if shape != (self._rows,) or kind.kind != "U" or kind.itemsize > 4 * _MAX_PATH:
                raise self._damaged(f"path is {kind} {list(shape)}, not {self._rows} texts")
            for start in range(0, self._rows, ROWS_AT_A_TIME):
                count = min(ROWS_AT_A_TIME, self._rows - start)
                names = np.frombuffer(self._read(paths, count * kind.itemsize), kind)
                numbers = self._read(vectors, count * self.dimension * 4)
                matrix = np.frombuffer(numbers, "<f4").reshape(count, self.dimension)
                yield IndexBlock(names, matrix)

    @contextmanager
    def _opened(self) -> Iterator[zipfile.ZipFile]:
        try:
            with zipfile.ZipFile(self._path) as archive:
                yield archive
        except KeyError as missing:
            raise self._damaged(str(missing.args[0])) from missing
        except (zipfile.BadZipFile, ValueError, EOFError) as failure:
            raise self._damaged(str(failure)) from failure
        except OSError as failure:
            raise BulkFailure(f"{self.name} cannot be read: {failure.strerror}.") from failure

    def _read(self, member: IO[bytes], size: int) -> bytes:
        data = member.read(size)
        if len(data) != size:
            raise self._damaged("it ends too early")
        return data

    def _damaged(self, why: str) -> BulkFailure:
        return _damaged(self.name, why)


class JsonLinesIndex(EmbeddingsIndexPort):
    """A JSON object on each line."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self._decoder = msgspec.json.Decoder(_JsonRow)
        self.dimension = 0
        self.fingerprint = ""
        for row in self._rows():
            self.fingerprint = row.model_fingerprint
            if row.embedding is not None:
                self.dimension = len(row.embedding)
                break
        if not self.fingerprint:
            raise _damaged(self.name, "it has no rows")

    def blocks(self) -> Iterator[IndexBlock]:
        """See `EmbeddingsIndexPort.blocks`."""
        paths: list[str] = []
        vectors: list[list[float] | NDArray[np.float32]] = []
        nothing = np.full(self.dimension, np.nan, np.float32)
        for place, row in enumerate(self._rows(), start=1):
            if row.model_fingerprint != self.fingerprint:
                raise _damaged(self.name, f"line {place} is of another model than line 1")
            if row.embedding is not None and len(row.embedding) != self.dimension:
                raise _damaged(
                    self.name,
                    f"line {place} has {len(row.embedding)} numbers, not {self.dimension}",
                )
            paths.append(row.path)
            vectors.append(nothing if row.embedding is None else row.embedding)
            if len(paths) == ROWS_AT_A_TIME:
                yield IndexBlock(paths, np.asarray(vectors, np.float32))
                paths, vectors = [], []
        if paths:
            yield IndexBlock(
                paths, np.asarray(vectors, np.float32).reshape(len(paths), self.dimension)
            )

    def _rows(self) -> "Iterator[_JsonRow]":
        try:
            with self._path.open("rb") as file:
                for place, line in enumerate(file, start=1):
                    try:
                        yield self._decoder.decode(line)
                    except msgspec.DecodeError as failure:
                        raise _damaged(self.name, f"line {place}: {failure}") from failure
        except OSError as failure:
            raise BulkFailure(f"{self.name} cannot be read: {failure.strerror}.") from failure


class _JsonRow(msgspec.Struct):
    path: str
    model_fingerprint: str
    embedding: list[float] | None = None


class ParquetIndex(EmbeddingsIndexPort):
    """The columns ``path`` and ``embedding``, and the fingerprint in the file's metadata."""

    def __init__(self, path: Path) -> None:
        if importlib.util.find_spec("pyarrow") is None:
            raise BulkFailure(
                f"{path}: Parquet needs the extra 'bulk' "
                "(pip install 'clip-embedding-server[bulk]')."
            )
        import pyarrow  # an extra, and slow to import

        self.name = str(path)
        self._path = path
        with self._opened() as file:
            schema = file.schema_arrow
            kind = schema.field("embedding").type if "embedding" in schema.names else None
            metadata = schema.metadata or {}
        if (
            kind is None
            or not pyarrow.types.is_fixed_size_list(kind)
            or "path" not in schema.names
            or b"model_fingerprint" not in metadata
        ):
            raise _damaged(self.name, "it lacks path, embedding or model_fingerprint")
        self.fingerprint = metadata[b"model_fingerprint"].decode()
        self.dimension = int(kind.list_size)

    def blocks(self) -> Iterator[IndexBlock]:
        """See `EmbeddingsIndexPort.blocks`."""
        with self._opened() as file:
            for batch in file.iter_batches(ROWS_AT_A_TIME, columns=["path", "embedding"]):
                column = batch.column("embedding")
                matrix = np.full((len(batch), self.dimension), np.nan, np.float32)
                valid = column.is_valid().to_numpy(zero_copy_only=False)
                matrix[valid] = column.drop_null().flatten().to_numpy().reshape(-1, self.dimension)
                yield IndexBlock(batch.column("path").to_pylist(), matrix)

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        import pyarrow  # an extra, and slow to import
        import pyarrow.parquet

        try:
            with pyarrow.parquet.ParquetFile(self._path, memory_map=False) as file:
                yield file
        except pyarrow.ArrowException as failure:
            raise _damaged(self.name, str(failure).splitlines()[0]) from failure
        except OSError as failure:
            raise BulkFailure(f"{self.name} cannot be read: {failure}.") from failure


def _header(member: IO[bytes]) -> "tuple[tuple[int, ...], np.dtype[Any]]":
    version = np.lib.format.read_magic(member)
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, fortran, dtype = read(member)
    if fortran and len(shape) > 1:
        raise ValueError("an array is in Fortran's order")
    if math.prod(shape) < 0:
        raise ValueError("an array has a negative size")
    return shape, dtype


def _damaged(name: str, why: str) -> BulkFailure:
    return BulkFailure(f"{name} is not an index that can be searched: {why}. {_HOW}")
