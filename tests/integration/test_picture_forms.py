"""Valid and rare forms of the six formats: decoded as they are meant, or refused by name."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from adapters.images.picture import decode_picture
from domain.errors import InvalidImage
from tests.support import hostile_files as files
from tests.support.photos import as_file, photo, plain

WHITE = (255, 255, 255)


def colour(data: bytes) -> tuple[int, ...]:
    """Of a picture of one colour."""
    pixels = decode_picture(data)
    assert (pixels == pixels[0, 0]).all()
    return tuple(int(level) for level in pixels[0, 0])


def refusal(data: bytes) -> InvalidImage:
    with pytest.raises(InvalidImage) as caught:
        decode_picture(data)
    return caught.value


def bmp_with_alpha(alpha: int) -> bytes:
    """A V4 header with the masks of BGRA, one colour."""
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, 16, 16, 1, 32, 3, 1024, 0, 0, 0, 0) + masks
    pixels = bytes((50, 100, 200, alpha)) * 256
    return b"BM" + struct.pack("<IHHI", 122 + 1024, 0, 0, 122) + header.ljust(108, b"\0") + pixels


def test_a_bmp_whose_alpha_is_zero_everywhere_is_opaque() -> None:
    assert colour(bmp_with_alpha(0)) == (200, 100, 50)
    assert colour(bmp_with_alpha(255)) == (200, 100, 50)
    assert colour(bmp_with_alpha(51)) == (244, 224, 214)


@pytest.mark.parametrize(
    ("form", "data"),
    [
        ("embedded JPEG", files.bmp(16, 16, 0, compression=4)),
        ("embedded PNG", files.bmp(16, 16, 0, compression=5)),
        ("CMYK", files.bmp(16, 16, 32, compression=11)),
        ("64 bits a pixel", files.bmp(16, 16, 64)),
        ("2 bits a pixel", files.bmp(16, 16, 2)),
        (
            "masks 000000F0, 00000F00, 0000F000",
            files.bmp(16, 16, 16, compression=3, data=struct.pack("<III", 0xF0, 0xF00, 0xF000)),
        ),
        ("OS/2 2", b"BM" + bytes(12) + struct.pack("<IIIHH", 16, 4, 4, 1, 24) + bytes(64)),
        ("OS/2 bitmap array", b"BA" + bytes(60)),
        (
            "Apple's own form",
            b"\x89PNG\r\n\x1a\n" + files.chunk(b"CgBI", bytes(4)) + files.png(4, 4)[8:],
        ),
        (
            "filter method 64",
            files.png(4, 4)[:8]
            + files.chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 64, 0))
            + files.png(4, 4)[33:],
        ),
    ],
)
def test_valid_forms_that_are_not_decoded_are_named(form: str, data: bytes) -> None:
    error = refusal(data)
    assert error.code == "unsupported_format"
    assert form in error.detail


@pytest.mark.parametrize(
    ("marker", "precision", "height", "name"),
    [
        (0xC3, 8, 16, "lossless"),
        (0xC1, 12, 16, "12 bits a sample"),
        (0xC2, 12, 16, "12 bits a sample"),
        (0xC5, 8, 16, "hierarchical"),
        (0xC9, 8, 16, "arithmetic coding"),
        (0xCA, 8, 16, "arithmetic coding"),
        (0xC0, 8, 0, "stated only behind its pixels"),
    ],
)
def test_jpeg_processes_that_are_not_decoded_are_named(
    marker: int, precision: int, height: int, name: str
) -> None:
    whole = bytearray(files.tiny("JPEG"))
    frame = whole.index(b"\xff\xc0")
    whole[frame + 1], whole[frame + 4] = marker, precision
    whole[frame + 5 : frame + 7] = height.to_bytes(2, "big")
    error = refusal(bytes(whole))
    assert error.code == "unsupported_format"
    assert name in error.detail


def png_with_colour_key(depth: int, kind: int, pixel: bytes, key: bytes) -> bytes:
    """8 x 8 pixels of one colour."""
    header = struct.pack(">IIBBBBB", 8, 8, depth, kind, 0, 0, 0)
    rows = (b"\0" + pixel * (8 if depth >= 8 else depth)) * 8
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        files.chunk(*part)
        for part in (
            (b"IHDR", header),
            (b"tRNS", key),
            (b"IDAT", zlib.compress(rows)),
            (b"IEND", b""),
        )
    )


@pytest.mark.parametrize(
    ("depth", "kind", "pixel", "key", "shown"),
    [
        (16, 0, b"\x12\x34", b"\x12\x34", WHITE),
        (16, 0, b"\x12\x35", b"\x12\x34", (0x12,) * 3),
        (8, 0, b"\x12", b"\0\x12", WHITE),
        (8, 0, b"\x12", b"\0\x13", (0x12,) * 3),
        (4, 0, b"\x77", b"\0\7", WHITE),
        (4, 0, b"\x77", b"\0\6", (0x77,) * 3),
        (2, 0, b"\xaa", b"\0\2", WHITE),
        (1, 0, b"\0", b"\0\0", WHITE),
        (1, 0, b"\0", b"\0\1", (0,) * 3),
        (8, 2, b"\1\2\3", b"\0\1\0\2\0\3", WHITE),
        (8, 2, b"\1\2\3", b"\0\1\0\2\0\4", (1, 2, 3)),
        (16, 2, b"\1\x99\2\x99\3\x99", b"\1\x99\2\x99\3\x99", WHITE),
        (16, 2, b"\1\x99\2\x99\3\x99", b"\1\x99\2\x99\3\x98", (1, 2, 3)),
    ],
)
def test_the_transparent_colour_of_a_png_is_compared_in_its_own_depth(
    depth: int, kind: int, pixel: bytes, key: bytes, shown: tuple[int, int, int]
) -> None:
    assert colour(png_with_colour_key(depth, kind, pixel, key)) == shown


def test_around_a_small_frame_of_a_gif_nothing_is_shown() -> None:
    frame = plain(200, 0, 0, (8, 16)).quantize(2)
    data = bytearray(as_file(frame, "GIF"))
    data[6:10] = struct.pack("<HH", 16, 16)  # a canvas twice as wide
    pixels = decode_picture(bytes(data))
    assert (pixels[:, -50:] == WHITE).all()
    assert (pixels[:, :50] == (200, 0, 0)).all()


def test_a_first_webp_frame_smaller_than_its_canvas_is_seen_on_white() -> None:
    pixels = decode_picture(files.webp_animation(2, 32))
    assert (pixels[-50:, -50:] == WHITE).all()
    assert (pixels[:50, :50] == (10, 20, 30)).all()


@pytest.mark.parametrize("sampling", [0x31, 0x41, 0x14, 0x22])
def test_a_jpeg_of_rare_sampling_is_decoded(sampling: int) -> None:
    data = files.jpeg_of_sampling(sampling)
    assert colour(data) == (128, 128, 128)


def test_zeros_in_a_scan_header_are_read_as_what_is_meant() -> None:
    whole = bytearray(as_file(photo("cat").resize((64, 64)), "JPEG"))
    expected = decode_picture(bytes(whole))
    scan = whole.index(b"\xff\xda")
    whole[scan + 11 : scan + 14] = bytes(3)
    np.testing.assert_array_equal(decode_picture(bytes(whole)), expected)


@pytest.mark.parametrize("file_format", ["JPEG", "MPO"])
def test_jpegs_are_decoded_as_pillow_decodes_them(file_format: str) -> None:
    for options in ({}, {"progressive": True}, {"subsampling": 0}, {"quality": 100}):
        data = as_file(photo("coffee"), file_format, **options)
        with Image.open(io.BytesIO(data)) as image:
            expected = as_file(image.convert("RGB"), "PNG")
        # Larger than twice 224 and less than four times: neither is reduced.
        np.testing.assert_array_equal(decode_picture(data), decode_picture(expected))
