"""The HTTP surface in process: responses, errors, headers, documentation."""

import base64
import json
import textwrap
from typing import Any

import msgspec
import numpy as np
import pytest
from litestar import get
from litestar.testing import RequestFactory

from adapters.encoders.fake import FakeEncoder
from application.ports import EncoderPort, PixelBatch, RawEmbeddings
from domain.limits import MAX_IMAGE_BYTES
from entrypoints.container import Container
from entrypoints.http.errors.table import Shape, shape_at
from entrypoints.http.routes.documentation import openapi_config
from tests.support.app import serving
from tests.support.broken_encoder import BrokenEncoder
from tests.support.encoders import Loader
from tests.support.photos import as_base64, as_file, photo
from tests.support.responses import Client, problem

IMAGE = as_base64(photo("cat"))

ENDPOINTS: dict[str, dict[str, Any]] = {
    "/embed": {},
    "/anomaly-score": {"baseline_embedding": [1.0] + [0.0] * 767},
    "/classify": {"labels": ["a dog", "a cat"]},
    "/similarity": {"text": "a cat"},
    "/batch-similarity": {"texts": ["a dog", "a cat"]},
}


@pytest.fixture
def client(shared_client: Client) -> Client:
    return shared_client


async def ask(client: Client, path: str, **fields: Any) -> dict[str, Any]:
    response = await client.post(path, json={"image": IMAGE, **ENDPOINTS[path], **fields})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    body: dict[str, Any] = response.json()
    assert isinstance(body["inference_time_ms"], float)
    return body


async def test_embed(client: Client) -> None:
    body = await ask(client, "/embed")
    assert set(body) == {"embedding", "inference_time_ms"}
    assert len(body["embedding"]) == 768
    assert np.linalg.norm(body["embedding"]) == pytest.approx(1.0, abs=1e-5)


async def test_anomaly_score(client: Client) -> None:
    embedding = (await ask(client, "/embed"))["embedding"]
    body = await ask(client, "/anomaly-score", baseline_embedding=embedding)
    assert set(body) == {"anomaly_score", "similarity_to_baseline", "inference_time_ms"}
    assert body["anomaly_score"] == pytest.approx(0.0, abs=1e-6)
    assert body["similarity_to_baseline"] == pytest.approx(1.0, abs=1e-6)


async def test_zero_baseline(client: Client) -> None:
    body = await ask(client, "/anomaly-score", baseline_embedding=[0] * 768)
    assert (body["anomaly_score"], body["similarity_to_baseline"]) == (1.0, 0.0)


async def test_classify(client: Client) -> None:
    body = await ask(client, "/classify")
    assert set(body) == {"scores", "top_label", "inference_time_ms", "ensemble_metadata"}
    assert list(body["scores"]) == ["a dog", "a cat"]
    assert sum(body["scores"].values()) == pytest.approx(1.0)
    assert body["ensemble_metadata"] is None


async def test_classify_with_an_ensemble(client: Client) -> None:
    body = await ask(client, "/classify", use_ensemble=True, camera_type="night_vision")
    metadata = body["ensemble_metadata"]
    assert metadata["num_templates"] == len(metadata["templates_used"]) == 5
    assert metadata["camera_type"] == "night_vision"
    assert metadata["ensemble_method"] == "mean"
    assert sum(body["scores"].values()) == pytest.approx(1.0)


async def test_similarity_and_batch_similarity_agree(client: Client) -> None:
    one = await ask(client, "/similarity", text="a dog")
    many = await ask(client, "/batch-similarity")
    assert set(one) == {"similarity", "inference_time_ms"}
    assert set(many) == {"similarities", "inference_time_ms"}
    assert many["similarities"]["a dog"] == pytest.approx(one["similarity"])


async def test_health(client: Client) -> None:
    response = await client.get("/health")
    assert response.status_code == 200
    body = response.json()
    assert {
        "status": "healthy",
        "model": "fake",
        "model_loaded": True,
        "device": "cpu",
        "cuda_available": False,
        "vram_used_gb": None,
        "embedding_dimension": 768,
        "backend": "fake",
        "tensorrt_engine_path": None,
    }.items() <= body.items()
    assert (await client.get("/health/live")).json() == {"status": "alive"}
    assert (await client.get("/health/ready")).json() == {"ready": True, "reason": None}


@pytest.mark.parametrize("path", ["/embed", "/health", "/nowhere", "/docs"])
async def test_every_answer_carries_the_fingerprint_and_an_id(client: Client, path: str) -> None:
    fingerprint = (await client.get("/health")).json()["model_fingerprint"]
    first, second = await client.get(path), await client.get(path)
    assert first.headers["X-Model-Fingerprint"] == fingerprint
    assert first.headers["X-Request-ID"] != second.headers["X-Request-ID"]


@pytest.mark.parametrize(("sent", "kept"), [("frame-17.cam_2", True), ("a b\u00e4", False)])
async def test_a_harmless_request_id_is_honoured(client: Client, sent: str, kept: bool) -> None:
    response = await client.get("/nowhere", headers=[(b"X-Request-ID", sent.encode("latin-1"))])
    assert (response.headers["X-Request-ID"] == sent) is kept
    assert response.json()["request_id"] == response.headers["X-Request-ID"]


@pytest.mark.parametrize("newline", ["\n", "\r\n", " ", "\t"])
async def test_base64_with_white_space_is_the_same_image(client: Client, newline: str) -> None:
    plain = (await ask(client, "/embed"))["embedding"]
    wrapped = newline.join(textwrap.wrap(IMAGE, 76)) + newline
    assert (await ask(client, "/embed", image=wrapped))["embedding"] == plain


async def refused(client: Client, path: str, status: int, **fields: Any) -> dict[str, Any]:
    response = await client.post(path, json={"image": IMAGE, **ENDPOINTS[path], **fields})
    return problem(response, status)


@pytest.mark.parametrize("declared", ["application/json; charset=utf-8", "Application/JSON"])
async def test_json_may_be_declared_in_other_words(client: Client, declared: str) -> None:
    response = await client.post(
        "/embed", content=json.dumps({"image": IMAGE}), headers={"content-type": declared}
    )
    assert response.status_code == 200


async def test_the_largest_image_fits_even_with_line_breaks(client: Client) -> None:
    padded = as_file(photo("cat")).ljust(MAX_IMAGE_BYTES, b"\0")
    text = base64.b64encode(padded).decode()
    wrapped = "\r\n".join(text[start : start + 76] for start in range(0, len(text), 76))
    assert len((await ask(client, "/embed", image=wrapped))["embedding"]) == 768


class NanEncoder(FakeEncoder):
    """Returns no numbers once it has been loaded and tried."""

    calls = 0

    def encode_images(self, batch: PixelBatch) -> RawEmbeddings:
        self.calls += 1
        rows = super().encode_images(batch)
        return rows if self.calls == 1 else np.full_like(rows, np.nan)


@pytest.mark.parametrize("encoder", [BrokenEncoder, NanEncoder])
async def test_the_unforeseen_is_500_without_internals(
    container: Container, encoder: type[FakeEncoder], caplog: pytest.LogCaptureFixture
) -> None:
    broken: EncoderPort = encoder(embedding_dimension=768)
    container.encoder_loader.override(Loader(broken))
    async with serving(container) as client:
        body = await refused(client, "/embed", 500)
        ready = await client.get("/health/ready")
        assert ready.status_code == 503
        assert "encoder" in ready.json()["reason"]
        assert (await client.get("/health/live")).status_code == 200
        health = (await client.get("/health")).json()
        assert (health["status"], health["model_loaded"]) == ("degraded", False)
        refusal = await refused(client, "/embed", 503)
        assert refusal["code"] == "encoder_doubted"
    assert body["code"] == "internal_error"
    assert "secret" not in json.dumps(body)
    assert "nan" not in json.dumps(body).lower()
    assert body["request_id"] in caplog.text


def test_the_schema_is_encoded_once() -> None:
    (plugin,) = (
        plugin
        for plugin in openapi_config("1", keys=False).render_plugins
        if plugin.has_path("/openapi.json")
    )
    request = RequestFactory().get(route_handler=_schema)
    first = plugin.render(request, {"openapi": "3.1.0"})
    assert json.loads(first) == {"openapi": "3.1.0"}
    assert plugin.render(request, {"openapi": "3.1.0"}) is first


@get("/schema")
async def _schema() -> None: ...


async def test_openapi_names_every_call_with_examples_that_work(client: Client) -> None:
    schema = (await client.get("/docs/openapi.json")).json()
    paths = {path for path, calls in schema["paths"].items() if "post" in calls}
    assert set(ENDPOINTS) < paths
    assert {"/health", "/health/live", "/health/ready", "/v1/models"} < set(schema["paths"])
    for path in (path for path in paths if shape_at(path) is Shape.PROBLEM):
        operation = schema["paths"][path]["post"]
        assert " ".join(sorted(operation["responses"])) == "200 400 401 403 408 413 415 422 500 503"
        assert "application/problem+json" in operation["responses"]["422"]["content"]
        request = operation["requestBody"]["content"]["application/json"]["schema"]
        (example,) = request["examples"]
        response = await client.post(path, json=example)
        assert response.status_code == 200, response.text
        (example_answer,) = operation["responses"]["200"]["content"]["application/json"][
            "examples"
        ].values()
        assert set(example_answer["value"]) <= set(response.json())


async def test_the_interactive_page_needs_no_other_host(client: Client) -> None:
    page = (await client.get("/docs")).text
    assert "http" not in page
    for asset in (
        "swagger-ui-bundle.js",
        "swagger-ui.css",
        "swagger-ui-standalone-preset.js",
        "start.js",
    ):
        assert f"/docs-assets/{asset}" in page
        assert (await client.get(f"/docs-assets/{asset}")).status_code == 200


async def test_answers_hold_what_the_encoder_said_to_the_last_bit(client: Client) -> None:
    numbers = (await ask(client, "/embed"))["embedding"]
    as_float32 = np.array(numbers, dtype=np.float32)
    assert as_float32.tolist() == numbers
    assert msgspec.json.decode(msgspec.json.encode(numbers)) == numbers
