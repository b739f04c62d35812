"""An unfinished embeddings file: three formats, and continuing where a killed run stopped."""

import json
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from adapters.bulk.journal import JournalledEmbeddings
from application.bulk_ports import BulkFailure, EmbeddedFile, ImageFile, Progress
from application.ports import Device, EncoderDescription
from domain.embedding import Embedding

DIMENSION = 4
FILES = [ImageFile(f"photos/{name}.jpg", size=10, modified_ns=99) for name in "cbade"]
ORDER = [f"photos/{name}.jpg" for name in "abcde"]


def model(fingerprint: str = "f1") -> EncoderDescription:
    return EncoderDescription(
        model="m",
        fingerprint=fingerprint,
        backend="fake",
        precision="fp32",
        device=Device("cpu", cuda_available=False),
        embedding_dimension=DIMENSION,
        logit_scale=100.0,
    )


def embedded(file: ImageFile) -> EmbeddedFile:
    """A row that is recognisable by the file's name; ``d`` is broken."""
    if "d.jpg" in file.path:
        return EmbeddedFile(file, None, "damaged_image: image is truncated.")
    seed = int.from_bytes(os.fsencode(file.path))
    raw = np.random.default_rng(seed).standard_normal(DIMENSION)
    return EmbeddedFile(file, Embedding.from_encoder(raw), None)


def complete(output: JournalledEmbeddings, files: Sequence[ImageFile] = FILES) -> Progress:
    """All that the use case does, a row at a time; returns how far earlier runs had come."""
    progress = output.resume(model(), files)
    for file in output.remaining():
        output.record([embedded(file)])
    output.finish()
    output.close()
    return progress


def parquet_rows(path: Path) -> list[tuple[Any, ...]]:
    table = pyarrow.parquet.read_table(path)
    assert table.schema.metadata[b"model_fingerprint"] == b"f1"
    return [tuple(row.values()) for row in table.to_pylist()]


def jsonl_rows(path: Path) -> list[tuple[Any, ...]]:
    return [tuple(json.loads(line).values()) for line in path.read_text().splitlines()]


def npz_rows(path: Path) -> list[tuple[Any, ...]]:
    with np.load(path) as arrays:
        assert arrays["embedding"].dtype == np.float32
        columns = [arrays[name] for name in ("path", "embedding", "error")]
        fingerprint = str(arrays["model_fingerprint"])
    return [
        (
            str(name),
            None if np.isnan(vector).all() else vector.tolist(),
            str(error) or None,
            fingerprint,
        )
        for name, vector, error in zip(*columns, strict=True)
    ]


@pytest.mark.parametrize(
    ("suffix", "rows"), [("parquet", parquet_rows), ("jsonl", jsonl_rows), ("npz", npz_rows)]
)
def test_each_format_holds_every_row_in_order(
    tmp_path: Path, suffix: str, rows: Callable[[Path], list[tuple[Any, ...]]]
) -> None:
    path = tmp_path / f"out.{suffix}"
    complete(JournalledEmbeddings(path))
    found = rows(path)
    assert [row[0] for row in found] == ORDER
    for name, vector, error, fingerprint in found:
        expected = embedded(ImageFile(name, 0, 0))
        assert error == expected.error
        assert fingerprint == "f1"
        if expected.embedding is None:
            assert vector is None
        else:
            np.testing.assert_array_equal(np.float32(vector), expected.embedding.vector)
    assert os.listdir(tmp_path) == [path.name]


def test_many_rows_are_written_in_pieces(tmp_path: Path) -> None:
    files = [ImageFile(f"{number:05}.png", 1, 1) for number in range(2500)]
    for suffix, rows in (("npz", npz_rows), ("parquet", parquet_rows)):
        path = tmp_path / f"out.{suffix}"
        output = JournalledEmbeddings(path)
        output.resume(model(), files)
        output.record([embedded(file) for file in output.remaining()])
        output.finish()
        found = rows(path)
        assert [row[0] for row in found] == [file.path for file in files]
        for row in found[::97]:
            expected = embedded(ImageFile(row[0], 1, 1)).embedding
            assert expected is not None
            np.testing.assert_array_equal(np.float32(row[1]), expected.vector)


def test_a_killed_run_is_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    killed = JournalledEmbeddings(path)
    killed.resume(model(), FILES)
    killed.record([embedded(FILES[0]), embedded(FILES[4])])
    killed.close()  # as the system does for a process that is gone
    assert not path.exists()
    again = JournalledEmbeddings(path)
    assert again.resume(model(), FILES) == Progress(total=5, done=2, failed=0)
    left = list(again.remaining())
    assert [file.path for file in left] == [ORDER[0], ORDER[1], ORDER[3]]
    again.close()
    complete(JournalledEmbeddings(path))
    whole = tmp_path / "whole.jsonl"
    complete(JournalledEmbeddings(whole))
    assert path.read_bytes() == whole.read_bytes()


def test_a_run_killed_before_its_journal_was_removed_can_be_repeated(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    first = JournalledEmbeddings(path)
    first.resume(model(), FILES)
    first.record([embedded(file) for file in FILES])
    journal = tmp_path / "out.jsonl.journal"
    with journal.open("rb"):  # keeps the content reachable on any system
        os.link(journal, tmp_path / "kept")
        first.finish()
    os.rename(tmp_path / "kept", journal)
    before = path.read_bytes()
    complete(JournalledEmbeddings(path))
    assert path.read_bytes() == before
    assert not journal.exists()


def test_changed_files_are_embedded_anew_and_vanished_ones_dropped(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    first = JournalledEmbeddings(path)
    first.resume(model(), FILES)
    first.record([embedded(file) for file in FILES])
    first.close()
    changed = ImageFile(FILES[0].path, size=10, modified_ns=100)
    second = JournalledEmbeddings(path)
    progress = second.resume(model(), [changed, FILES[1], FILES[2]])
    assert progress == Progress(total=3, done=2, failed=0)
    assert list(second.remaining()) == [changed]
    second.record([embedded(changed)])
    second.finish()
    assert [row[0] for row in jsonl_rows(path)] == ORDER[:3]


def test_files_with_an_error_are_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    first = JournalledEmbeddings(path)
    first.resume(model(), FILES)
    first.record([embedded(file) for file in FILES])
    assert list(first.remaining()) == []
    first.close()
    second = JournalledEmbeddings(path)
    second.resume(model(), FILES)
    assert [file.path for file in second.remaining()] == ["photos/d.jpg"]
    second.close()


def test_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    first = JournalledEmbeddings(path)
    first.resume(model(), FILES)
    first.record([embedded(FILES[0])])
    first.close()
    with pytest.raises(BulkFailure, match=r"fingerprint f1, and .* has f2: .* must not be mixed"):
        JournalledEmbeddings(path).resume(model("f2"), FILES)
    assert complete(JournalledEmbeddings(path)).done == 1


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    first = JournalledEmbeddings(path)
    first.resume(model(), FILES)
    with pytest.raises(BulkFailure, match="another run is writing"):
        JournalledEmbeddings(path).resume(model(), FILES)
    first.record([embedded(FILES[0])])
    first.close()


def test_an_existing_file_is_replaced_only_on_request_and_only_by_a_whole_one(
    tmp_path: Path,
) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("precious")
    with pytest.raises(BulkFailure, match=r"exists already; .* --overwrite"):
        JournalledEmbeddings(path)
    first = JournalledEmbeddings(path, overwrite=True)
    first.resume(model(), FILES)
    first.close()
    assert path.read_text() == "precious"
    with pytest.raises(BulkFailure, match="exists already"):
        JournalledEmbeddings(path).resume(model(), FILES)
    complete(JournalledEmbeddings(path, overwrite=True))
    assert [row[0] for row in jsonl_rows(path)] == ORDER


def test_a_file_that_is_named_twice_gets_one_row(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    assert complete(JournalledEmbeddings(path), [*FILES, *FILES]).total == 5
    assert [row[0] for row in jsonl_rows(path)] == ORDER


def test_names_that_are_no_text_are_kept_apart(tmp_path: Path) -> None:
    names = [os.fsdecode(b"\xff.jpg"), os.fsdecode(b"\xfe.jpg"), "ü.jpg"]
    files = [ImageFile(name, 1, 1) for name in names]
    path = tmp_path / "out.npz"
    complete(JournalledEmbeddings(path), files)
    assert [row[0] for row in npz_rows(path)] == ["ü.jpg", "\\xfe.jpg", "\\xff.jpg"]


def test_nothing_to_embed_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(BulkFailure, match="no image"):
        JournalledEmbeddings(tmp_path / "out.jsonl").resume(model(), [])
    assert os.listdir(tmp_path) == []


def test_a_wrong_name_or_place_is_told(tmp_path: Path) -> None:
    with pytest.raises(BulkFailure, match=r"out.csv: the name must end in \.parquet, \.npz"):
        JournalledEmbeddings(tmp_path / "out.csv")
    with pytest.raises(BulkFailure, match="is not a directory"):
        JournalledEmbeddings(tmp_path / "nowhere" / "out.npz")


def test_a_journal_that_is_something_else_is_told(tmp_path: Path) -> None:
    (tmp_path / "out.npz.journal").write_text("a diary, not a database\n" * 100)
    with pytest.raises(BulkFailure, match=r"out.npz.journal cannot be used \(file is not a data"):
        JournalledEmbeddings(tmp_path / "out.npz").resume(model(), FILES)


def test_rows_are_recorded_all_or_none(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    first = JournalledEmbeddings(path)
    first.resume(model(), FILES)
    bad = EmbeddedFile(ImageFile("x", size=2**80, modified_ns=0), None, "too large for SQLite")
    with pytest.raises((BulkFailure, OverflowError)):
        first.record([embedded(FILES[0]), bad])
    first.close()
    with sqlite3.connect(tmp_path / "out.jsonl.journal") as database:
        assert database.execute("SELECT count(*) FROM results").fetchone() == (0,)
    database.close()
