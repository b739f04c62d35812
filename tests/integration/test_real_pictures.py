"""Files of `tests/cases` as cameras, phones and programs write them, through the whole service."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from litestar.testing import AsyncTestClient

from adapters.images.picture import decode_picture
from domain.errors import InvalidImage
from domain.limits import SMALLEST_COSINE
from entrypoints.container import Container, http_service
from entrypoints.settings import read_settings

FOLDER = Path(__file__).parent.parent / "cases"
CASES: list[dict[str, str]] = json.loads((FOLDER / "images.json").read_text())
SAME = [(case["file"], case["clean"]) for case in CASES if case["right"] == "same"]
REFUSED = [case["file"] for case in CASES if case["right"] == "refused"]


@pytest.fixture
async def demo(tmp_path: Path) -> AsyncIterator[AsyncTestClient[Any]]:
    """A client of the app in process, with the demo model."""
    settings = {
        "CLIP_MODEL_PATH": "builtin:demo",
        "CLIP_ENCODER": "torch",
        "CLIP_CACHE_DIR": str(tmp_path),
    }
    app = http_service(Container(settings=read_settings(settings)))
    async with AsyncTestClient(app, raise_server_exceptions=False) as client:
        while not (await client.get("/health/ready")).json()["ready"]:
            pass
        yield client


@pytest.mark.parametrize(("file", "clean"), SAME)
def test_the_pixels_are_those_of_the_clean_picture(file: str, clean: str) -> None:
    np.testing.assert_array_equal(decode(file), decode(clean))


@pytest.mark.parametrize("file", REFUSED)
def test_what_is_not_whole_is_refused(file: str) -> None:
    with pytest.raises(InvalidImage) as caught:
        decode(file)
    assert caught.value.code == "damaged_image"


async def test_the_embeddings_are_those_of_the_clean_pictures(demo: AsyncTestClient[Any]) -> None:
    for file, clean in SAME:
        cosine = np.dot(await embedding(demo, file), await embedding(demo, clean))
        assert cosine > SMALLEST_COSINE, file
    for file in REFUSED:
        assert (await post(demo, file)).status_code == 422, file


async def embedding(client: AsyncTestClient[Any], file: str) -> list[float]:
    response = await post(client, file)
    assert response.status_code == 200, (file, response.text)
    values: list[float] = response.json()["embedding"]
    return values


async def post(client: AsyncTestClient[Any], file: str) -> Any:
    headers = {"Content-Type": "application/octet-stream"}
    return await client.post("/embed", content=(FOLDER / file).read_bytes(), headers=headers)


def decode(file: str) -> Any:
    return decode_picture((FOLDER / file).read_bytes())
