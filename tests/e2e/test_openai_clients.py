"""The clients that people use with OpenAI, unchanged, against the real server and the demo model.

Each is pointed at the server by its documented settings for another base URL; the key is unused.
"""

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from adapters.models.clip_tokenizer import ClipTokenizer
from tests.support.servers import SERVE, Server, running

HELD_OUT = Path("adapters/models/demo/held_out")
TEXTS = ["a cat", "a delivery truck", "a person riding a bicycle"]
PICTURES = [HELD_OUT / name for name in ("cat.png", "delivery_truck.png", "bicycle.png")]


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def own_answers(server: Server) -> tuple[np.ndarray, np.ndarray]:
    """What the service's own calls say of the pictures and the texts."""
    pictures = [base64.b64encode(path.read_bytes()).decode() for path in PICTURES]
    batch = httpx.post(f"{server.url}/embed/batch", json={"images": pictures}, timeout=60)
    texts = httpx.post(f"{server.url}/embed/text", json={"texts": TEXTS}, timeout=60)
    return (
        np.array([item["embedding"] for item in batch.json()["results"]], dtype=np.float32),
        np.array(texts.json()["embeddings"], dtype=np.float32),
    )


def same(a: Any, b: np.ndarray) -> bool:
    """Equal but for what batching does to the last bits of bfloat16 arithmetic."""
    return bool((np.asarray(a) * b).sum(axis=-1).min() > 0.9999)


@pytest.mark.parametrize("encoding_format", [openai.omit, "float", "base64"])
def test_openai_texts_and_images_mixed(
    server: Server, client: openai.OpenAI, encoding_format: Any
) -> None:
    mixed = [item for pair in zip(TEXTS, map(data_uri, PICTURES), strict=True) for item in pair]
    response = client.embeddings.create(model="clip", input=mixed, encoding_format=encoding_format)
    vectors = [entry.embedding for entry in response.data]
    if encoding_format == "base64":  # asked for, it is handed on as it is
        vectors = [np.frombuffer(base64.b64decode(text), "<f4") for text in vectors]  # type: ignore[arg-type,misc]
    pictures, texts = own_answers(server)
    assert [entry.index for entry in response.data] == list(range(6))
    assert same(vectors[0::2], texts)
    assert same(vectors[1::2], pictures)
    assert response.model == "builtin:demo"
    tokens = sum(map(len, ClipTokenizer()(TEXTS)))
    assert (response.usage.prompt_tokens, response.usage.total_tokens) == (tokens, tokens)
    assert response.usage.model_extra == {"num_images": 3}


def test_openai_base64_is_the_floats_to_the_last_bit(client: openai.OpenAI) -> None:
    floats = client.embeddings.create(model="clip", input=TEXTS[0], encoding_format="float")
    default = client.embeddings.create(model="clip", input=TEXTS[0])
    assert np.array_equal(
        np.array(floats.data[0].embedding, np.float32), np.array(default.data[0].embedding)
    )


async def test_openai_asynchronously(server: Server) -> None:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="unused") as client:
        responses = await asyncio.gather(
            *(client.embeddings.create(model="clip", input=text) for text in TEXTS)
        )
    assert same([response.data[0].embedding for response in responses], own_answers(server)[1])


def test_openai_models(client: openai.OpenAI) -> None:
    (model,) = client.models.list()
    assert model.id == "builtin:demo"
    assert client.models.retrieve(model.id) == model
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("openai/text-embedding-3-small")
    assert caught.value.code == "model_not_found"


def test_infinity_takes_bare_base64_where_the_modality_says_image(
    server: Server, client: openai.OpenAI
) -> None:
    bare = [base64.b64encode(path.read_bytes()).decode() for path in PICTURES]
    response = client.embeddings.create(
        model="clip", input=bare, extra_body={"modality": "image", "dimensions": 0}
    )
    assert same([entry.embedding for entry in response.data], own_answers(server)[0])


@pytest.mark.parametrize(
    ("fields", "error", "param", "code"),
    [
        ({"model": "text-embedding-3-small"}, openai.NotFoundError, "model", "model_not_found"),
        ({"dimensions": 256}, openai.BadRequestError, "dimensions", "unsupported_dimensions"),
        ({"input": [1, 2, 3]}, openai.BadRequestError, "input", "token_input"),
        ({"input": "data:image/png;base64,@"}, openai.BadRequestError, "input", "invalid_base64"),
        ({"input": "data:image/png;base64,aGk="}, openai.BadRequestError, "input", "not_an_image"),
    ],
)
def test_openai_raises_its_own_exceptions(
    client: openai.OpenAI,
    fields: dict[str, Any],
    error: type[openai.APIStatusError],
    param: str,
    code: str,
) -> None:
    with pytest.raises(error) as caught:
        client.embeddings.create(**{"model": "clip", "input": "a cat", **fields})
    assert (caught.value.param, caught.value.code) == (param, code)
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id


def test_openai_waits_and_asks_again_while_the_model_starts(tmp_path: Path) -> None:
    with running(SERVE, tmp_path / "log", CLIP_MODEL_PATH="builtin:demo") as server:
        url = f"{server.url}/v1"
        with openai.OpenAI(base_url=url, api_key="unused", max_retries=10) as client:
            response = client.embeddings.create(model="clip", input="a cat")
        assert len(response.data[0].embedding) == 768


@pytest.fixture
def connections() -> Iterator[httpx.Client]:
    """Given to clients that would leave connections of their own open."""
    with httpx.Client() as connections:
        yield connections


def test_langchain(server: Server, connections: httpx.Client) -> None:
    from langchain_openai import OpenAIEmbeddings

    embeddings = OpenAIEmbeddings(
        model="clip",
        base_url=f"{server.url}/v1",
        api_key=lambda: "unused",
        check_embedding_ctx_length=False,
        http_client=connections,
    )
    pictures, texts = own_answers(server)
    assert same(embeddings.embed_documents(TEXTS), texts)
    assert same(embeddings.embed_documents([data_uri(path) for path in PICTURES]), pictures)
    query = np.array(embeddings.embed_query(TEXTS[1]))
    assert int((pictures @ query).argmax()) == 1


def test_llama_index(server: Server, connections: httpx.Client) -> None:
    from llama_index.embeddings.openai import OpenAIEmbedding

    embedding = OpenAIEmbedding(
        model_name="clip",
        api_base=f"{server.url}/v1",
        api_key="unused",
        http_client=connections,
    )
    pictures, texts = own_answers(server)
    assert same(embedding.get_text_embedding_batch(TEXTS), texts)
    assert same(embedding.get_text_embedding_batch([data_uri(path) for path in PICTURES]), pictures)
    query = np.array(embedding.get_query_embedding(TEXTS[1]))
    assert int((pictures @ query).argmax()) == 1
