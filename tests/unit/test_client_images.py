"""What the Python client makes of whatever holds a picture."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clip_client import InvalidInput
from clip_client.images import image_file
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageOps

from tests.support.photos import as_file, photo

Shape = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda size: st.sampled_from([size, (*size, 1), (*size, 3), (*size, 4)])
)


def pixels(file: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(file)))


def test_files_pass_unchanged(tmp_path: Path) -> None:
    file = as_file(photo("cat"))
    path = tmp_path / "cat.jpg"
    path.write_bytes(file)
    with path.open("rb") as opened:
        for source in (path, str(path), file, bytearray(file), memoryview(file), opened):
            assert image_file(source) == file


@given(st.data())
def test_arrays_keep_every_pixel(data: st.DataObject) -> None:
    array = data.draw(arrays(np.uint8, data.draw(Shape)))
    file = image_file(array)
    assert file.startswith(b"\x89PNG")
    np.testing.assert_array_equal(
        pixels(file), array.squeeze(axis=2) if array.shape[2:] == (1,) else array
    )


def test_arrays_need_not_be_contiguous() -> None:
    frame = np.asarray(photo("cat"))
    np.testing.assert_array_equal(
        pixels(image_file(frame[::2, ::-1, ::-1])), frame[::2, ::-1, ::-1]
    )


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "RGB", "RGBA", "PA", "CMYK", "YCbCr", "I;16"]
)
def test_pillow_images_keep_their_colours(mode: str) -> None:
    image = photo("cat").convert("L" if mode == "I;16" else "RGB").convert(mode)
    shown = Image.open(io.BytesIO(image_file(image)))
    if mode == "I;16":
        np.testing.assert_array_equal(np.asarray(shown), np.asarray(image))
    else:
        np.testing.assert_array_equal(
            np.asarray(shown.convert("RGBA")), np.asarray(image.convert("RGB").convert("RGBA"))
        )


def test_pillow_images_keep_their_orientation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    original = as_file(photo("cat"), exif=exif)
    with Image.open(io.BytesIO(original)) as opened:
        sent = image_file(opened)
        upright = ImageOps.exif_transpose(opened)
    np.testing.assert_array_equal(
        np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(sent)))), np.asarray(upright)
    )


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (5, "this is int"),
        (None, "this is NoneType"),
        ([1.0, 2.0], "this is list"),
        (io.StringIO("text"), "text mode"),
        (np.zeros((4, 4), np.float32), "float32 of shape [4, 4]"),
        (np.zeros((4, 4, 2), np.uint8), "uint8 of shape [4, 4, 2]"),
        (np.zeros((4,), np.uint8), "uint8 of shape [4]"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (Image.new("F", (4, 4)), "mode 'F' holds numbers"),
    ],
)
def test_what_is_no_picture_is_refused(source: Any, reason: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        image_file(source)
    assert reason in str(caught.value)


def test_a_missing_file_is_the_systems_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        image_file(tmp_path / "nothing.jpg")
