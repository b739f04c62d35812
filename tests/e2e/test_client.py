"""The Python client against the real server."""

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clip_client import (
    AsyncClipClient,
    ClipClient,
    Embedding,
    InvalidRequest,
)
from PIL import Image

from tests.support.photos import as_file, photo, plain
from tests.support.servers import Server

HELD_OUT = Path("adapters/models/demo/held_out")
TRUCK, TAXI, CAT = (HELD_OUT / f"{name}.png" for name in ("delivery_truck", "taxi", "cat"))
LABELS = ["a cat", "a delivery truck", "a person walking"]


@pytest.fixture
def clip(server: Server) -> Iterator[ClipClient]:
    with ClipClient(server.url) as client:
        yield client


def test_embed(clip: ClipClient) -> None:
    embedding = clip.embed(TRUCK)
    assert len(embedding) == clip.health().embedding_dimension == 768
    assert np.linalg.norm(embedding) == pytest.approx(1.0, abs=1e-5)
    assert embedding.fingerprint == clip.health().model_fingerprint


def test_every_kind_of_source_has_the_same_embedding(clip: ClipClient) -> None:
    file = TRUCK.read_bytes()
    expected = clip.embed(file)
    with TRUCK.open("rb") as opened, Image.open(TRUCK) as image:
        for source in (TRUCK, str(TRUCK), bytearray(file), opened, image, np.asarray(image)):
            assert clip.embed(source) == expected, type(source)


def test_a_photo_lying_on_its_side_is_turned_whichever_way_it_comes(clip: ClipClient) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = as_file(photo("cat"), quality=95, exif=exif)
    with Image.open(io.BytesIO(file)) as image:
        assert clip.cosine_similarity(clip.embed(file), clip.embed(image)) > 0.9999
    assert clip.cosine_similarity(clip.embed(file), clip.embed(photo("cat"))) < 0.999


def test_anomaly_score(clip: ClipClient) -> None:
    baseline = clip.average_embedding([clip.embed(TRUCK), clip.embed(TRUCK)])
    same, other = clip.anomaly_score(TRUCK, baseline), clip.anomaly_score(CAT, baseline)
    assert same.anomaly_score == pytest.approx(0.0, abs=1e-5)
    assert same.similarity_to_baseline == pytest.approx(1.0, abs=1e-5)
    assert other.anomaly_score > 0.1
    assert other.similarity_to_baseline == pytest.approx(
        clip.cosine_similarity(clip.embed(CAT), baseline), abs=1e-5
    )


def test_a_threshold_says_whether_it_is_an_anomaly(clip: ClipClient) -> None:
    baseline = clip.embed(TRUCK)
    assert clip.anomaly_score(TRUCK, baseline).is_anomaly is None
    assert clip.anomaly_score(TRUCK, baseline, threshold=0.1).is_anomaly is False
    assert clip.anomaly_score(CAT, baseline, threshold=0.1).is_anomaly is True


def test_compare(clip: ClipClient) -> None:
    same, other = clip.compare(TRUCK, TRUCK), clip.compare(TRUCK, CAT)
    assert (same.same_entity, same.threshold) == (True, 0.85)
    assert same.similarity == pytest.approx(1.0, abs=1e-5)
    assert not other.same_entity
    embeddings = clip.compare(clip.embed(TRUCK), np.array(clip.embed(CAT), np.float32))
    assert embeddings.similarity == pytest.approx(other.similarity, abs=1e-5)
    mixed = clip.compare(clip.embed(TRUCK), CAT, threshold=-1.0)
    assert mixed.similarity == pytest.approx(other.similarity, abs=1e-5)
    assert (mixed.same_entity, mixed.threshold) == (True, -1.0)


def test_baseline(clip: ClipClient) -> None:
    frames = [plain(120 + n, 120, 120) for n in range(6)]
    baseline = clip.baseline([*frames[:3], *(clip.embed(frame) for frame in frames[3:])])
    assert baseline.count == 6
    assert baseline.embedding.fingerprint == clip.health().model_fingerprint
    average = clip.average_embedding([clip.embed(frame) for frame in frames])
    assert baseline.embedding == pytest.approx(average, abs=1e-6)
    assert baseline.spread.min_similarity <= baseline.spread.mean_similarity <= 1.0
    assert baseline.spread.std_similarity is not None
    threshold = baseline.suggested_threshold
    assert threshold is not None
    assert (
        clip.anomaly_score(frames[0], baseline.embedding, threshold=threshold).is_anomaly is False
    )
    assert clip.anomaly_score(TRUCK, baseline.embedding, threshold=threshold).is_anomaly is True
    assert clip.baseline([TRUCK]).suggested_threshold is None


def test_a_batch_fails_item_by_item(clip: ClipClient) -> None:
    truck, broken, cat = clip.embed_batch([TRUCK, b"no image", Image.open(CAT)])
    assert isinstance(truck, Embedding)
    assert isinstance(broken, InvalidRequest)
    assert isinstance(cat, Embedding)
    assert (broken.status, broken.code) == (422, "not_an_image")
    assert truck.fingerprint == clip.health().model_fingerprint
    assert clip.cosine_similarity(truck, clip.embed(TRUCK)) > 0.9999
    assert clip.cosine_similarity(cat, clip.embed(CAT)) > 0.9999


def test_classify(clip: ClipClient) -> None:
    result = clip.classify(TRUCK, LABELS)
    assert result.top_label == "a delivery truck"
    assert list(result.scores) == LABELS
    assert sum(result.scores.values()) == pytest.approx(1.0)
    assert result.inference_time_ms > 0
    assert result.ensemble_metadata is None


def test_classify_with_an_ensemble(clip: ClipClient) -> None:
    result = clip.classify(TRUCK, LABELS, use_ensemble=True, camera_type="doorbell")
    assert result.ensemble_metadata is not None
    assert result.ensemble_metadata.camera_type == "doorbell"
    assert result.ensemble_metadata.num_templates == 5


def test_similarity_and_batch_similarity_agree(clip: ClipClient) -> None:
    many = clip.batch_similarity(TRUCK, LABELS)
    assert list(many) == LABELS
    assert many["a cat"] == pytest.approx(clip.similarity(TRUCK, "a cat"))
    assert max(many, key=many.__getitem__) == "a delivery truck"


def test_health(clip: ClipClient) -> None:
    health = clip.health()
    assert (health.status, health.model, health.backend) == ("healthy", "builtin:demo", "openvino")


async def test_the_asynchronous_client_answers_the_same(clip: ClipClient, server: Server) -> None:
    async with AsyncClipClient(server.url) as asynchronous:
        embedding, similarity, similarities, classification, anomaly, health = await asyncio.gather(
            asynchronous.embed(TRUCK),
            asynchronous.similarity(TRUCK, "a cat"),
            asynchronous.batch_similarity(TRUCK, LABELS),
            asynchronous.classify(TRUCK, LABELS),
            asynchronous.anomaly_score(CAT, clip.embed(TRUCK)),
            asynchronous.health(),
        )
        comparison = await asynchronous.compare(TRUCK, embedding)
        baseline = await asynchronous.baseline([TRUCK, embedding])
        (batched,) = await asynchronous.embed_batch([TRUCK])
    assert embedding == clip.embed(TRUCK)
    assert embedding.fingerprint == health.model_fingerprint
    assert similarity == clip.similarity(TRUCK, "a cat")
    assert similarities == clip.batch_similarity(TRUCK, LABELS)
    assert classification.scores == clip.classify(TRUCK, LABELS).scores
    assert anomaly.anomaly_score == clip.anomaly_score(CAT, embedding).anomaly_score
    assert comparison.same_entity
    assert baseline.count == 2
    assert batched == embedding


def test_both_clients_have_the_same_calls() -> None:
    def calls(kind: type[Any]) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert calls(ClipClient) - calls(AsyncClipClient) == {"close"}
    assert calls(AsyncClipClient) - calls(ClipClient) == {"aclose"}
