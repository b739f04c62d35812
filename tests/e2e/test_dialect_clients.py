"""Clients of other protocols against the real server and the demo model.

`openai`, `cohere`, `chromadb` and LlamaIndex are the packages themselves. Frigate and Weaviate are
written here from what their sources send and how they read the response.
"""

import base64
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chromadb
import cohere
import httpx
import numpy as np
import openai
import pytest
from chromadb.api import ClientAPI
from chromadb.config import Settings
from chromadb.utils.embedding_functions import OpenAIEmbeddingFunction, RoboflowEmbeddingFunction
from llama_index.embeddings.jinaai import JinaEmbedding
from PIL import Image

from tests.support.frigate import TIMEOUT_S, FrigateLlamaCpp, frigate_vllm
from tests.support.servers import SERVE, Server, launched, running, wait_for

HELD_OUT = Path("adapters/models/demo/held_out")
NAMES = ["cat", "delivery_truck", "bicycle"]
TEXTS = ["a cat", "a delivery truck", "a bicycle"]
KEY = "a-key-of-24-characters-x"


def jpeg(name: str) -> bytes:
    buffer = io.BytesIO()
    with Image.open(HELD_OUT / f"{name}.png") as picture:
        picture.convert("RGB").save(buffer, format="JPEG", quality=85)
    return buffer.getvalue()


def encoded(name: str) -> str:
    return base64.b64encode(jpeg(name)).decode()


def uri(name: str) -> str:
    return f"data:image/jpeg;base64,{encoded(name)}"


def own(server: Server, inputs: list[str]) -> np.ndarray:
    """What `/v1/embeddings` says of the same inputs."""
    response = httpx.post(f"{server.url}/v1/embeddings", json={"input": inputs}, timeout=60)
    return np.array([entry["embedding"] for entry in response.json()["data"]], dtype=np.float32)


def same(a: Any, b: np.ndarray) -> bool:
    """Equal but for what batching does to the last bits of bfloat16 arithmetic."""
    return np.shape(a) == b.shape and bool((np.asarray(a) * b).sum(axis=-1).min() > 0.9999)


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=TIMEOUT_S) as http:
        yield http


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/"])
def test_frigates_llamacpp_with_and_without_v1(
    server: Server, http: httpx.Client, end: str
) -> None:
    frigate = FrigateLlamaCpp(http, server.url + end, "clip")
    (vector,) = frigate.embed(["a cat"], [])
    assert vector.shape == (768,)
    assert same([vector], own(server, ["a cat"]))


def test_frigates_llamacpp_ten_images_in_order(server: Server, http: httpx.Client) -> None:
    frigate = FrigateLlamaCpp(http, server.url, "builtin:demo")
    names = [NAMES[place % 3] for place in range(10)]
    vectors = frigate.embed([], [jpeg(name) for name in names])
    assert all(vector.shape == (768,) and np.isfinite(vector).all() for vector in vectors)
    assert same(vectors, own(server, [uri(name) for name in names]))
    frigate.marker = "<__media_of_an_earlier_start__>"
    assert same(frigate.embed([], [jpeg("cat")]), own(server, [uri("cat")]))
    damaged = [jpeg("cat"), b"not an image", jpeg("bicycle")]
    assert frigate.embed([], damaged) == []
    assert "content[1]" in frigate.refusal
    assert len(frigate.embed([], [jpeg("cat")])) == 1


def test_frigate_and_others_with_a_key_and_over_a_restart(
    tmp_path: Path, http: httpx.Client
) -> None:
    settings = {
        "CLIP_MODEL_PATH": "builtin:demo",
        "CLIP_ENCODER": "openvino",
        "CLIP_API_KEYS": KEY,
    }
    ten = [jpeg(NAMES[place % 3]) for place in range(10)]
    with running(SERVE, tmp_path / "first", **settings) as server:
        wait_for(server, "/health/ready")
        with pytest.raises(httpx.HTTPStatusError, match="401"):
            FrigateLlamaCpp(http, server.url, "clip")
        frigate = FrigateLlamaCpp(http, server.url, "clip", KEY)
        before = frigate.embed(["a cat"], ten)
        assert frigate.embed([], [*ten[:4], b"not an image", *ten[4:9]]) == []
        assert "content[4]" in frigate.refusal
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY) as client:
            assert frigate_vllm(client, image=jpeg("cat")).shape == (768,)
        with cohere.ClientV2(api_key=KEY, base_url=server.url) as client:
            assert client.embed(model="clip", input_type="image", images=[uri("cat")]).id
        port = server.url.rpartition(":")[2]
        assert server.stop() == 0
    with running(SERVE, tmp_path / "second", PORT=port, **settings) as server:
        wait_for(server, "/health/ready")
        after = frigate.embed(["a cat"], ten)
    assert np.shape(after) == (11, 768)
    assert np.isfinite(after).all()
    assert same(after, np.array(before))


def test_openais_client_posts_messages_as_frigate_does(server: Server) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="EMPTY") as client:
        vectors = [frigate_vllm(client, "a cat"), frigate_vllm(client, image=jpeg("cat"))]
        with pytest.raises(openai.BadRequestError, match="a text and an image"):
            frigate_vllm(client, "a cat", jpeg("cat"))
    assert same(vectors, own(server, ["a cat", uri("cat")]))


def test_cohere(server: Server) -> None:
    with cohere.ClientV2(api_key="unused", base_url=server.url) as client:
        made = client.embed(
            model="clip",
            input_type="search_document",
            texts=TEXTS,
            embedding_types=["float", "int8", "uint8", "binary", "ubinary"],
        )
        assert made.texts == TEXTS
        assert made.meta is not None
        assert made.meta.billed_units is not None
        floats, small = made.embeddings.float_, made.embeddings.int8
        assert same(floats, own(server, TEXTS))
        images = client.embed(
            model="clip", input_type="image", images=[uri(name) for name in NAMES]
        )
        assert same(images.embeddings.float_, own(server, [uri(name) for name in NAMES]))
        assert np.shape(made.embeddings.ubinary) == np.shape(made.embeddings.binary) == (3, 96)
        ranked = np.array(images.embeddings.float_) @ np.array(small).T
        assert (
            ranked.argmax(axis=0).tolist()
            == (np.array(images.embeddings.float_) @ np.array(floats).T).argmax(axis=0).tolist()
        )
        with pytest.raises(cohere.errors.NotFoundError, match="embed-v4"):
            client.embed(model="embed-v4.0", input_type="search_query", texts=["a"])
        with pytest.raises(cohere.errors.BadRequestError, match=r"texts\[1\] is blank"):
            client.embed(model="clip", input_type="search_query", texts=["a", " "])


def test_weaviate_waits_for_the_module_to_start(tmp_path: Path) -> None:
    """Weaviate asks again until it gets a 2xx, whatever comes before: no connection, then 503."""
    settings = {"CLIP_MODEL_PATH": "builtin:demo", "CLIP_ENCODER": "openvino"}
    with launched(SERVE, tmp_path / "log", **settings) as server:
        deadline, statuses = time.monotonic() + 120, [0]
        while statuses[-1] != 204:
            assert time.monotonic() < deadline
            try:
                statuses.append(httpx.get(f"{server.url}/.well-known/ready", timeout=5).status_code)
            except httpx.TransportError:
                statuses.append(0)
            time.sleep(0.1)
        assert set(statuses) <= {0, 503, 204}
        sent = {"texts": ["a cat"], "images": None}
        made = httpx.post(f"{server.url}/vectorize", json=sent, timeout=60).json()
        assert np.shape(made["textVectors"]) == (1, 768)


def test_weaviates_module(server: Server) -> None:
    with httpx.Client(base_url=server.url) as module:
        assert module.get("/.well-known/ready", timeout=0.5).status_code <= 299
        assert module.get("/meta").json()["dimension"] == 768
        sent = {"texts": TEXTS, "images": [encoded(name) for name in NAMES]}
        made = module.post("/vectorize", json=sent, timeout=60).json()
        assert same(made["textVectors"], own(server, TEXTS))
        assert same(made["imageVectors"], own(server, [uri(name) for name in NAMES]))
        refused = module.post("/vectorize", json={"texts": None, "images": ["bm8="]})
        assert refused.status_code > 399
        assert "images[0]" in refused.json()["error"]


@pytest.fixture
def chroma(monkeypatch: pytest.MonkeyPatch) -> Iterator[ClientAPI]:
    """A vector store in memory. Its embedding functions take keys from the environment."""
    monkeypatch.setenv("CHROMA_OPENAI_API_KEY", "unused")
    monkeypatch.setenv("CHROMA_ROBOFLOW_API_KEY", "unused")
    settings = Settings(anonymized_telemetry=False)
    client: Any = chromadb.EphemeralClient(settings)
    with client:
        yield client


def test_chroma_finds_texts_by_openais_function(server: Server, chroma: ClientAPI) -> None:
    embedding = OpenAIEmbeddingFunction(model_name="clip", api_base=f"{server.url}/v1")
    collection = chroma.create_collection("texts", embedding_function=embedding)  # type: ignore[arg-type]
    collection.add(ids=NAMES, documents=TEXTS)
    assert same(collection.get(ids=NAMES, include=["embeddings"])["embeddings"], own(server, TEXTS))
    assert collection.query(query_texts=["a bicycle"], n_results=1)["ids"] == [["bicycle"]]


def test_chroma_finds_pictures_by_words_by_roboflows_function(
    server: Server, chroma: ClientAPI
) -> None:
    embedding = RoboflowEmbeddingFunction(api_url=server.url)
    collection = chroma.create_collection("pictures", embedding_function=embedding)
    with_pixels = [np.asarray(Image.open(io.BytesIO(jpeg(name)))) for name in NAMES]
    collection.add(ids=NAMES, images=with_pixels)
    kept = collection.get(ids=NAMES, include=["embeddings"])["embeddings"]
    # Chroma itself compresses the pixels once more.
    assert (np.asarray(kept) * own(server, [uri(name) for name in NAMES])).sum(axis=1).min() > 0.98
    for name, text in zip(NAMES, TEXTS, strict=True):
        assert collection.query(query_texts=[text], n_results=1)["ids"] == [[name]]


@pytest.mark.parametrize("written", ["float", "binary", "ubinary"])
def test_llama_indexs_client_of_jina(server: Server, tmp_path: Path, written: str) -> None:
    embedding = JinaEmbedding(api_key="unused", model="clip", encoding_documents=written)
    embedding._api.api_url = f"{server.url}/v1/embeddings"  # it has no setting for it
    made = np.array(embedding.get_text_embedding_batch(TEXTS))
    exact = own(server, TEXTS)
    if written == "float":
        assert same(made, exact)
    else:  # it unpacks the bits
        assert (made == (exact > 0)).mean() > 0.999
    files = []
    for name in NAMES:
        files.append(tmp_path / f"{name}.jpg")
        files[-1].write_bytes(jpeg(name))
    images = embedding.get_image_embedding_batch([str(file) for file in files])
    assert same(images, own(server, [uri(name) for name in NAMES]))
