"""Comparing sightings, building baselines and scoring against them, over HTTP."""

import textwrap
from typing import Any

import numpy as np
import pytest
from litestar.testing import AsyncTestClient

from entrypoints.container import Container, http_service
from entrypoints.settings import read_settings
from tests.support.app import serving
from tests.support.photos import as_base64, photo, photos, plain
from tests.support.responses import Client, problem, succeeded

CAT, COFFEE = as_base64(photo("cat")), as_base64(photo("coffee"))
NO_IMAGE = "bm8gaW1hZ2U="
AXIS = [1.0] + [0.0] * 767


@pytest.fixture
def client(shared_client: Client) -> Client:
    return shared_client


async def embed(client: Client, image: str) -> list[float]:
    embedding: list[float] = succeeded(await client.post("/embed", json={"image": image}))[
        "embedding"
    ]
    return embedding


async def ask(client: Client, path: str, **fields: Any) -> dict[str, Any]:
    return succeeded(await client.post(path, json=fields))


async def test_compare_images_and_embeddings_alike(client: Client) -> None:
    cat, coffee = await embed(client, CAT), await embed(client, COFFEE)
    expected = float(np.dot(cat, coffee))
    for fields in (
        {"image_a": CAT, "image_b": COFFEE},
        {"image_a": CAT, "embedding_b": coffee},
        {"embedding_a": cat, "image_b": COFFEE},
        {"embedding_a": cat, "embedding_b": coffee},
        {
            "image_a": f"data:image/jpeg;base64,{CAT}",
            "image_b": "\n".join(textwrap.wrap(COFFEE, 76)),
        },
    ):
        body = await ask(client, "/compare", **fields)
        assert set(body) == {"similarity", "same_entity", "threshold", "inference_time_ms"}
        assert body["similarity"] == pytest.approx(expected, abs=1e-6)
        assert (body["same_entity"], body["threshold"]) == (False, 0.85)


async def test_compare_with_itself_and_with_a_threshold(client: Client) -> None:
    assert (await ask(client, "/compare", image_a=CAT, image_b=CAT))["same_entity"] is True
    lenient = await ask(client, "/compare", image_a=CAT, image_b=COFFEE, threshold=-1)
    assert (lenient["same_entity"], lenient["threshold"]) == (True, -1.0)


async def test_embeddings_are_compared_without_a_model() -> None:
    settings = read_settings({"CLIP_MODEL_PATH": "/nowhere", "CLIP_ENCODER": "openvino"})
    async with AsyncTestClient(http_service(Container(settings=settings))) as client:
        body = await ask(client, "/compare", embedding_a=AXIS, embedding_b=AXIS)
        assert body["same_entity"] is True
        response = await client.post("/compare", json={"image_a": CAT, "embedding_b": AXIS})
        assert response.status_code == 503


@pytest.mark.parametrize(
    ("fields", "code", "detail"),
    [
        ({}, "image_or_embedding", "neither was sent of image_a and embedding_a"),
        ({"image_a": CAT}, "image_or_embedding", "neither was sent of image_b"),
        ({"image_a": CAT, "embedding_a": AXIS, "image_b": CAT}, "image_or_embedding", "both were"),
        ({"image_a": CAT, "image_b": CAT, "threshold": 1.5}, "invalid_threshold", "1.5"),
        ({"image_a": CAT, "image_b": CAT, "threshold": "1"}, "invalid_field", "threshold"),
        ({"image_a": CAT, "image_b": NO_IMAGE}, "not_an_image", "image_b: image is not"),
        ({"image_a": "@", "image_b": CAT}, "invalid_base64", "image_a is not base64"),
        ({"image_a": CAT, "embedding_b": [1.0]}, "embedding_wrong_length", "exactly 768"),
        ({"image_a": CAT, "embedding_b": [0] * 768}, "embedding_zero", "embedding_b is all zeros"),
    ],
)
async def test_compare_refuses(
    client: Client, fields: dict[str, Any], code: str, detail: str
) -> None:
    body = problem(await client.post("/compare", json=fields), 422)
    assert body["code"] == code
    assert detail in body["detail"]


async def test_baseline_is_the_mean_of_images_and_embeddings(client: Client) -> None:
    body = await ask(client, "/baseline", images=[CAT, COFFEE + "\n"], embeddings=[AXIS])
    assert set(body) == {
        "baseline_embedding",
        "count",
        "spread",
        "suggested_threshold",
        "inference_time_ms",
    }
    frames = np.array([await embed(client, CAT), await embed(client, COFFEE), AXIS])
    mean = frames.mean(axis=0)
    expected = mean / np.linalg.norm(mean)
    np.testing.assert_allclose(body["baseline_embedding"], expected, atol=1e-6)
    assert (body["count"], body["suggested_threshold"]) == (3, None)
    cosines = frames @ expected
    assert body["spread"] == {
        "mean_similarity": pytest.approx(cosines.mean(), abs=1e-6),
        "std_similarity": pytest.approx(cosines.std(ddof=1), abs=1e-6),
        "min_similarity": pytest.approx(cosines.min(), abs=1e-6),
        "max_similarity": pytest.approx(cosines.max(), abs=1e-6),
    }


async def test_a_baseline_of_one_frame(client: Client) -> None:
    body = await ask(client, "/baseline", images=[CAT])
    assert body["count"] == 1
    assert body["spread"]["std_similarity"] is None
    assert body["suggested_threshold"] is None
    np.testing.assert_allclose(body["baseline_embedding"], await embed(client, CAT), atol=1e-6)


async def test_what_a_baseline_suggests_anomaly_scores_take(client: Client) -> None:
    frames = [await embed(client, as_base64(image)) for image in photos().values()]
    usual = np.array(frames[0])
    scene = [list(usual + 0.1 * np.array(frame)) for frame in frames]
    body = await ask(client, "/baseline", embeddings=scene)
    threshold = body["suggested_threshold"]
    assert 0.01 <= threshold < 0.5
    fields = {"baseline_embedding": body["baseline_embedding"], "threshold": threshold}
    first, *_, last = (as_base64(image) for image in photos().values())
    assert (await ask(client, "/anomaly-score", image=first, **fields))["is_anomaly"] is False
    assert (await ask(client, "/anomaly-score", image=last, **fields))["is_anomaly"] is True


async def test_without_a_threshold_nothing_is_said_of_anomalies(client: Client) -> None:
    body = await ask(client, "/anomaly-score", image=CAT, baseline_embedding=AXIS, threshold=None)
    assert set(body) == {"anomaly_score", "similarity_to_baseline", "inference_time_ms"}


@pytest.mark.parametrize("threshold", [-0.1, 1.1])
async def test_a_threshold_that_is_no_score_is_refused(client: Client, threshold: float) -> None:
    fields = {"image": CAT, "baseline_embedding": AXIS, "threshold": threshold}
    body = problem(await client.post("/anomaly-score", json=fields), 422)
    assert body["code"] == "invalid_threshold"
    assert str(threshold) in body["detail"]


@pytest.mark.parametrize(
    ("fields", "code", "detail"),
    [
        ({}, "no_frames", "1 to 1000"),
        ({"images": [CAT] * 65}, "too_many_images", "65 images"),
        ({"embeddings": [[1]] * 1001}, "too_many_frames", "1001"),
        ({"images": [CAT, NO_IMAGE]}, "not_an_image", "images[1]: image is not"),
        ({"images": [CAT, "@"]}, "invalid_base64", "images[1] is not base64"),
        ({"embeddings": [AXIS, [1.0]]}, "embedding_wrong_length", "embeddings[1] has 1"),
        ({"embeddings": [AXIS, [-n for n in AXIS]]}, "frames_cancel_out", "no direction"),
        ({"images": CAT}, "invalid_field", "`array`"),
    ],
)
async def test_baseline_refuses(
    client: Client, fields: dict[str, Any], code: str, detail: str
) -> None:
    body = problem(await client.post("/baseline", json=fields), 422)
    assert body["code"] == code
    assert detail in body["detail"]


async def test_a_request_of_many_images_takes_several_places() -> None:
    settings = read_settings(
        {"CLIP_ENCODER": "fake", "CLIP_MAX_REQUESTS": "4", "CLIP_MAX_BATCH_SIZE": "2"}
    )
    container = Container(settings=settings)
    images = [as_base64(plain(n, 0, 0), "PNG") for n in range(8)]
    async with serving(container) as client:
        assert (await client.post("/embed/batch", json={"images": images})).status_code == 200
        with container.admission().admit():
            response = await client.post("/embed/batch", json={"images": images})
            body = problem(response, 503)
            assert "counts as 4" in body["detail"]
            assert int(response.headers["retry-after"]) > 0
            assert (await client.post("/baseline", json={"images": images[:6]})).status_code == 200
        assert container.admission().inside == 0
