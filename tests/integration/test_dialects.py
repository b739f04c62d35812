"""The protocols of others in process: their shapes, what they refuse, and how they say it."""

import base64
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from litestar.testing import AsyncTestClient

from entrypoints.container import Container, http_service
from entrypoints.settings import read_settings
from entrypoints.variables import InvalidSetting
from tests.support.app import composed, serving
from tests.support.photos import as_base64, photo
from tests.support.responses import Client

JPEG = as_base64(photo("cat"))
URI = f"data:image/jpeg;base64,{JPEG}"
LONG = "dog " * 100
"""102 tokens, start and end included: 25 too many."""
KEY = "a-key-of-24-characters-x"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kept_out() -> AsyncIterator[Client]:
    """A client without a key, of a service that has one and speaks no dialect but Weaviate's."""
    async with serving(composed(CLIP_DIALECTS="weaviate", CLIP_API_KEYS=KEY)) as client:
        yield client


@pytest.fixture
def client(shared_client: Client) -> Client:
    return shared_client


async def embedded(client: Client, **fields: Any) -> list[list[float]]:
    """The vectors of a request to `/v1/embeddings`."""
    response = await client.post("/v1/embeddings", json=fields)
    assert response.status_code == 200, response.text
    return [entry["embedding"] for entry in response.json()["data"]]


def message(response: Any, shape: str) -> str:
    """What an error says, checked to have the shape of a dialect."""
    body = response.json()
    assert response.headers["content-type"] == "application/json"
    match shape:
        case "openai":
            assert set(body) == {"error"}
            assert set(body["error"]) == {"message", "type", "param", "code"}
            text = body["error"]["message"]
        case "llamacpp":
            assert set(body) == {"error"}
            assert set(body["error"]) == {"code", "message", "type"}
            assert body["error"]["code"] == response.status_code
            text = body["error"]["message"]
        case "roboflow":
            assert set(body) == {"message"}
            text = body["message"]
        case "cohere":
            assert set(body) == {"id", "message"}
            assert body["id"] == response.headers["X-Request-ID"]
            text = body["message"]
        case _:
            assert set(body) == {"error"}
            text = body["error"]
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize("path", ["/embeddings", "/v1/embeddings"])
@pytest.mark.parametrize("marker", ["<__media__>\n", "<__media_4Jx9__>\n", "[img-1]", ""])
async def test_llama_cpp_embeds_texts_and_images_in_order(
    client: Client, path: str, marker: str
) -> None:
    content = [
        {"prompt_string": "a cat"},
        {"prompt_string": marker, "multimodal_data": [JPEG]},
        {"prompt_string": "a dog", "multimodal_data": []},
    ]
    response = await client.post(path, json={"model": "clip", "content": content})
    assert response.status_code == 200, response.text
    vectors = [entry["embedding"] for entry in response.json()["data"]]
    assert vectors == await embedded(client, input=["a cat", URI, "a dog"])


async def test_llama_cpp_takes_plain_texts_too(client: Client) -> None:
    alone = await embedded(client, content="a cat")
    assert alone == await embedded(client, content=["a cat"])
    assert alone == await embedded(client, input="a cat")
    response = await client.post("/embeddings", json={"input": "a cat"})
    assert response.json()["data"][0]["embedding"] == alone[0]


async def test_llama_cpp_lists_the_model_with_its_aliases(client: Client) -> None:
    (model,) = (await client.get("/v1/models")).json()["data"]
    assert "clip" in model["aliases"]
    assert model["architecture"]["input_modalities"] == ["text", "image"]
    assert model["meta"] == {"n_ctx": 77, "n_embd": 768}
    for name in (model["id"], *model["aliases"]):
        assert (await client.get(f"/v1/models/{name}")).json() == model


async def test_llama_cpp_props(client: Client) -> None:
    props = (await client.get("/props", params={"model": "clip"})).json()
    assert props["media_marker"] == "<__media__>"
    assert props["modalities"] == {"vision": True, "audio": False}
    assert props["default_generation_settings"]["n_ctx"] == 77
    unknown = await client.get("/props", params={"model": "llava"})
    assert unknown.status_code == 404
    assert "'llava'" in message(unknown, "llamacpp")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([{"prompt_string": "a cat", "multimodal_data": [JPEG]}], "content[0] holds a text and an"),
        ([{"prompt_string": "", "multimodal_data": [JPEG, JPEG]}], "2 images"),
        (["a", {"prompt_string": "", "multimodal_data": ["aGk="]}], "content[1]"),
        (["a", {"prompt_string": "", "multimodal_data": ["@"]}], "content[1] is not base64"),
        ([{"multimodal_data": ["https://x/y.jpg"]}], "fetches nothing"),
        ([{"prompt_string": "<__media__>\n"}], "no image"),
        ([{"prompt_string": " "}], "content[0] is blank"),
        ([], "content is empty"),
        (["a"] * 2049, "2049"),
        ([{"multimodal_data": [JPEG[:40]]}] * 65, "65 images"),
        (5, "`$.content`"),
    ],
)
async def test_llama_cpp_refuses(client: Client, content: Any, says: str) -> None:
    for path, shape in (("/embeddings", "llamacpp"), ("/v1/embeddings", "openai")):
        response = await client.post(path, json={"content": content})
        assert response.status_code == 400
        assert says in message(response, shape)
    assert response.json()["error"]["param"] == "content"


def conversation(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    """What Frigate's provider `vllm` sends around the parts."""
    return [
        {"role": "system", "content": [{"type": "text", "text": "Represent the user's input."}]},
        {"role": "user", "content": list(parts)},
        {"role": "assistant", "content": [{"type": "text", "text": ""}]},
    ]


def text_part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def image_part(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


@pytest.mark.parametrize(
    ("messages", "same_as"),
    [
        (conversation(image_part(URI), text_part("")), URI),
        (conversation(text_part("a cat")), "a cat"),
        (conversation(text_part("a cat"), text_part("at night")), "a cat\nat night"),
        ([{"role": "user", "content": "a cat"}], "a cat"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": URI}]}], URI),
    ],
)
async def test_vllm_messages_are_one_input(
    client: Client, messages: list[dict[str, Any]], same_as: str
) -> None:
    fields = {"dimensions": 768, "encoding_format": "float", "continue_final_message": True}
    body = {"model": "clip", "messages": messages, "add_special_tokens": False, **fields}
    response = await client.post("/v1/embeddings", json=body)
    assert "X-Unknown-Field" not in response.headers
    vectors = [entry["embedding"] for entry in response.json()["data"]]
    assert vectors == await embedded(client, input=[same_as])


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        (
            conversation(image_part(URI), text_part("a cat")),
            "messages[1] holds a text and an image",
        ),
        (conversation(image_part(URI), image_part(URI)), "2 images"),
        (conversation(text_part(" ")), "messages[1] is blank"),
        (conversation(image_part("https://x/y.jpg")), "fetches nothing"),
        (conversation(image_part("data:image/png;base64,@")), "not base64"),
        (conversation(image_part("data:image/png;base64,aGk=")), "messages[0]"),
        (conversation({"type": "video_url", "video_url": {"url": "x"}}), "'video_url'"),
        ([], "0 turns"),
        ([{"role": "user", "content": "a"}] * 2, "2 turns"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "messages[1]"),
        ([{"role": "tool"}], "'tool'"),
    ],
)
async def test_vllm_refuses(client: Client, messages: list[dict[str, Any]], says: str) -> None:
    response = await client.post("/v1/embeddings", json={"messages": messages})
    assert response.status_code == 400
    assert says in message(response, "openai")
    assert response.json()["error"]["param"] == "messages"


async def test_dimensions_other_than_the_models_are_refused(client: Client) -> None:
    for path, shape, body in (
        ("/v1/embeddings", "openai", {"messages": conversation(text_part("a")), "dimensions": 512}),
        ("/embeddings", "llamacpp", {"content": "a", "dimensions": 512}),
        ("/v2/embed", "cohere", {"texts": ["a"], "output_dimension": 512}),
    ):
        response = await client.post(path, json=body)
        assert response.status_code == 400
        assert "512" in message(response, shape)


async def test_jina_objects_mixed_with_strings(client: Client) -> None:
    objects = [{"text": "a cat"}, {"image": JPEG}, "a dog", {"image": URI}, URI]
    vectors = await embedded(client, input=objects, embedding_type="float")
    assert vectors == await embedded(client, input=["a cat", URI, "a dog", URI, URI])


async def test_jina_images_as_its_clients_send_them(client: Client) -> None:
    vectors = await embedded(client, input=[{"bytes": JPEG}, {"url": URI}])
    assert vectors == await embedded(client, input=[URI, URI])


@pytest.mark.parametrize("field", ["embedding_type", "encoding_type"])
async def test_jina_bits(client: Client, field: str) -> None:
    exact = np.array(await embedded(client, input=["a cat", URI]))
    unsigned = np.array(await embedded(client, input=["a cat", URI], **{field: "ubinary"}))
    assert (np.unpackbits(unsigned.astype(np.uint8), axis=1) == (exact > 0)).all()
    signed = np.array(await embedded(client, input=["a cat", URI], **{field: "binary"}))
    assert (signed == unsigned - 128).all()


async def test_jina_text_of_an_object_is_a_text_whatever_it_looks_like(client: Client) -> None:
    vectors = await embedded(client, input=[{"text": "https://x/y.jpg"}])
    assert vectors == await embedded(client, input="https://x/y.jpg", modality="text")


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"input": ["a", {"image": "https://x/y.jpg"}]}, "input", "input[1] is an address"),
        ({"input": [{"text": "a", "image": JPEG}]}, "input", "a text and an image"),
        ({"input": [{}]}, "input", "input[0] is blank"),
        ({"input": [{"url": "https://x/y.jpg"}]}, "input", "input[0] is an address"),
        ({"input": [{"bytes": JPEG, "url": URI}]}, "input", "2 images"),
        ({"input": "a", "encoding_format": "binary"}, "encoding_format", "'binary'"),
        ({"input": "a", "embedding_type": "int4"}, "embedding_type", "'int4'"),
        ({"input": "a", "encoding_type": "uint8"}, "encoding_type", "'uint8'"),
        ({"input": "a", "content": "b"}, "content", "`input` and `content`"),
    ],
)
async def test_jina_refuses(client: Client, fields: Any, param: str, says: str) -> None:
    response = await client.post("/v1/embeddings", json=fields)
    assert response.status_code == 400
    assert says in message(response, "openai")
    assert response.json()["error"]["param"] == param


TYPES = ["float", "int8", "uint8", "binary", "ubinary", "base64"]


@pytest.mark.parametrize(
    "fields",
    [
        {"texts": ["a cat", "a dog"]},
        {"images": [URI, JPEG]},
        {
            "inputs": [
                {"content": [text_part("a cat")]},
                {"content": [image_part(URI), text_part("")]},
            ]
        },
    ],
)
async def test_cohere_all_types_say_the_same(client: Client, fields: dict[str, Any]) -> None:
    sent = {"model": "clip", "input_type": "search_query", "embedding_types": TYPES, **fields}
    response = await client.post("/v2/embed", json=sent)
    assert response.status_code == 200, response.text
    body = response.json()
    assert set(body) == {"id", "embeddings", "texts", "meta", "response_type"}
    assert body["texts"] == fields.get("texts", [])
    made = body["embeddings"]
    assert list(made) == TYPES
    exact = np.array(made["float"], dtype=np.float32)
    assert exact.shape == (2, 768)
    int8, uint8 = np.array(made["int8"]), np.array(made["uint8"])
    assert int8.min() >= -128
    assert int8.max() <= 127
    assert (uint8 == int8 + 128).all()
    cosines = (int8 * exact).sum(axis=1) / np.linalg.norm(int8, axis=1)
    assert cosines.min() > 0.99
    ubinary = np.array(made["ubinary"], dtype=np.uint8)
    assert (np.unpackbits(ubinary, axis=1) == (exact > 0)).all()
    assert (np.array(made["binary"]) == ubinary.astype(int) - 128).all()
    decoded = [np.frombuffer(base64.b64decode(text), "<f4") for text in made["base64"]]
    assert np.array_equal(np.stack(decoded), exact)


async def test_cohere_floats_unless_asked_and_images_are_counted(client: Client) -> None:
    body = (await client.post("/v2/embed", json={"images": [URI]})).json()
    assert list(body["embeddings"]) == ["float"]
    assert body["embeddings"]["float"] == await embedded(client, input=[URI])
    assert body["meta"]["billed_units"] == {"input_tokens": 0, "images": 1}


@pytest.mark.parametrize(
    ("fields", "status", "says"),
    [
        ({}, 400, "0 of `texts`"),
        ({"texts": ["a"], "images": [URI]}, 400, "2 of `texts`"),
        ({"texts": []}, 400, "texts is empty"),
        ({"texts": ["a", ""]}, 400, "texts[1] is blank"),
        ({"images": [URI, "http://x/y.jpg"]}, 400, "images[1] is an address"),
        ({"images": ["data:image/png;base64,aGk="]}, 400, "images[0]"),
        ({"inputs": [{"content": [text_part("a"), image_part(URI)]}]}, 400, "inputs[0] holds a"),
        ({"inputs": [{"content": []}]}, 400, "inputs[0] is blank"),
        ({"texts": ["a"], "embedding_types": ["int4"]}, 400, "'int4'"),
        ({"texts": ["a"], "truncate": "MIDDLE"}, 400, "'MIDDLE'"),
        ({"texts": ["a"], "model": "embed-v4.0"}, 404, "'embed-v4.0'"),
        ({"texts": [LONG], "truncate": "NONE"}, 400, "25 tokens"),
        ({"texts": [LONG], "truncate": "START"}, 400, "25 tokens"),
        ({"texts": 5}, 400, "`$.texts`"),
    ],
)
async def test_cohere_refuses(client: Client, fields: Any, status: int, says: str) -> None:
    response = await client.post("/v2/embed", json=fields)
    assert response.status_code == status
    assert says in message(response, "cohere")


async def test_how_much_of_long_texts_is_cut_is_told(client: Client) -> None:
    for path, body in (
        ("/v1/embeddings", {"input": [LONG, "a cat"]}),
        ("/embeddings", {"content": [{"prompt_string": LONG}]}),
        ("/v2/embed", {"texts": [LONG]}),
        ("/vectorize", {"texts": [LONG]}),
        ("/clip/embed_text", {"text": [LONG, "a cat"]}),
    ):
        response = await client.post(path, json=body)
        assert response.status_code == 200
        assert response.headers["X-Tokens-Cut"] == "25"
    short = await client.post("/v2/embed", json={"texts": ["a cat"], "truncate": "NONE"})
    assert short.status_code == 200
    assert "X-Tokens-Cut" not in short.headers


async def test_weaviate_texts_and_images(client: Client) -> None:
    sent = {"texts": ["a cat", "a dog"], "images": [JPEG]}
    body = (await client.post("/vectorize", json=sent)).json()
    a_cat, a_dog, image = await embedded(client, input=["a cat", "a dog", URI])
    assert body == {"textVectors": [a_cat, a_dog], "imageVectors": [image]}
    # Go writes a list that is not there as null.
    only = (await client.post("/vectorize", json={"texts": None, "images": [JPEG]})).json()
    assert only == {"textVectors": [], "imageVectors": [image]}


async def test_weaviate_startup_and_meta(client: Client) -> None:
    for path in ("/.well-known/live", "/.well-known/ready"):
        response = await client.get(path)
        assert (response.status_code, response.content) == (204, b"")
    meta = (await client.get("/meta")).json()
    assert (meta["model"], meta["dimension"]) == ("fake", 768)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "texts and images is empty"),
        ({"texts": ["a"], "images": [JPEG, "aGk="]}, "images[1]"),
        ({"texts": ["a"], "images": ["@"]}, "images[0] is not base64"),
        ({"images": ["https://x/y.jpg"]}, "fetches nothing"),
        ({"texts": ["a", " "], "images": [JPEG]}, "texts[1] is blank"),
    ],
)
async def test_weaviate_refuses(client: Client, fields: Any, says: str) -> None:
    response = await client.post("/vectorize", json=fields)
    assert response.status_code == 400
    assert says in message(response, "weaviate")


def roboflow_image(data: str = JPEG, kind: str = "base64") -> dict[str, str]:
    return {"type": kind, "value": data}


async def test_roboflow_images_and_texts(client: Client) -> None:
    image, a_cat, a_dog = await embedded(client, input=[URI, "a cat", "a dog"])
    for path, sent, vectors in (
        ("/clip/embed_image", {"image": roboflow_image()}, [image]),
        ("/clip/embed_image", {"image": [roboflow_image(), roboflow_image(URI)]}, [image, image]),
        ("/clip/embed_text", {"text": "a cat", "clip_version_id": "clip"}, [a_cat]),
        ("/clip/embed_text", {"text": ["a cat", "a dog"]}, [a_cat, a_dog]),
    ):
        response = await client.post(path, json=sent)
        assert response.status_code == 200, response.text
        body = response.json()
        assert body["embeddings"] == vectors
        assert body["frame_id"] is None
        assert body["time"] >= 0
        assert body["inference_id"] == response.headers["X-Request-ID"]


async def test_roboflow_compares_anything_with_anything(client: Client) -> None:
    image, a_cat, a_dog = np.array(await embedded(client, input=[URI, "a cat", "a dog"]))
    for sent, cosines in (
        ({"subject": roboflow_image(), "prompt": "a cat"}, [image @ a_cat]),
        (
            {"subject": roboflow_image(), "prompt": ["a cat", "a dog"]},
            [image @ a_cat, image @ a_dog],
        ),
        (
            {
                "subject": "a dog",
                "subject_type": "text",
                "prompt": [roboflow_image()],
                "prompt_type": "image",
            },
            [a_dog @ image],
        ),
        (
            {"subject": roboflow_image(), "prompt": roboflow_image(), "prompt_type": "image"},
            [1.0],
        ),
    ):
        response = await client.post("/clip/compare", json=sent)
        assert response.status_code == 200, response.text
        assert response.json()["similarity"] == pytest.approx(cosines, abs=1e-6)
    named = {"type": "a cat", "other": "a dog"}
    response = await client.post(
        "/clip/compare", json={"subject": roboflow_image(), "prompt": named}
    )
    assert response.json()["similarity"] == pytest.approx(
        {"type": image @ a_cat, "other": image @ a_dog}, abs=1e-6
    )


@pytest.mark.parametrize(
    ("path", "fields", "status", "says"),
    [
        ("embed_image", {}, 400, "`image`"),
        ("embed_image", {"image": []}, 400, "image is empty"),
        ("embed_image", {"image": roboflow_image("https://x/y.jpg")}, 400, "fetches nothing"),
        (
            "embed_image",
            {"image": roboflow_image("https://x/y.jpg", "url")},
            400,
            "fetches nothing",
        ),
        ("embed_image", {"image": roboflow_image(JPEG, "numpy")}, 400, "'numpy'"),
        ("embed_image", {"image": [roboflow_image(), roboflow_image("aGk=")]}, 400, "image[1]"),
        ("embed_image", {"image": [roboflow_image("aGk=")] * 2049}, 400, "2049"),
        ("embed_text", {"text": ["a", " "]}, 400, "text[1] is blank"),
        ("embed_text", {"text": ""}, 400, "text is blank"),
        (
            "embed_text",
            {"text": "a", "clip_version_id": "ViT-B-16"},
            404,
            "'clip-vit-base-patch16'",
        ),
        ("compare", {"subject": "a", "prompt": "b"}, 400, "subject must be an object"),
        ("compare", {"subject": roboflow_image(), "prompt": [roboflow_image()]}, 400, "prompt[0]"),
        (
            "compare",
            {"subject": roboflow_image(), "prompt": {"x": ""}},
            400,
            "prompt['x'] is blank",
        ),
        (
            "compare",
            {"subject": "a", "subject_type": "sound", "prompt": "b"},
            400,
            "'sound'",
        ),
    ],
)
async def test_roboflow_refuses(
    client: Client, path: str, fields: Any, status: int, says: str
) -> None:
    response = await client.post(f"/clip/{path}", json=fields)
    assert response.status_code == status
    assert says in message(response, "roboflow")


async def test_roboflows_key_stands_in_the_query_and_only_there() -> None:
    async with serving(composed(CLIP_API_KEYS=KEY)) as client:
        for path, query, status in (
            ("/clip/embed_text", {"api_key": KEY}, 200),
            ("/clip/embed_text", {"api_key": "another"}, 401),
            ("/clip/embed_text", {}, 401),
            ("/embed/text", {"api_key": KEY}, 401),
        ):
            response = await client.post(path, params=query, json={"text": "a", "texts": ["a"]})
            assert response.status_code == status, (path, query)
        many = "&".join(["x=1"] * 60)
        response = await client.post(f"/clip/embed_text?{many}&api_key={KEY}", json={"text": "a"})
        assert response.status_code == 401


async def test_weaviate_is_told_when_nothing_is_loaded() -> None:
    settings = read_settings({"CLIP_MODEL_PATH": "/nowhere", "CLIP_ENCODER": "openvino"})
    async with AsyncTestClient(http_service(Container(settings=settings))) as client:
        ready = await client.get("/.well-known/ready")
        assert ready.status_code == 503
        assert message(ready, "weaviate")
        assert (await client.get("/.well-known/live")).status_code == 204
        refused = await client.post("/vectorize", json={"texts": ["a"]})
        assert refused.status_code == 503
        assert message(refused, "weaviate")
        assert (await client.get("/props")).json()["model_alias"]
        refused = await client.post("/v2/embed", json={"texts": ["a"]})
        assert message(refused, "cohere")


@pytest.mark.parametrize(
    ("method", "path", "shape"),
    [
        ("POST", "/vectorize", "weaviate"),
        ("GET", "/meta", "weaviate"),
        ("POST", "/v2/embed", "cohere"),
        ("GET", "/props", "llamacpp"),
        ("POST", "/embeddings", "llamacpp"),
        ("POST", "/clip/embed_text", "roboflow"),
    ],
)
async def test_keys_count_for_all(kept_out: Client, method: str, path: str, shape: str) -> None:
    response = await kept_out.request(method, path, json={"texts": ["a"]})
    assert response.status_code == 401
    assert "key" in message(response, shape)


async def test_what_is_closed_does_not_exist(kept_out: Client) -> None:
    kept_out.headers["Authorization"] = f"Bearer {KEY}"
    assert (await kept_out.post("/vectorize", json={"texts": ["a"]})).status_code == 200
    assert (await kept_out.post("/v2/embed", json={"texts": ["a"]})).status_code == 404
    assert (await kept_out.post("/embeddings", json={"input": "a"})).status_code == 404
    assert (await kept_out.get("/props")).status_code == 404
    assert (await kept_out.post("/clip/embed_text", json={"text": "a"})).status_code == 404
    for body in (
        {"messages": conversation(text_part("a"))},
        {"content": "a"},
        {"input": [{"text": "a"}]},
    ):
        response = await kept_out.post("/v1/embeddings", json=body)
        assert response.status_code == 400
        assert "CLIP_DIALECTS" in message(response, "openai")
    assert (await kept_out.post("/v1/embeddings", json={"input": ["a"]})).status_code == 200


async def test_a_full_server_refuses_in_the_dialects_shape() -> None:
    container = composed()
    async with serving(container) as client:
        container.admission().start_draining()
        for path, shape in (
            ("/embeddings", "llamacpp"),
            ("/v2/embed", "cohere"),
            ("/vectorize", "weaviate"),
            ("/clip/embed_text", "roboflow"),
        ):
            response = await client.post(path, json={"texts": ["a"], "input": "a", "text": "a"})
            assert response.status_code == 503
            assert int(response.headers["Retry-After"]) > 0
            assert message(response, shape)


def test_the_setting() -> None:
    assert len(read_settings({}).dialects) == 6
    assert read_settings({"CLIP_DIALECTS": "none"}).dialects == frozenset()
    assert read_settings({"CLIP_DIALECTS": "Cohere, vllm"}).dialects == {"cohere", "vllm"}
    with pytest.raises(InvalidSetting, match="it must be all, none, or some of llamacpp, "):
        read_settings({"CLIP_DIALECTS": "ollama"})


@pytest.mark.parametrize(
    "path",
    [
        *("/embeddings", "/v1/embeddings", "/v2/embed", "/vectorize"),
        *("/clip/embed_image", "/clip/embed_text", "/clip/compare"),
    ],
)
async def test_the_documented_examples_work(client: Client, path: str) -> None:
    schema = (await client.get("/docs/openapi.json")).json()
    operation = schema["paths"][path]["post"]
    examples = operation["requestBody"]["content"]["application/json"]["schema"]["examples"]
    for example in examples:
        response = await client.post(path, json=example)
        assert response.status_code == 200, response.text
        shown = operation["responses"]["200"]["content"]["application/json"]
        # The framework leaves out what is null in an example.
        made = {name for name, value in response.json().items() if value is not None}
        assert set(next(iter(shown["examples"].values()))["value"]) == made
