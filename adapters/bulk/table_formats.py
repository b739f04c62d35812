"""The three file formats that embeddings are written in, each as a stream."""

import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np

from adapters.system.installation import install_command, is_installed
from application.bulk_ports import BulkFailure
from domain.embedding import Vector

ROWS_AT_A_TIME: Final = 1024
"""Rows in memory while a file is written; a row group of a Parquet file."""


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One row: exactly one of ``vector`` and ``error`` is None."""

    path: str
    vector: Vector | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Table:
    """All rows, and their common values.

    Attributes:
        fingerprint: of the model that computed the embeddings.
        dimension: floats per embedding.
        count: how many rows there are.
        chunks: all rows in order, `ROWS_AT_A_TIME` in a chunk; can be called more than once.
    """

    fingerprint: str
    dimension: int
    count: int
    chunks: Callable[[], Iterator[list[Row]]]


TableWriter: TypeAlias = Callable[[Table, Path], None]


def writer_for(output: Path) -> TableWriter:
    """The writer that the file's suffix asks for.

    Raises:
        BulkFailure: there is none, or it needs a package that is not installed.
    """
    writers: dict[str, TableWriter] = {
        ".parquet": write_parquet,
        ".npz": write_npz,
        ".jsonl": write_jsonl,
    }
    if (writer := writers.get(output.suffix.lower())) is None:
        raise BulkFailure(f"{output}: the name must end in {', '.join(writers)}.")
    if writer is write_parquet and not is_installed("pyarrow"):
        raise BulkFailure(
            f"{output}: Parquet needs pyarrow, which is not installed; .npz and .jsonl do not. "
            f"Run: {install_command('bulk')}"
        )
    return writer


def write_parquet(table: Table, target: Path) -> None:
    """Columns ``path``, ``embedding`` (list of float, null on error), ``error``,
    ``model_fingerprint``.
    """
    import pyarrow  # an extra, and slow to import
    import pyarrow.parquet

    schema = parquet_schema(table.fingerprint, table.dimension)
    with pyarrow.parquet.ParquetWriter(
        target, schema, compression="zstd", use_dictionary=["error", "model_fingerprint"]
    ) as file:
        for rows in table.chunks():
            columns = {
                "path": [row.path for row in rows],
                "embedding": [row.vector for row in rows],
                "error": [row.error for row in rows],
                "model_fingerprint": [table.fingerprint] * len(rows),
            }
            file.write_table(pyarrow.table(columns, schema=schema))


def parquet_schema(fingerprint: str, dimension: int) -> Any:
    """The columns of a Parquet file of embeddings, as a ``pyarrow.Schema``."""
    import pyarrow  # an extra, and slow to import

    return pyarrow.schema(
        [
            pyarrow.field("path", pyarrow.string(), nullable=False),
            pyarrow.field("embedding", pyarrow.list_(pyarrow.float32(), dimension)),
            pyarrow.field("error", pyarrow.string()),
            pyarrow.field("model_fingerprint", pyarrow.string(), nullable=False),
        ],
        metadata={"model_fingerprint": fingerprint},
    )


def write_jsonl(table: Table, target: Path) -> None:
    """A JSON object on each line: ``path``, ``embedding``, ``error``, ``model_fingerprint``."""
    encoder = msgspec.json.Encoder()
    with target.open("wb") as file:
        for rows in table.chunks():
            for row in rows:
                fields: dict[str, Any] = {
                    "path": row.path,
                    "embedding": None if row.vector is None else row.vector.tolist(),
                    "error": row.error,
                    "model_fingerprint": table.fingerprint,
                }
                file.write(encoder.encode(fields) + b"\n")


def write_npz(table: Table, target: Path) -> None:
    """Arrays ``path``, ``embedding`` float32 ``[n, dimension]``, ``error``, ``model_fingerprint``.

    If there is an error, the embedding is NaN; if not, the error is ``""``.
    """
    nothing = np.full(table.dimension, np.nan, dtype=np.float32)

    def paths(row: Row) -> str:
        return row.path

    def errors(row: Row) -> str:
        return row.error or ""

    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, text in (("path", paths), ("error", errors)):
            # Fixed width, so that the file loads without pickle.
            width = max((len(text(row)) for rows in table.chunks() for row in rows), default=0)
            _write_array(
                archive,
                name,
                np.dtype(f"<U{max(width, 1)}"),
                (table.count,),
                ([text(row) for row in rows] for rows in table.chunks()),
            )
        _write_array(
            archive,
            "embedding",
            np.dtype("<f4"),
            (table.count, table.dimension),
            (
                [nothing if row.vector is None else row.vector for row in rows]
                for rows in table.chunks()
            ),
        )
        fingerprint = np.array(table.fingerprint)
        _write_array(archive, "model_fingerprint", fingerprint.dtype, (), iter([fingerprint]))


def _write_array(
    archive: zipfile.ZipFile,
    name: str,
    dtype: "np.dtype[Any]",
    shape: tuple[int, ...],
    chunks: Iterator[Any],
) -> None:
    """Write one array of an npz file (numpy's NEP 1) without ever holding all of it in memory."""
    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array_header_2_0(file, header)
        for chunk in chunks:
            file.write(np.asarray(chunk, dtype=dtype).tobytes())
