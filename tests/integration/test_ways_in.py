"""Images as bodies, files of forms, data URIs and batches; texts."""

import base64
import textwrap
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from adapters.encoders.fake import FakeEncoder
from application.ports import PixelBatch, RawEmbeddings
from domain.limits import MAX_BODY_BYTES, MAX_IMAGE_BYTES
from entrypoints.http.bodies.base64_images import is_data_uri
from tests.support.app import composed, serving
from tests.support.encoders import Loader
from tests.support.photos import as_base64, as_file, photo, plain
from tests.support.responses import Client, problem, succeeded

CAT = as_file(photo("cat"))
IMAGE = base64.b64encode(CAT).decode()
NO_IMAGE = base64.b64encode(b"no image").decode()
FORM = "multipart/form-data; boundary=x"


@pytest.fixture
def client(shared_client: Client) -> Client:
    return shared_client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def embedding(shared_client: Client) -> Any:
    """The cat's embedding, as the contract's own way in gives it."""
    return succeeded(await shared_client.post("/embed", json={"image": IMAGE}))["embedding"]


@pytest.mark.parametrize(
    "declared",
    [
        "image/jpeg",
        "IMAGE/JPEG; charset=binary",
        "image/jpg",
        "image/png",  # it says PNG and is JPEG; what counts are its first bytes
        "image/webp",
        "application/octet-stream",
    ],
)
async def test_the_body_is_the_image(client: Client, embedding: Any, declared: str) -> None:
    response = await client.post("/embed", content=CAT, headers={"content-type": declared})
    assert succeeded(response)["embedding"] == embedding


@pytest.mark.parametrize("field", ["image", "file"])
async def test_the_image_is_a_file_of_a_form(client: Client, embedding: Any, field: str) -> None:
    response = await client.post(
        "/embed", files={field: ("photo.jpg", CAT, "image/jpeg")}, data={"camera": "porch"}
    )
    assert succeeded(response)["embedding"] == embedding


@pytest.mark.parametrize(
    "head",
    [
        "data:image/jpeg;base64,",
        "DATA:image/png;BASE64,",
        " data:image/jpeg;charset=utf-8;base64, ",
        "data:;base64,",
    ],
)
async def test_a_data_uri_is_the_same_image(client: Client, embedding: Any, head: str) -> None:
    body = await client.post("/embed", json={"image": head + IMAGE})
    assert succeeded(body)["embedding"] == embedding
    broken = head + "\r\n".join(textwrap.wrap(IMAGE, 76))
    assert succeeded(await client.post("/embed", json={"image": broken}))["embedding"] == embedding


async def test_a_data_uri_may_be_percent_encoded(client: Client, embedding: Any) -> None:
    encoded = IMAGE.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")
    response = await client.post("/embed", json={"image": f"data:image/jpeg;base64,{encoded}"})
    assert succeeded(response)["embedding"] == embedding


@pytest.mark.parametrize(
    ("text", "is_image"),
    [
        ("data:image/jpeg;base64,aGk=", True),
        ("data:image/svg+xml,<svg/>", True),
        ("data:;base64,aGk=", True),
        ("data: the new oil, they say", False),
        ("a cat", False),
        ("data:" + "x" * 300 + ",", False),
    ],
)
def test_what_is_meant_to_be_an_image(text: str, is_image: bool) -> None:
    assert is_data_uri(text) is is_image


@pytest.mark.parametrize(
    ("content", "declared", "status", "told"),
    [
        (b"", "image/jpeg", 422, ("not_an_image", "empty")),
        (b"hello", "image/jpeg", 422, ("not_an_image", "JPEG, PNG")),
        (CAT[:5000], "image/jpeg", 422, ("damaged_image", "truncated")),
        (CAT, "image/tiff", 415, ("unsupported_media_type", "'image/tiff'")),
        (CAT, "text/plain", 415, ("unsupported_media_type", "image/jpeg")),
        (as_file(plain(1, 2, 3), "TIFF"), "image/png", 422, ("unsupported_format", "TIFF")),
        (CAT.ljust(MAX_IMAGE_BYTES + 1, b"\0"), "image/jpeg", 413, ("image_too_large", "10485761")),
        (b"\0" * (MAX_BODY_BYTES + 1), "image/jpeg", 413, ("body_too_large", str(MAX_BODY_BYTES))),
        (CAT, "multipart/form-data", 400, ("invalid_form", "boundary")),
        (b"nothing", FORM, 400, ("invalid_form", "not a multipart/form-data")),
        (
            b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\nha',
            FORM,
            400,
            ("invalid_form", "end"),
        ),
        (b"--x--\r\n", FORM, 422, ("missing_field", "0 fields named 'image' or 'file'")),
    ],
)
async def test_bodies_that_hold_no_image(
    client: Client, content: bytes, declared: str, status: int, told: tuple[str, str]
) -> None:
    response = await client.post("/embed", content=content, headers={"content-type": declared})
    body = problem(response, status)
    assert body["code"] == told[0]
    assert told[1] in body["detail"]


async def test_a_form_with_two_images_is_refused(client: Client) -> None:
    response = await client.post("/embed", files=[("image", CAT), ("file", CAT)])
    assert "2 fields" in problem(response, 422)["detail"]


async def test_a_form_of_very_many_parts_is_refused(client: Client) -> None:
    response = await client.post("/embed", files=[(f"part{n}", b"x") for n in range(300)])
    assert problem(response, 400)["code"] == "invalid_form"


@pytest.mark.parametrize("path", ["/embed/batch", "/embed/text", "/v1/embeddings"])
async def test_endpoints_for_many_inputs_take_json_only(client: Client, path: str) -> None:
    response = await client.post(path, content=CAT, headers={"content-type": "image/jpeg"})
    assert response.status_code == 415


async def test_a_batch_has_an_embedding_or_an_error_for_each(
    client: Client, embedding: Any
) -> None:
    too_large = base64.b64encode(CAT.ljust(MAX_IMAGE_BYTES + 1, b"\0")).decode()
    images = ["@@", f"data:image/jpeg;base64,{IMAGE}", NO_IMAGE, IMAGE + "\n", "", IMAGE[:-1]]
    results = succeeded(await client.post("/embed/batch", json={"images": images}))["results"]
    codes = [result["error"] and result["error"]["code"] for result in results]
    assert codes == ["invalid_base64", None, "not_an_image", None, "not_an_image", "invalid_base64"]
    assert "images[0]" in results[0]["error"]["detail"]
    for result, code in zip(results, codes, strict=True):
        assert result["embedding"] == (None if code else embedding)
        assert code is None or result["error"]["status"] == 422
    (result,) = succeeded(await client.post("/embed/batch", json={"images": [too_large]}))[
        "results"
    ]
    assert (result["error"]["status"], result["error"]["code"]) == (413, "image_too_large")


async def test_a_batch_is_what_each_image_is_alone(client: Client) -> None:
    images = [as_base64(plain(n, 2 * n, 90), "PNG") for n in range(64)]
    results = succeeded(await client.post("/embed/batch", json={"images": images}))["results"]
    for place in (0, 7, 8, 63):
        alone = succeeded(await client.post("/embed", json={"image": images[place]}))
        assert results[place]["embedding"] == alone["embedding"]


@pytest.mark.parametrize(
    ("fields", "code", "detail"),
    [
        ({"images": []}, "no_images", "1 to 64"),
        ({"images": [IMAGE] * 65}, "too_many_images", "65 images"),
        ({"images": [5]}, "invalid_field", "images[0]"),
        ({"images": IMAGE}, "invalid_field", "`array`"),
        ({}, "missing_field", "`images`"),
    ],
)
async def test_batches_that_are_refused_as_a_whole(
    client: Client, fields: dict[str, Any], code: str, detail: str
) -> None:
    body = problem(await client.post("/embed/batch", json=fields), 422)
    assert body["code"] == code
    assert detail in body["detail"]


class FaultyEncoder(FakeEncoder):
    """Returns no numbers for red images."""

    def encode_images(self, batch: PixelBatch) -> RawEmbeddings:
        rows = super().encode_images(batch)
        levels = batch.mean(axis=(2, 3))
        red = (levels[:, 0] > 200) & (levels[:, 2] < 50)
        rows[red] = np.nan
        return rows


async def test_nothing_is_sent_that_was_encoded_beside_a_fault_of_the_encoder() -> None:
    container = composed()
    container.encoder_loader.override(Loader(FaultyEncoder(embedding_dimension=768)))
    images = [as_base64(plain(0, 255, 0), "PNG"), as_base64(plain(255, 0, 0), "PNG")]
    async with serving(container) as client:
        response = await client.post("/embed/batch", json={"images": images})
        while not (await client.get("/health/ready")).json()["ready"]:
            pass  # until the encoder has passed its verification
        alone = await client.post("/embed/batch", json={"images": images[:1]})
    assert (response.status_code, response.json()["code"]) == (503, "encoder_doubted")
    assert "Retry-After" in response.headers
    assert len(succeeded(alone)["results"][0]["embedding"]) == 768


async def test_texts(client: Client) -> None:
    texts = ["a dog", "a cat", "a dog"]
    embeddings = succeeded(await client.post("/embed/text", json={"texts": texts}))["embeddings"]
    expected = FakeEncoder(embedding_dimension=768).encode_texts(texts)
    np.testing.assert_allclose(embeddings, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("texts", "code"),
    [
        ([], "no_texts"),
        (["a"] * 101, "too_many_texts"),
        (["a", " "], "blank_text"),
        ([1], "invalid_field"),
    ],
)
async def test_texts_that_are_refused(client: Client, texts: list[Any], code: str) -> None:
    assert problem(await client.post("/embed/text", json={"texts": texts}), 422)["code"] == code


async def test_openapi_documents_every_way_into_embed(client: Client) -> None:
    schema = (await client.get("/docs/openapi.json")).json()
    content = schema["paths"]["/embed"]["post"]["requestBody"]["content"]
    assert set(content) == {
        "application/json",
        "multipart/form-data",
        "image/jpeg",
        "image/png",
        "application/octet-stream",
    }


@pytest.mark.parametrize(
    "accepted", ["application/octet-stream", "application/octet-stream, application/json;q=0.5"]
)
async def test_bare_vectors_are_what_the_json_says(
    client: Client, embedding: Any, accepted: str
) -> None:
    response = await client.post("/embed", content=CAT, headers=asking_for(accepted))
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["x-model-fingerprint"]
    np.testing.assert_array_equal(np.frombuffer(response.content, "<f4"), np.float32(embedding))
    texts = {"texts": ["a cat", "a dog"]}
    expected = succeeded(await client.post("/embed/text", json=texts))["embeddings"]
    bare = await client.post("/embed/text", json=texts, headers={"accept": accepted})
    rows = np.frombuffer(bare.content, "<f4").reshape(2, -1)
    np.testing.assert_array_equal(rows, np.float32(expected))


def asking_for(accepted: str) -> dict[str, str]:
    return {"content-type": "image/jpeg", "accept": accepted}


@pytest.mark.parametrize(
    "accepted",
    [
        "*/*",
        "application/json",
        "application/json, application/octet-stream",
        "application/octet-stream;q=0.1, application/json",
        "text/html",
        ";;;,application/octet-stream/;q=",
    ],
)
async def test_others_get_json(client: Client, embedding: Any, accepted: str) -> None:
    response = await client.post("/embed", content=CAT, headers=asking_for(accepted))
    assert succeeded(response)["embedding"] == embedding


async def test_errors_stay_json_and_other_endpoints_know_no_bare_vectors(client: Client) -> None:
    bare = asking_for("application/octet-stream")
    response = await client.post("/embed", content=b"junk", headers=bare)
    assert problem(response, 422)["code"] == "not_an_image"
    response = await client.post("/similarity?text=a%20cat", content=CAT, headers=bare)
    assert "similarity" in succeeded(response)
