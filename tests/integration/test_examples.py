"""What a calibration measures of pictures, on the fake encoder."""

from collections.abc import AsyncIterator
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from adapters.bulk.baseline_file import read_baselines, write_baselines
from application.bulk_ports import BulkFailure
from application.use_cases.calibrate import MeasureExamples
from domain.baseline import baseline_of
from domain.embedding import Embedding
from domain.errors import InvalidExamples
from domain.watching import KeptBaseline
from entrypoints.container import Container, close_threads
from tests.support.image_files import MemoryFiles
from tests.support.photos import as_file, plain


def silent(done: int, total: int) -> None:
    assert done <= total


FILES = MemoryFiles(
    {
        **{f"{n}.png": as_file(plain(20 * n, 255 - 20 * n, 90), "PNG") for n in range(8)},
        "bad.png": b"no picture",
    }
)
PICTURES = list(FILES.listing())
BAD = PICTURES[-1]


@pytest.fixture
async def ready(container: Container) -> AsyncIterator[Container]:
    await container.model().load()
    yield container
    await close_threads(container)


async def embedded(container: Container) -> dict[str, Embedding]:
    return {
        picture.path: await container.embed_image()(FILES.read(picture))
        for picture in PICTURES[:-1]
    }


async def test_things_give_every_pair_once(ready: Container) -> None:
    measure: MeasureExamples = ready.measure_examples()
    things = [PICTURES[:2], PICTURES[2:5], [*PICTURES[5:8], BAD]]
    examples = await measure.of_things(FILES, things, on_progress=silent)
    embeddings = await embedded(ready)
    label = {picture.path: number for number, thing in enumerate(things) for picture in thing}
    same, different, groups = [], [], []
    for (one, a), (other, b) in combinations(embeddings.items(), 2):
        if label[one] == label[other]:
            same.append(a.cosine(b))
        else:
            different.append(a.cosine(b))
            groups.append([label[one], label[other]])
    np.testing.assert_allclose(examples.positives, same, atol=1e-6)
    np.testing.assert_allclose(examples.negatives, different, atol=1e-6)
    assert examples.groups is not None
    assert examples.groups.tolist() == groups
    assert examples.pictures == 8
    assert list(examples.left_out) == ["bad.png"]


async def test_pairs_are_those_that_were_named(ready: Container) -> None:
    pairs = [
        (PICTURES[0], PICTURES[1], True),
        (PICTURES[0], PICTURES[2], False),
        (PICTURES[1], BAD, False),
    ]
    examples = await ready.measure_examples().of_pairs(FILES, pairs, on_progress=silent)
    embeddings = await embedded(ready)
    assert examples.positives.tolist() == [
        pytest.approx(embeddings["0.png"].cosine(embeddings["1.png"]))
    ]
    assert examples.negatives.tolist() == [
        pytest.approx(embeddings["0.png"].cosine(embeddings["2.png"]))
    ]
    assert examples.left_out.keys() == {"bad.png"}


async def test_frames_are_scored_against_the_others_or_against_a_baseline(
    ready: Container,
) -> None:
    measure: MeasureExamples = ready.measure_examples()
    normal, unusual = PICTURES[:5], PICTURES[5:8]
    embeddings = await embedded(ready)
    usual = [embeddings[frame.path] for frame in normal]
    examples = await measure.of_frames(FILES, normal, unusual, baseline=None, on_progress=silent)
    mean = baseline_of(usual).embedding
    for place, frame in enumerate(usual):
        others = baseline_of(usual[:place] + usual[place + 1 :]).embedding
        expected = min(max(1.0 - others.cosine(frame), 0.0), 1.0)
        assert examples.negatives[place] == pytest.approx(expected, abs=1e-6)
    given = await measure.of_frames(FILES, normal, unusual, baseline=mean, on_progress=silent)
    np.testing.assert_allclose(given.positives, examples.positives, atol=1e-6)
    assert given.groups is None


async def test_nothing_to_compare_names_the_first_bad_picture(ready: Container) -> None:
    with pytest.raises(InvalidExamples, match=r"bad\.png"):
        await ready.measure_examples().of_frames(
            FILES, [BAD], [], baseline=None, on_progress=silent
        )


@pytest.mark.parametrize("count", [1, 2])
def test_baselines_survive_their_file(count: int, tmp_path: Path) -> None:
    embedding = Embedding.from_encoder(np.arange(1.0, 9.0))
    path = tmp_path / "baseline.json"
    write_baselines(path, [KeptBaseline(embedding, 0.125, "f1", 0.5)] * count)
    kept = read_baselines(path)
    assert len(kept) == count
    np.testing.assert_allclose(kept[-1].embedding.vector, embedding.vector, atol=1e-7)
    assert (kept[-1].threshold, kept[-1].fingerprint, kept[-1].brightness) == (0.125, "f1", 0.5)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"baseline_embedding": []}', b'{"baseline_embedding": "x"}']
)
def test_what_is_no_baseline_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    path.write_bytes(content)
    with pytest.raises(BulkFailure, match="is not a baseline"):
        read_baselines(path)
    with pytest.raises(BulkFailure, match="cannot be read"):
        read_baselines(tmp_path / "missing.json")
