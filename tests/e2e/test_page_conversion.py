"""Files that the server cannot take, chosen on the page: the browser converts what it can show."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features
from playwright.sync_api import Page, expect

from domain.limits import MAX_IMAGE_BYTES
from tests.support.browsers import TRUCK, choose, outcome

NOTE = "#classify .finder-note"


def test_an_avif_is_converted(page: Page, tmp_path: Path) -> None:
    if not features.check("avif"):
        pytest.skip("this Pillow cannot write AVIF")
    file = tmp_path / "truck.avif"
    Image.open(TRUCK).convert("RGBA").save(file)
    with page.expect_request("**/classify") as sent:
        choose(page, "#classify", file)
    body: Any = sent.value.post_data_json
    assert body["image"].startswith("/9j/")  # a JPEG
    expect(page.locator(NOTE)).to_have_text(
        "The server does not read AVIF, so this browser converted it to JPEG."
    )
    expect(outcome(page, "classify")).to_contain_text("Most likely a delivery truck")
    expect(page.locator("#classify .finder-caption")).to_contain_text("truck.jpg · 144 × 144")
    # The command names a file that this page made, so it can be saved.
    with page.expect_download() as download:
        page.get_by_role("button", name="Save the photo").first.click()
    assert download.value.suggested_filename == "truck.jpg"
    assert Path(download.value.path()).read_bytes().startswith(b"\xff\xd8\xff")


@pytest.mark.parametrize("kind", ["bytes", "pixels"])
def test_too_large_a_photo_is_scaled_down(page: Page, tmp_path: Path, kind: str) -> None:
    if kind == "bytes":
        file = tmp_path / "noise.bmp"
        noise = np.random.default_rng(1).integers(0, 256, (1900, 1900, 3), np.uint8)
        Image.fromarray(noise).save(file)
        assert file.stat().st_size > MAX_IMAGE_BYTES
    else:
        file = tmp_path / "wide.png"
        drawing = Image.open(TRUCK).convert("RGB").resize((4500, 4500))
        drawing.save(file, compress_level=1)
        assert file.stat().st_size < MAX_IMAGE_BYTES
    choose(page, "#classify", file)
    expect(page.locator(NOTE)).to_contain_text("Too large for the server, so this browser scaled")
    expect(page.locator(NOTE)).to_contain_text("× " + ("1900" if kind == "bytes" else "2000"))
    expect(outcome(page, "classify")).to_contain_text("Most likely")
    if kind == "pixels":
        expect(outcome(page, "classify")).to_contain_text("a delivery truck")


def test_what_nobody_can_read_is_said_without_asking_the_server(page: Page, tmp_path: Path) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    heic = tmp_path / "IMG_0001.heic"
    heic.write_bytes(struct.pack(">I", 24) + b"ftypheic" + bytes(2000))
    choose(page, "#classify", heic)
    expect(outcome(page, "classify")).to_have_text(
        "IMG_0001.heic is in the format HEIC, which neither the server nor this browser can read. "
        "Save it as JPEG or PNG first."
    )
    text = tmp_path / "notes.txt"
    text.write_text("no picture at all")
    choose(page, "#classify", text)
    expect(outcome(page, "classify")).to_have_text(
        "notes.txt is not a picture that the server or this browser can read."
    )
    assert not [url for url in asked if url.endswith("/classify")]
