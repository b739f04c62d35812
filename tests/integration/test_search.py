"""Searching files of embeddings: every format, exact, a block at a time."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.bulk.index_files import ROWS_AT_A_TIME, open_index
from adapters.bulk.table_formats import Row, Table, writer_for
from application.bulk_ports import BulkFailure
from application.use_cases.search import SearchIndex, SearchResult
from domain.errors import InvalidInputs
from entrypoints.container import Container, close_threads
from tests.support.indexes import MemoryIndex
from tests.support.photos import as_file, photo

FORMATS = ["npz", "jsonl", "parquet"]


def unit_rows(count: int, dimension: int = 768) -> np.ndarray:
    rows = np.random.default_rng(count).normal(size=(count, dimension))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def written(path: Path, rows: list[Row], *, dimension: int, fingerprint: str = "f1") -> Path:
    def chunks() -> Iterator[list[Row]]:
        return (rows[start : start + 1024] for start in range(0, len(rows), 1024))

    writer_for(path)(Table(fingerprint, dimension, len(rows), chunks), path)
    return path


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_was_written_is_read_back(suffix: str, tmp_path: Path) -> None:
    count = ROWS_AT_A_TIME + 100
    vectors = unit_rows(count, 4)
    rows = [
        Row(f"dir/ü {place}.jpg", None if place % 500 == 7 else vectors[place], None)
        if place % 500 != 7
        else Row(f"dir/ü {place}.jpg", None, "damaged_image: torn")
        for place in range(count)
    ]
    index = open_index(written(tmp_path / f"i.{suffix}", rows, dimension=4))
    assert (index.fingerprint, index.dimension) == ("f1", 4)
    blocks = list(index.blocks())
    assert max(len(block.vectors) for block in blocks) <= ROWS_AT_A_TIME
    assert [str(path) for block in blocks for path in block.paths] == [row.path for row in rows]
    read = np.concatenate([block.vectors for block in blocks])
    bad = np.arange(count) % 500 == 7
    assert np.isnan(read[bad]).all()
    np.testing.assert_array_equal(read[~bad], vectors[~bad])


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_that_is_no_index_is_refused_in_words(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"i.{suffix}"
    path.write_bytes(b"PK\x03\x04 nonsense\n" * 20)
    with pytest.raises(BulkFailure, match="is not an index that can be searched") as refused:
        list(open_index(path).blocks())
    assert "clip-server embed" in str(refused.value)


def test_a_cut_npz_is_refused(tmp_path: Path) -> None:
    rows = [Row(f"{place}.jpg", vector, None) for place, vector in enumerate(unit_rows(50, 8))]
    whole = written(tmp_path / "whole.npz", rows, dimension=8)
    short = tmp_path / "short.npz"
    with zipfile.ZipFile(whole) as archive, zipfile.ZipFile(short, "w") as target:
        for name in archive.namelist():
            data = archive.read(name)
            target.writestr(name, data[:-40] if name == "embedding.npy" else data)
    with pytest.raises(BulkFailure, match="it ends too early"):
        list(open_index(short).blocks())


def test_other_names_and_missing_files_say_how_to_make_one(tmp_path: Path) -> None:
    for name in ("i.csv", "missing.npz"):
        with pytest.raises(BulkFailure, match="clip-server embed PHOTOS"):
            open_index(tmp_path / name)


def test_json_lines_of_two_models_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "i.jsonl"
    rows = [
        {"path": str(place), "embedding": [1.0], "model_fingerprint": f"f{place}"}
        for place in range(2)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(BulkFailure, match="line 2 is of another model"):
        list(open_index(path).blocks())


async def found(container: Container, vectors: np.ndarray, *, block: int, top: int) -> SearchResult:
    await container.model().load()
    try:
        search: SearchIndex = container.search_index()
        fingerprint = container.inference().encoder.fingerprint
        index = MemoryIndex(vectors, fingerprint=fingerprint, block=block)
        return await search(index, text="a cat", top=top)
    finally:
        await close_threads(container)


@pytest.mark.parametrize("block", [1, 7, 64, 5000])
async def test_the_result_is_that_of_one_big_product(container: Container, block: int) -> None:
    vectors = unit_rows(1000)
    vectors[500:520] = vectors[100]  # twenty that are equal
    vectors[3::11] = np.nan
    await container.model().load()
    query = (await container.embed_texts()(["a cat"]))[0].vector
    result = await found(container, vectors, block=block, top=40)
    cosines = np.where(np.isnan(vectors[:, 0]), -np.inf, vectors @ query)
    assert [match.similarity for match in result.matches] == pytest.approx(
        sorted(cosines, reverse=True)[:40], abs=1e-6
    )
    best = np.argsort(-cosines.round(6), kind="stable")[:40]
    assert {match.path for match in result.matches} == {str(place) for place in best}
    assert result.searched + result.without_embedding == 1000
    assert result.without_embedding == len(vectors[3::11])


async def test_a_text_and_a_photo_together_count_half_each(container: Container) -> None:
    await container.model().load()
    try:
        cat = as_file(photo("cat"), "PNG")
        image = (await container.embed_image()(cat)).vector
        text = (await container.embed_texts()(["snow"]))[0].vector
        index = MemoryIndex(
            np.stack([image, text]),
            fingerprint=container.inference().encoder.fingerprint,
            block=10,
        )
        both = await container.search_index()(index, text="snow", photo=cat)
        expected = (1.0 + float(image @ text)) / 2.0
        assert [match.similarity for match in both.matches] == pytest.approx(
            [expected, expected], abs=1e-6
        )
        alone = await container.search_index()(index, photo=cat, top=1)
        assert alone.matches[0].path == "0"
        assert alone.matches[0].similarity == pytest.approx(1.0, abs=1e-6)
    finally:
        await close_threads(container)


async def test_what_cannot_be_searched_is_refused(container: Container) -> None:
    await container.model().load()
    try:
        search = container.search_index()
        index = MemoryIndex(unit_rows(3), fingerprint="other", block=10)
        with pytest.raises(BulkFailure, match="with fingerprint other"):
            await search(index, text="a cat")
        with pytest.raises(InvalidInputs, match="needs a text"):
            await search(index)
        with pytest.raises(InvalidInputs, match="0 results were requested"):
            await search(index, text="a cat", top=0)
    finally:
        await close_threads(container)


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=300), st.sampled_from(FORMATS))
def test_no_bytes_make_reading_fail_otherwise(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, suffix: str
) -> None:
    path = tmp_path_factory.mktemp("bytes") / f"i.{suffix}"
    path.write_bytes(data)
    with pytest.raises(BulkFailure):
        list(open_index(path).blocks())
