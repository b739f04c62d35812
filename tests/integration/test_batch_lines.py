"""The results of a batch as JSON lines, each as soon as it is there."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from dependency_injector import providers
from litestar.testing import AsyncTestClient

from adapters.encoders.fake import FakeEncoder
from adapters.images.pillow_preparation import prepare_picture
from application.ports import PixelBatch, Pixels, RawEmbeddings
from domain.errors import OutOfMemory
from entrypoints.container import Container
from tests.support.app import serving
from tests.support.encoders import Loader
from tests.support.photos import as_base64, plain
from tests.support.responses import Client, problem, succeeded

LINES = {"accept": "application/jsonl"}
IMAGES = [as_base64(plain(number, 20, 30), "PNG") for number in range(20)]
MIXED = [*IMAGES[:3], "!", *IMAGES[3:9], "AAAA", *IMAGES[9:]]


class Shaky(FakeEncoder):
    """Has no memory for batches with one certain picture."""

    unlucky: Pixels | None = None

    def encode_images(self, batch: PixelBatch) -> RawEmbeddings:
        if any(
            np.array_equal(pixels, self.unlucky) for pixels in batch if self.unlucky is not None
        ):
            raise OutOfMemory("there is no memory for that one.")
        return super().encode_images(batch)


@pytest.fixture
def encoder() -> Shaky:
    return Shaky(embedding_dimension=768)


@pytest.fixture
async def client(container: Container, encoder: Shaky) -> AsyncIterator[AsyncTestClient[Any]]:
    container.encoder_loader.override(providers.Object(Loader(encoder)))
    async with serving(container) as client:
        yield client


async def lines_of(client: Client, images: list[str]) -> list[dict[str, Any]]:
    response = await client.post("/embed/batch", json={"images": images}, headers=LINES)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/jsonl"
    assert response.headers["x-model-fingerprint"]
    assert response.text.endswith("\n")
    return [json.loads(line) for line in response.text.splitlines()]


async def test_lines_say_what_the_one_response_says(client: Client) -> None:
    expected = succeeded(await client.post("/embed/batch", json={"images": MIXED}))["results"]
    lines = await lines_of(client, MIXED)
    assert sorted(line["index"] for line in lines) == list(range(len(MIXED)))
    for line in lines:
        assert line == {**expected[line["index"]], "index": line["index"]}
    assert [line["index"] for line in lines if line["error"]] == [3, 10]


async def test_a_request_that_is_refused_is_refused_as_ever(client: Client) -> None:
    for images, code in (([], "no_images"), (IMAGES * 4, "too_many_images")):
        response = await client.post("/embed/batch", json={"images": images}, headers=LINES)
        assert problem(response, 422)["code"] == code


async def test_a_full_server_says_so_before_the_first_line(
    client: Client, container: Container
) -> None:
    with container.admission().admit(64, client="testclient"):
        response = await client.post("/embed/batch", json={"images": IMAGES}, headers=LINES)
    assert problem(response, 503)["code"] == "queue_full"


async def test_only_the_images_of_a_batch_that_failed_have_failed(
    client: Client, encoder: Shaky
) -> None:
    [first] = await lines_of(client, IMAGES[:1])
    encoder.unlucky = prepare_picture(base64.b64decode(IMAGES[12]))
    lines = {line["index"]: line for line in await lines_of(client, IMAGES)}
    assert len(lines) == len(IMAGES)
    failed = {index for index, line in lines.items() if line["error"]}
    assert 12 in failed
    assert failed <= set(range(8, 16)), "those that shared its call"
    assert {lines[index]["error"]["status"] for index in failed} == {503}
    assert lines[0]["embedding"] == first["embedding"]


async def test_others_get_one_response(client: Client) -> None:
    for accepted in ("*/*", "application/json", "application/jsonl;q=0.1, application/json"):
        response = await client.post(
            "/embed/batch", json={"images": IMAGES[:1]}, headers={"accept": accepted}
        )
        assert len(succeeded(response)["results"]) == 1
    response = await client.post("/embed", json={"image": IMAGES[0]}, headers=LINES)
    assert "embedding" in succeeded(response)


async def test_the_documentation_says_so(client: Client) -> None:
    schema = (await client.get("/docs/openapi.json")).json()
    content = schema["paths"]["/embed/batch"]["post"]["responses"]["200"]["content"]
    assert set(content) == {"application/json", "application/jsonl"}


async def test_whoever_reads_slowly_holds_no_place(client: Client, container: Container) -> None:
    async with client.stream(
        "POST", "/embed/batch", json={"images": IMAGES}, headers=LINES
    ) as response:
        assert response.status_code == 200
        async with asyncio.timeout(20):
            await container.admission().wait_until_empty()
