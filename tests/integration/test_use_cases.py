"""The use cases called directly, with the fake encoder behind them."""

from collections.abc import AsyncIterator

import numpy as np
import pytest

from adapters.encoders.fake import FakeEncoder
from adapters.images.preprocessing import preprocess
from domain.errors import InvalidBaseline, InvalidImage, InvalidLabels, ModelNotReady, QueueFull
from domain.prompts import CameraType, prompts_for
from entrypoints.container import Container, close_threads
from entrypoints.settings import read_settings
from tests.support.photos import as_file, photo

CAT = as_file(photo("cat"), "PNG")
COFFEE = as_file(photo("coffee"), "PNG")


@pytest.fixture
async def ready(container: Container) -> AsyncIterator[Container]:
    await container.model().load()
    yield container
    await close_threads(container)


def expected_image(name: str) -> np.ndarray:
    batch = preprocess(photo(name))[np.newaxis]
    return np.asarray(FakeEncoder(embedding_dimension=768).encode_images(batch)[0])


def expected_texts(*texts: str) -> np.ndarray:
    return FakeEncoder(embedding_dimension=768).encode_texts(texts)


async def test_embedding_is_the_encoders(ready: Container) -> None:
    embedding = await ready.embed_image()(CAT)
    np.testing.assert_allclose(embedding.vector, expected_image("cat"), atol=1e-6)


async def test_anomaly_against_itself_and_another(ready: Container) -> None:
    cat = (await ready.embed_image()(CAT)).vector.tolist()
    same = await ready.score_anomaly()(CAT, cat)
    other = await ready.score_anomaly()(COFFEE, cat)
    assert same.score == pytest.approx(0.0, abs=1e-6)
    assert same.similarity == pytest.approx(1.0, abs=1e-6)
    assert other.score > 0.8


async def test_a_bad_baseline_is_refused_before_the_image_is_looked_at(ready: Container) -> None:
    with pytest.raises(InvalidBaseline):
        await ready.score_anomaly()(b"no image", [1.0])


async def test_classification_is_softmax_of_scaled_cosines(ready: Container) -> None:
    result = await ready.classify_image()(CAT, ["dog", "cat"])
    logits = 100.0 * (expected_texts("dog", "cat") @ expected_image("cat"))
    expected = np.exp(logits - logits.max())
    np.testing.assert_allclose(
        list(result.classification.scores.values()), expected / expected.sum(), atol=1e-4
    )
    assert result.ensemble is None


async def test_an_ensemble_averages_its_prompts_and_keeps_the_scale(ready: Container) -> None:
    result = await ready.classify_image()(CAT, ["dog", "cat"], camera_type=CameraType.DOORBELL)
    means = [
        expected_texts(*prompts_for(label, CameraType.DOORBELL)).mean(axis=0)
        for label in ("dog", "cat")
    ]
    units = np.stack([mean / np.linalg.norm(mean) for mean in means])
    logits = 100.0 * (units @ expected_image("cat"))
    expected = np.exp(logits - logits.max())
    np.testing.assert_allclose(
        list(result.classification.scores.values()), expected / expected.sum(), atol=1e-4
    )
    assert result.ensemble is not None
    assert result.ensemble.camera_type is CameraType.DOORBELL
    assert len(result.ensemble.templates) == 5


async def test_labels_are_checked_before_the_image(ready: Container) -> None:
    with pytest.raises(InvalidLabels):
        await ready.classify_image()(b"no image", [])


async def test_similarities_are_cosines_in_the_order_asked(ready: Container) -> None:
    texts = ["zebra", "apple", "middle"]
    result = await ready.compare_texts().many(CAT, texts)
    assert list(result) == texts
    np.testing.assert_allclose(
        list(result.values()), expected_texts(*texts) @ expected_image("cat"), atol=1e-6
    )
    assert await ready.compare_texts().one(CAT, "apple") == pytest.approx(result["apple"])


async def test_a_bad_image_gives_its_place_back(ready: Container) -> None:
    for _ in range(100):
        with pytest.raises(InvalidImage):
            await ready.embed_image()(b"no image")
    assert ready.admission().inside == 0


async def test_without_a_model_nothing_is_done(container: Container) -> None:
    with pytest.raises(ModelNotReady):
        await container.embed_image()(CAT)
    assert container.admission().inside == 0


async def test_too_many_at_once_are_refused() -> None:
    container = Container(
        settings=read_settings({"CLIP_ENCODER": "fake", "CLIP_MAX_REQUESTS": "1"})
    )
    await container.model().load()
    with container.admission().admit(), pytest.raises(QueueFull):
        await container.embed_image()(CAT)
    await container.embed_image()(CAT)
    await close_threads(container)


async def test_health_tells_what_is_loaded(ready: Container) -> None:
    health = ready.report_health()()
    assert health.ready
    assert health.encoder is not None
    assert health.encoder.backend == "fake"
    ready.admission().start_draining()
    assert ready.report_health()().reason == "the server is shutting down."
