"""Image files of every kind, and everything that only looks like one."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from adapters.images.pillow_preparation import prepare_picture
from adapters.images.preprocessing import as_pixels, preprocess
from application.ports import Pixels
from domain.errors import ImageTooLarge, InvalidImage
from tests.support import hostile_files as files
from tests.support.photos import as_file, photo, plain


def prepare(data: bytes) -> Pixels:
    """What the image tower sees of a file."""
    return as_pixels(prepare_picture(data))


def difference(a: Pixels, b: Pixels) -> float:
    """Mean difference in 8-bit levels."""
    return float(np.abs(a - b).mean() * 255 * 0.27)


def refused(data: bytes) -> InvalidImage:
    with pytest.raises(InvalidImage) as caught:
        prepare(data)
    return caught.value


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "GIF", "JPEG", "WEBP", "MPO"])
def test_each_allowed_format_is_the_same_picture(file_format: str) -> None:
    expected = preprocess(photo())
    assert difference(prepare(as_file(photo(), file_format)), expected) < 5


def test_png_is_exact() -> None:
    np.testing.assert_array_equal(prepare(as_file(photo(), "PNG")), preprocess(photo()))


def test_transparency_is_seen_on_white() -> None:
    image = plain(200, 0, 0).convert("RGBA")
    image.putalpha(0)
    np.testing.assert_allclose(
        prepare(as_file(image, "PNG")), preprocess(plain(255, 255, 255)), atol=1e-5
    )
    image.putalpha(128)
    half = prepare(as_file(image, "PNG"))
    np.testing.assert_allclose(half, preprocess(plain(227, 127, 127)), atol=0.02)


def test_grey_with_transparency_is_seen_on_white() -> None:
    image = Image.new("LA", (64, 64), (0, 0))
    np.testing.assert_allclose(
        prepare(as_file(image, "PNG")), preprocess(plain(255, 255, 255)), atol=1e-5
    )


@pytest.mark.parametrize("transparent", [False, True])
def test_palette(transparent: bool) -> None:
    image = Image.new("P", (64, 64), 1)
    image.putpalette([10, 20, 30, 200, 100, 50])
    data = as_file(image, "PNG", **({"transparency": 1} if transparent else {}))
    expected = plain(255, 255, 255) if transparent else plain(200, 100, 50)
    np.testing.assert_allclose(prepare(data), preprocess(expected), atol=1e-5)


def test_greyscale_and_one_bit() -> None:
    grey = photo().convert("L")
    np.testing.assert_allclose(
        prepare(as_file(grey, "PNG")), preprocess(grey.convert("RGB")), atol=1e-5
    )
    bilevel = photo().convert("1")
    np.testing.assert_allclose(
        prepare(as_file(bilevel, "PNG")), preprocess(bilevel.convert("RGB")), atol=1e-5
    )


def test_sixteen_bit_grey_is_scaled_and_not_clipped() -> None:
    eight = np.asarray(photo().convert("L"))
    sixteen = Image.fromarray(eight.astype(np.uint16) * 257)
    data = as_file(sixteen, "PNG")
    assert Image.open(io.BytesIO(data)).mode == "I;16"
    expected = preprocess(Image.fromarray(eight).convert("RGB"))
    np.testing.assert_allclose(prepare(data), expected, atol=1e-5)


def test_sixteen_bit_colour() -> None:
    data = sixteen_bit_png(64, 64, (0xC8FF, 0x6400, 0x3280))
    assert difference(prepare(data), preprocess(plain(200, 100, 50))) < 1


@pytest.mark.parametrize("inverted_by_adobe", [False, True])
def test_cmyk_jpeg_has_its_colours(inverted_by_adobe: bool) -> None:
    image = photo("coffee").convert("CMYK")
    data = as_file(image, "JPEG", quality=95)
    if inverted_by_adobe:
        # Pillow writes the Adobe marker and inverted values, as Photoshop does.
        assert b"Adobe" in data
    assert difference(prepare(data), preprocess(photo("coffee"))) < 5


def test_of_an_animation_the_first_frame_counts() -> None:
    frames = [plain(255, 0, 0), plain(0, 255, 0), plain(0, 0, 255)]
    for file_format in ("GIF", "WEBP", "PNG"):
        data = as_file(frames[0], file_format, save_all=True, append_images=frames[1:])
        assert getattr(Image.open(io.BytesIO(data)), "n_frames", 1) == 3
        assert difference(prepare(data), preprocess(frames[0])) < 2


def test_photos_are_turned_upright_by_their_exif_orientation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held a quarter turn to the left
    sideways = photo().transpose(Image.Transpose.ROTATE_90)
    data = as_file(sideways, "PNG", exif=exif)
    np.testing.assert_allclose(prepare(data), preprocess(photo()), atol=1e-5)


@pytest.mark.parametrize("file_format", ["PNG", "GIF", "JPEG", "WEBP", "BMP"])
@pytest.mark.parametrize("part", [0.3, 0.9])
def test_truncated_files_are_refused_and_never_half_embedded(file_format: str, part: float) -> None:
    data = as_file(photo(), file_format)
    assert refused(data[: int(len(data) * part)]).code in {"damaged_image", "not_an_image"}


@pytest.mark.parametrize("data", [b"", b"\0\0\0", b"hello", b"GIF89a", b"\xff\xd8\xff", b"BM"])
def test_what_is_not_an_image_is_refused(data: bytes) -> None:
    assert refused(data).code in {"not_an_image", "damaged_image"}


@pytest.mark.parametrize("file_format", ["TIFF", "ICO", "AVIF", "PDF"])
def test_other_formats_are_refused_by_name(file_format: str) -> None:
    error = refused(as_file(photo().resize((64, 64)), file_format))
    assert error.code == "unsupported_format"
    assert file_format in error.detail
    assert "JPEG, PNG, GIF, BMP, WEBP, MPO" in error.detail


@pytest.mark.parametrize("size", [(4096, 4096), (16_777_216, 1), (7680, 2160), (2, 8_388_608)])
def test_as_many_pixels_as_are_allowed_in_any_shape(size: tuple[int, int]) -> None:
    # No pixels follow, so that only the header can have passed.
    assert refused(png_header(*size) + png_chunk(b"IDAT", b"")).code == "damaged_image"


@pytest.mark.parametrize("size", [(4096, 4097), (16_777_217, 1), (65_535, 65_535)])
def test_the_header_alone_decides_about_pixels(size: tuple[int, int]) -> None:
    error = refused(png_header(*size) + png_chunk(b"IDAT", b""))
    assert error.code == "too_many_pixels"
    assert f"{size[0] * size[1]} pixels to decode ({size[0]} x {size[1]})" in error.detail
    assert "at most 16777216" in error.detail


@pytest.mark.parametrize("size", [(5712, 4284), (8064, 6048), (4608, 1728), (7680, 2160)])
def test_jpegs_of_phones_and_of_cameras_with_two_lenses_are_seen(size: tuple[int, int]) -> None:
    data = as_file(photo("china").resize(size), "JPEG", quality=50)
    assert difference(prepare(data), preprocess(photo("china").resize(size))) < 3


def test_a_jpeg_counts_by_what_is_decoded_of_it() -> None:
    grey = Image.new("L", (4000, 3000), 99)  # decoded at a quarter: 1000 x 750
    data = as_file(grey, "JPEG")
    assert prepare_picture(data, max_pixels=750_000).shape == (3, 224, 224)
    # At an eighth, 500 x 375, it has the last chance.
    assert prepare_picture(data, max_pixels=187_500).shape == (3, 224, 224)
    with pytest.raises(InvalidImage, match=r"187500 pixels.*at most 187499") as caught:
        prepare_picture(data, max_pixels=187_499)
    assert caught.value.code == "too_many_pixels"


def test_a_jpeg_is_decoded_smaller_where_its_pixels_would_be_too_many() -> None:
    wide = photo("china").resize((8000, 500))
    data = as_file(wide, "JPEG", quality=90)
    reduced = prepare_picture(data, max_pixels=1_000_000)
    assert difference(as_pixels(reduced), preprocess(wide)) < 4


def test_a_jpegs_own_size_is_limited_too() -> None:
    error = refused(files.jpeg_that_claims(10_001, 10_000))
    assert error.code == "too_many_pixels"
    assert "10001 x 10000" in error.detail
    assert "at most 100000000" in error.detail


def test_too_many_bytes_are_refused_before_anything_is_read() -> None:
    with pytest.raises(ImageTooLarge, match=r"10485761 bytes.*at most 10485760"):
        prepare(b"\x89PNG" + b"\0" * (10 * 1024 * 1024 - 3))


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int, depth: int = 8) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)


def sixteen_bit_png(width: int, height: int, colour: tuple[int, int, int]) -> bytes:
    rows = (b"\0" + struct.pack(">HHH", *colour) * width) * height
    return (
        png_header(width, height, depth=16)
        + png_chunk(b"IDAT", zlib.compress(rows))
        + png_chunk(b"IEND", b"")
    )
