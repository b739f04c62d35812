"""OpenAI's embeddings API in process: shapes, limits and errors that its clients do not show."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from dependency_injector import providers
from litestar.testing import AsyncTestClient

from adapters.encoders.fake import FakeEncoder
from application.ports import TokenCount
from application.use_cases.embed import is_called
from domain.limits import MAX_BODY_BYTES, TEXTS_AT_ONCE
from entrypoints.container import Container, http_service
from entrypoints.settings import read_settings
from tests.support.app import serving
from tests.support.broken_encoder import BrokenEncoder
from tests.support.encoders import Loader
from tests.support.photos import as_base64, photo, plain
from tests.support.responses import Client

IMAGE = "data:image/jpeg;base64," + as_base64(photo("cat"))
EXAMPLE_FIELDS = {"object", "data", "model", "usage"}


@pytest.fixture
def client(shared_client: Client) -> Client:
    return shared_client


def error(response: Any, status: int) -> dict[str, Any]:
    """What an error says, checked to have OpenAI's shape."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["X-Request-ID"]
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"]
    told: dict[str, Any] = body["error"]
    return told


async def test_the_answer_has_openais_shape(client: Client) -> None:
    response = await client.post(
        "/v1/embeddings", json={"input": ["a cat", IMAGE], "model": "fake"}
    )
    body = response.json()
    assert response.status_code == 200
    assert set(body) == EXAMPLE_FIELDS
    assert (body["object"], body["model"]) == ("list", "fake")
    assert [(entry["object"], entry["index"]) for entry in body["data"]] == [
        ("embedding", 0),
        ("embedding", 1),
    ]
    assert all(len(entry["embedding"]) == 768 for entry in body["data"])
    assert body["usage"] == {"prompt_tokens": 4, "total_tokens": 4, "num_images": 1}


async def test_the_documented_example_works(client: Client) -> None:
    schema = (await client.get("/docs/openapi.json")).json()
    operation = schema["paths"]["/v1/embeddings"]["post"]
    documented = " ".join(sorted(operation["responses"]))
    assert documented == "200 400 401 403 404 408 413 415 500 503"
    example, *_ = operation["requestBody"]["content"]["application/json"]["schema"]["examples"]
    body = (await client.post("/v1/embeddings", json=example)).json()
    assert set(body) == EXAMPLE_FIELDS


async def test_a_lone_text_is_a_list_of_one(client: Client) -> None:
    lone = (await client.post("/v1/embeddings", json={"input": "a cat"})).json()
    listed = (await client.post("/v1/embeddings", json={"input": ["a cat"]})).json()
    assert lone == listed
    assert lone["data"][0]["embedding"] == pytest.approx(
        FakeEncoder(embedding_dimension=768).encode_texts(["a cat"])[0].tolist()
    )


async def test_modality_text_takes_a_data_uri_as_text(client: Client) -> None:
    fields = {"input": IMAGE[:60], "modality": "text"}
    body = (await client.post("/v1/embeddings", json=fields)).json()
    assert body["usage"]["num_images"] == 0


async def test_2048_texts_with_images_among_them(client: Client) -> None:
    inputs = [f"text {n}" for n in range(2048)]
    for place in (3, 700, 2047):
        inputs[place] = "data:image/png;base64," + as_base64(plain(place % 256, 9, 9), "PNG")
    body = (await client.post("/v1/embeddings", json={"input": inputs})).json()
    assert len(body["data"]) == 2048
    assert body["usage"]["num_images"] == 3
    for place in (3, 64, 2047):
        alone = (await client.post("/v1/embeddings", json={"input": inputs[place]})).json()
        assert body["data"][place]["embedding"] == alone["data"][0]["embedding"]


async def test_a_long_text_counts_its_77_tokens(client: Client) -> None:
    body = (await client.post("/v1/embeddings", json={"input": "dog " * 500})).json()
    assert body["usage"]["total_tokens"] == 77


async def test_tokens_are_counted_in_slices_and_not_on_the_event_loop(
    container: Container,
) -> None:
    slices: list[int] = []

    class Counting(FakeEncoder):
        def count_tokens(self, texts: Sequence[str]) -> TokenCount:
            with pytest.raises(RuntimeError):  # in this thread there is none
                asyncio.get_running_loop()
            slices.append(len(texts))
            return TokenCount(len(texts), 0)

    container.encoder_loader.override(providers.Object(Loader(Counting(embedding_dimension=768))))
    async with serving(container) as client:
        inputs = [f"text {number}" for number in range(2 * TEXTS_AT_ONCE + 1)]
        body = (await client.post("/v1/embeddings", json={"input": inputs})).json()
    assert body["usage"]["total_tokens"] == len(inputs)
    assert slices == [TEXTS_AT_ONCE, TEXTS_AT_ONCE, 1]


@pytest.mark.parametrize(
    ("fields", "param", "code", "message"),
    [
        ({}, "input", "missing_field", "`input`"),
        ({"input": 5}, "input", "invalid_field", "`$.input`"),
        ({"input": []}, "input", "no_inputs", "1 to 2048"),
        ({"input": ["a"] * 2049}, "input", "too_many_inputs", "2049"),
        ({"input": ["a", " "]}, "input", "blank_input", "input[1]"),
        ({"input": [IMAGE[:23] + "aGk="] * 65}, "input", "too_many_images", "65"),
        ({"input": [[1, 2]]}, "input", "token_input", "check_embedding_ctx_length=False"),
        ({"input": ["a", IMAGE[:23] + "aGk="]}, "input", "not_an_image", "input[1]"),
        ({"input": "data:image/png,abc"}, "input", "invalid_base64", ";base64"),
        ({"input": "http://x/y.jpg", "modality": "image"}, "input", "address_input", "fetches"),
        ({"input": "a", "modality": "audio"}, "modality", "unknown_modality", "'audio'"),
        (
            {"input": "a", "encoding_format": "hex"},
            "encoding_format",
            "unknown_encoding_format",
            "'hex'",
        ),
        ({"input": "a", "dimensions": 5}, "dimensions", "unsupported_dimensions", "768"),
        ({"input": "a", "dimensions": "5"}, "dimensions", "invalid_field", "`$.dimensions`"),
    ],
)
async def test_400(
    client: Client, fields: dict[str, Any], param: str, code: str, message: str
) -> None:
    told = error(await client.post("/v1/embeddings", json=fields), 400)
    assert (told["type"], told["param"], told["code"]) == ("invalid_request_error", param, code)
    assert message in told["message"]


async def test_other_statuses(client: Client) -> None:
    path = "/v1/embeddings"
    json = {"content-type": "application/json"}
    assert error(await client.post(path, content=b"{", headers=json), 400)["param"] is None
    assert error(await client.post(path, content=b"x", headers={"content-type": "text/plain"}), 415)
    large = b" " * (MAX_BODY_BYTES + 1)
    assert (
        error(await client.post(path, content=large, headers=json), 413)["code"] == "body_too_large"
    )
    assert error(await client.get(path), 405)["code"] == "method_not_allowed"
    assert error(await client.get("/v1/files"), 404)["code"] == "not_found"
    unknown = error(await client.post(path, json={"input": "a", "model": "ada"}), 404)
    assert (unknown["param"], unknown["code"]) == ("model", "model_not_found")
    assert "'fake'" in unknown["message"]


async def test_503_and_500(container: Container) -> None:
    container.encoder_loader.override(Loader(BrokenEncoder(embedding_dimension=768)))
    async with serving(container) as client:
        told = error(await client.post("/v1/embeddings", json={"input": IMAGE}), 500)
        assert (told["type"], told["code"]) == ("server_error", "internal_error")
        assert "secret" not in told["message"]
        container.admission().start_draining()
        response = await client.post("/v1/embeddings", json={"input": "a"})
        assert error(response, 503)["code"] == "draining"
        assert int(response.headers["retry-after"]) > 0


async def test_no_model_no_names() -> None:
    settings = read_settings({"CLIP_MODEL_PATH": "/nowhere", "CLIP_ENCODER": "openvino"})
    async with AsyncTestClient(http_service(Container(settings=settings))) as client:
        assert (await client.get("/v1/models")).json() == {"object": "list", "data": []}
        assert error(await client.get("/v1/models/clip"), 404)["param"] == "model"
        assert error(await client.post("/v1/embeddings", json={"input": "a"}), 503)


@pytest.mark.parametrize(
    ("loaded", "asked", "meant"),
    [
        ("clip-vit-large-patch14", "clip-vit-large-patch14", True),
        ("clip-vit-large-patch14", "openai/CLIP-ViT-Large-Patch14", True),
        ("laion/ViT-L-14", "vit-l-14", True),
        ("clip-vit-large-patch14", "clip", True),
        ("clip-vit-large-patch14", "clip-vit-base-patch32", False),
        ("clip-vit-large-patch14", "text-embedding-3-small", False),
        ("clip-vit-large-patch14", "", False),
    ],
)
def test_names_of_the_loaded_model(loaded: str, asked: str, meant: bool) -> None:
    assert is_called(loaded, asked) is meant
