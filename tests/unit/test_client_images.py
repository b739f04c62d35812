"""What the Python client makes of whatever holds a picture."""

import io
from collections.abc import Callable
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

from tests.support import hostile_files
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


def closed_image() -> Image.Image:
    image = Image.open(io.BytesIO(as_file(photo("cat"))))
    image.close()
    return image


def closed_file() -> io.BytesIO:
    file = io.BytesIO(b"x")
    file.close()
    return file


@pytest.mark.parametrize(
    ("make", "advice"),
    [
        (closed_image, "Call load() before the file is closed"),
        (lambda: Image.open(io.BytesIO(as_file(photo("cat"))[:3000])), "truncated"),
        (closed_file, "before it is closed"),
        (lambda: "https://camera.example/1.jpg", "fetch it and pass its bytes"),
        (lambda: "data:image/png;base64,AAAA", "base64.b64decode("),
        (lambda: "/9j/" + "A" * 5000, "base64.b64decode("),
        (lambda: "a\0b", "cannot be a path"),
        (lambda: "\ud800", "cannot be a path"),
    ],
)
def test_what_cannot_be_read_says_what_to_do(make: Callable[[], Any], advice: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        image_file(make())
    assert advice in str(caught.value)


def test_premultiplied_grey_is_sent_as_grey_with_alpha() -> None:
    grey = Image.new("LA", (4, 4), (100, 128))
    sent = Image.open(io.BytesIO(image_file(grey.convert("La"))))
    assert sent.mode == "LA"
    assert abs(int(np.asarray(sent)[0, 0, 0]) - 100) <= 1


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's of the EXIF
@pytest.mark.parametrize("orientation", [6, b"\6"])
def test_of_exif_the_orientation_alone_is_sent(orientation: int | bytes) -> None:
    # Fields of a kind that Pillow reads and cannot write.
    entries = [
        (0x011A, 7, 8, 0x41414141),
        (0x0112, 1, 1, 6) if isinstance(orientation, bytes) else (0x0112, 3, 1, 6),
        (0x0131, 2, 0xFFFFFFFF, 0xFFFFFFF0),
    ]
    data = hostile_files.jpeg_with(
        hostile_files.segment(0xE1, b"Exif\0\0" + hostile_files.tiff(sorted(entries)))
    )
    with Image.open(io.BytesIO(data)) as opened:
        sent = image_file(opened)
    assert dict(Image.open(io.BytesIO(sent)).getexif()) == {0x0112: 6}


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's of the EXIF
def test_damaged_exif_is_left_out() -> None:
    for exif in (b"II*\0\xff", b"http://n", hostile_files.counting_exif()):
        data = hostile_files.jpeg_with(hostile_files.segment(0xE1, b"Exif\0\0" + exif))
        with Image.open(io.BytesIO(data)) as opened:
            sent = image_file(opened)
        assert not dict(Image.open(io.BytesIO(sent)).getexif())


def test_a_missing_file_is_the_systems_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        image_file(tmp_path / "nothing.jpg")
