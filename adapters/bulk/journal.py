"""An unfinished embeddings file: a SQLite database beside it that survives the process."""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from adapters.artifacts.store import flush
from adapters.bulk.table_formats import ROWS_AT_A_TIME, Row, Table, TableWriter, writer_for
from application.bulk_ports import (
    BulkFailure,
    EmbeddedFile,
    EmbeddingsFilePort,
    ImageFile,
    Progress,
)
from application.ports import EncoderDescription

_LAYOUT: Final = 1
"""Raised whenever the tables change."""

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS run (
    layout INTEGER NOT NULL, fingerprint TEXT NOT NULL, dimension INTEGER NOT NULL,
    written INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS results (
    path BLOB PRIMARY KEY, size INTEGER NOT NULL, modified_ns INTEGER NOT NULL,
    embedding BLOB, error TEXT
);
DROP TABLE IF EXISTS files;
CREATE TABLE files (
    path BLOB PRIMARY KEY, size INTEGER NOT NULL, modified_ns INTEGER NOT NULL
) WITHOUT ROWID;
"""
"""``files`` is listed again by each run; ``results`` is what all runs have recorded."""

_ROWS: Final = "FROM files LEFT JOIN results USING (path, size, modified_ns)"
"""Leaves out results of files that have changed since or are no longer listed."""


class JournalledEmbeddings(EmbeddingsFilePort):
    """Records rows in ``OUTPUT.journal``, and writes OUTPUT from it at the end.

    Paths are stored as bytes, since a file's name need not be valid text.
    """

    def __init__(self, output: Path, *, overwrite: bool = False) -> None:
        """Check that the file can be written.

        Args:
            output: its name ends in ``.parquet``, ``.npz`` or ``.jsonl``.
            overwrite: replace an existing file, once the new one is complete.

        Raises:
            BulkFailure: no such format, it exists already, or its directory does not.
        """
        self._write: TableWriter = writer_for(output)
        if not output.parent.is_dir():
            raise BulkFailure(f"{output.parent} is not a directory.")
        self._output = output
        self._overwrite = overwrite
        self._journal = output.with_name(f"{output.name}.journal")
        self._database: sqlite3.Connection | None = None
        if not overwrite and output.exists() and not self._journal.exists():
            raise self._exists()

    def resume(self, model: EncoderDescription, files: Iterable[ImageFile]) -> Progress:
        """See `EmbeddingsFilePort.resume`."""
        new = not self._journal.exists()
        try:
            database = self._open()
            with database:
                database.execute("BEGIN IMMEDIATE")
                return self._continue_run(database, model, files)
        except (BulkFailure, KeyboardInterrupt):
            self.close()
            if new:
                self._journal.unlink()
            raise
        except sqlite3.OperationalError as failure:
            if failure.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                raise BulkFailure(f"another run is writing {self._output} now.") from None
            raise self._unusable(failure) from failure
        except sqlite3.DatabaseError as failure:
            raise self._unusable(failure) from failure

    def _continue_run(
        self, database: sqlite3.Connection, model: EncoderDescription, files: Iterable[ImageFile]
    ) -> Progress:
        for statement in _TABLES.split(";"):
            database.execute(statement)
        identity = (_LAYOUT, model.fingerprint, model.embedding_dimension)
        found = database.execute("SELECT layout, fingerprint, dimension, written FROM run")
        run = found.fetchone() or (*identity, False)
        if run[:3] != identity:
            raise BulkFailure(
                f"{self._journal} holds embeddings of the model with fingerprint {run[1]}, and "
                f"the model loaded now has {model.fingerprint}: they must not be mixed. Load that "
                "model again, or delete the journal to start over."
            )
        if self._output.exists() and not self._overwrite and not run[3]:
            raise self._exists()
        database.execute("DELETE FROM run")
        database.execute("INSERT INTO run VALUES (?, ?, ?, ?)", run)
        database.execute("DELETE FROM results WHERE error IS NOT NULL")
        database.executemany(
            "INSERT OR IGNORE INTO files VALUES (?, ?, ?)",
            ((os.fsencode(file.path), file.size, file.modified_ns) for file in files),
        )
        total, done = database.execute(f"SELECT count(*), count(embedding) {_ROWS}").fetchone()
        if total == 0:
            raise BulkFailure("there is no image in the given paths.")
        return Progress(total=total, done=done, failed=0)

    def remaining(self) -> Iterator[ImageFile]:
        """See `EmbeddingsFilePort.remaining`."""
        after = b""
        while True:
            # Page by page, so that no query is open while rows are recorded.
            page = self._opened.execute(
                f"SELECT path, size, modified_ns {_ROWS} WHERE path > ? AND embedding IS NULL "
                "AND error IS NULL ORDER BY path LIMIT ?",
                (after, ROWS_AT_A_TIME),
            ).fetchall()
            if not page:
                return
            for path, size, modified_ns in page:
                yield ImageFile(os.fsdecode(path), size, modified_ns)
            after = page[-1][0]

    def record(self, rows: Sequence[EmbeddedFile]) -> None:
        """See `EmbeddingsFilePort.record`."""
        values = [
            (
                os.fsencode(row.file.path),
                row.file.size,
                row.file.modified_ns,
                None if row.embedding is None else row.embedding.vector.tobytes(),
                row.error,
            )
            for row in rows
        ]
        try:
            with self._opened as database:
                database.execute("BEGIN")
                database.executemany("REPLACE INTO results VALUES (?, ?, ?, ?, ?)", values)
        except sqlite3.Error as failure:
            raise self._unusable(failure) from failure

    def finish(self) -> None:
        """See `EmbeddingsFilePort.finish`."""
        database = self._opened
        fingerprint, dimension = database.execute(
            "SELECT fingerprint, dimension FROM run"
        ).fetchone()
        (count,) = database.execute("SELECT count(*) FROM files").fetchone()
        unfinished = self._output.with_name(f"{self._output.name}.unfinished")
        try:
            self._write(Table(fingerprint, dimension, count, self._chunks), unfinished)
            flush(unfinished)
            # From here on, a file of this name is known to be from this run.
            database.execute("UPDATE run SET written = 1")
            unfinished.replace(self._output)
            flush(self._output.parent)
        except OSError as failure:
            raise BulkFailure(f"{self._output} cannot be written: {failure}") from failure
        self.close()
        self._journal.unlink()

    def close(self) -> None:
        """See `EmbeddingsFilePort.close`."""
        if self._database is not None:
            self._database.close()
            self._database = None

    @property
    def _opened(self) -> sqlite3.Connection:
        assert self._database is not None, "resume comes first"
        return self._database

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._journal, timeout=0, isolation_level=None)
        self._database = database
        # Exclusive: a second run with the same output fails at once, and a killed one leaves no
        # lock behind. In this mode a write-ahead log needs no shared memory, so that it also works
        # on network disks.
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        return database

    def _chunks(self) -> Iterator[list[Row]]:
        """Every row in order. Each has an embedding or an error."""
        cursor = self._opened.execute(f"SELECT path, embedding, error {_ROWS} ORDER BY path")
        while page := cursor.fetchmany(ROWS_AT_A_TIME):
            rows = []
            for path, embedding, error in page:
                vector = None if embedding is None else np.frombuffer(embedding, dtype=np.float32)
                assert (vector is None) != (error is None), "not every file has its row yet"
                rows.append(Row(path.decode("utf-8", "backslashreplace"), vector, error))
            yield rows

    def _exists(self) -> BulkFailure:
        return BulkFailure(f"{self._output} exists already; name another, or use --overwrite.")

    def _unusable(self, failure: sqlite3.Error) -> BulkFailure:
        return BulkFailure(f"{self._journal} cannot be used ({failure}).")
