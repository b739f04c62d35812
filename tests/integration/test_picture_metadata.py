"""What no pixel depends on never decides over a picture, and the orientation is read alone."""

import io
import struct
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from adapters.images.exif import orientation_of
from adapters.images.picture import decode_picture
from tests.support import hostile_files as files
from tests.support.photos import as_file, photo, plain

PICTURE = photo("cat").resize((160, 120))
UPRIGHT = decode_picture(as_file(PICTURE, "PNG"))
ON_ITS_SIDE = decode_picture(as_file(PICTURE.transpose(Image.Transpose.ROTATE_270), "PNG"))


def png_with(extra: bytes) -> bytes:
    whole = as_file(PICTURE, "PNG")
    return whole[:33] + extra + whole[33:]


def jpeg_with(segments: bytes) -> bytes:
    whole = as_file(PICTURE, "JPEG", quality=95)
    return whole[:20] + segments + whole[20:]


def webp_with(exif: bytes) -> bytes:
    pixels = as_file(PICTURE, "WEBP", lossless=True)[12:]
    return files.webp_canvas(*PICTURE.size, pixels, files.riff_chunk(b"EXIF", exif), flags=8)


def wrong_checksum(kind: bytes, content: bytes = b"data") -> bytes:
    return files.chunk(kind, content)[:-4] + b"\1\2\3\4"


CHUNKS: dict[str, Callable[[], bytes]] = {
    "wrong checksums": lambda: b"".join(
        wrong_checksum(kind) for kind in (b"pHYs", b"gAMA", b"tIME", b"sRGB", b"zTXt", b"tRNS")
    ),
    "text of 2 MB unpacked": lambda: files.compressed_text(b"zTXt", 2_000_000),
    "profile of 2 MB unpacked": lambda: files.compressed_text(b"iCCP", 2_000_000),
    "nothing in them": lambda: b"".join(
        files.chunk(kind, b"")
        for kind in (b"pHYs", b"gAMA", b"iCCP", b"zTXt", b"iTXt", b"tEXt", b"eXIf", b"acTL")
    ),
    "unknown names": lambda: files.chunk(b"prIv", bytes(9)) + files.chunk(b"\xff\0 \x80", b"x"),
    "a half EXIF": lambda: files.chunk(b"eXIf", b"II*"),
    "an animation that is none": lambda: (
        files.chunk(b"acTL", struct.pack(">II", 9, 0)) + files.chunk(b"fcTL", bytes(26))
    ),
}


@pytest.mark.parametrize("chunks", CHUNKS)
def test_ancillary_chunks_of_a_png_are_passed_over(chunks: str) -> None:
    np.testing.assert_array_equal(decode_picture(png_with(CHUNKS[chunks]())), UPRIGHT)


def test_what_follows_the_end_of_a_png_is_not_looked_at() -> None:
    whole = as_file(PICTURE, "PNG")
    unterminated = whole[:-12] + b"\0\1\0\0tEXtComment"
    for data in (whole + bytes(500_000), whole + b"\xff" * 99, unterminated):
        np.testing.assert_array_equal(decode_picture(data), UPRIGHT)


XMP = (
    b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF><rdf:Description tiff:Orientation='6'/>"
    b"</rdf:RDF></x:xmpmeta>"
)
SEGMENTS: dict[str, Callable[[], bytes]] = {
    "EXIF of 80 KB in two": lambda: (
        files.segment(0xE1, b"Exif\0\0" + bytes(65_000))
        + files.segment(0xE1, b"Exif\0\0" + bytes(20_000))
    ),
    "EXIF of text": lambda: files.segment(0xE1, b"Exif\0\0http://ns"),
    "XMP": lambda: files.segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP),
    "a profile": lambda: files.segment(0xE2, b"ICC_PROFILE\0\x09\x01" + bytes(9)),
    "MPF": lambda: files.segment(0xE2, b"MPF\0II*\0\xff\xff\xff\xff"),
    "Photoshop": lambda: files.segment(0xED, b"Photoshop 3.0\x008BIM" + b"\xff" * 99),
    "JFIF with nothing in it": lambda: files.segment(0xE0, b"JFIF\0"),
    "comments": lambda: files.segment(0xFE, b"\xff\xda\xff\xd9" * 1000) * 100,
}


@pytest.mark.parametrize("segments", SEGMENTS)
def test_application_segments_of_a_jpeg_are_passed_over(segments: str) -> None:
    np.testing.assert_array_equal(
        decode_picture(jpeg_with(SEGMENTS[segments]())), decode_picture(jpeg_with(b""))
    )


def test_the_extensions_of_a_gif_are_passed_over() -> None:
    whole = as_file(PICTURE, "GIF")
    place = 13 + (3 << (whole[10] & 7) + 1)
    extra = b"\x21\xfe\x05hello\0" * 900 + b"\x21\xff\x0bXMP DataXMP" + b"\x03abc\0"
    np.testing.assert_array_equal(
        decode_picture(whole[:place] + extra + whole[place:]), decode_picture(whole)
    )


def test_an_orientation_in_xmp_alone_is_not_applied() -> None:
    text = b"XML:com.adobe.xmp\0\0\0\0\0" + XMP
    np.testing.assert_array_equal(decode_picture(png_with(files.chunk(b"iTXt", text))), UPRIGHT)


@pytest.mark.parametrize("kind", ["BYTE", "SHORT", "LONG"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_the_orientation_is_applied_in_each_format(kind: str, order: str) -> None:
    exif = exif_with_orientation(order, kind, 6)
    assert close(decode_picture(jpeg_with(files.segment(0xE1, b"Exif\0\0" + exif))), ON_ITS_SIDE)
    np.testing.assert_array_equal(decode_picture(png_with(files.chunk(b"eXIf", exif))), ON_ITS_SIDE)
    np.testing.assert_array_equal(decode_picture(webp_with(exif)), ON_ITS_SIDE)


def test_the_orientation_is_read_among_any_other_tags() -> None:
    for kind in range(256):
        others = b"".join(
            struct.pack("<HHII", tag, kind, 0xFFFFFFFF, 0xFFFFFFF0) for tag in range(0x100, 0x110)
        )
        entry = struct.pack("<HHIHH", 0x112, 3, 1, 6, 0)
        exif = b"II*\0\x08\0\0\0" + struct.pack("<H", 17) + others + entry
        assert orientation_of(exif) == 6


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"II",
        b"II*\0",
        b"XX*\0\x08\0\0\0",
        b"II*\0\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\xff\xff",
        b"II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0",
        b"II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\x09\0\0\0",
        b"II*\0\x08\0\0\0\1\0\x12\1\2\0\1\0\0\0\6\0\0\0",
        b"II*\0\x08\0\0\0\1\0\x12\1\3\0\2\0\0\0\6\0\0\0",
        b"Exif\0\0http://n",
    ],
)
def test_an_orientation_that_cannot_be_read_is_upright(exif: bytes) -> None:
    assert orientation_of(exif) == 1
    np.testing.assert_array_equal(decode_picture(png_with(files.chunk(b"eXIf", exif))), UPRIGHT)
    np.testing.assert_array_equal(decode_picture(webp_with(exif)), UPRIGHT)


def test_each_orientation_is_turned_as_pillow_does() -> None:
    from PIL import ImageOps

    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = as_file(PICTURE, "PNG", exif=exif)
        expected = as_file(ImageOps.exif_transpose(Image.open(io.BytesIO(data))), "PNG")
        np.testing.assert_array_equal(decode_picture(data), decode_picture(expected))


def test_colour_marks_that_matter_are_kept() -> None:
    rgb = as_file(plain(200, 100, 50), "JPEG", keep_rgb=True)
    assert abs(decode_picture(rgb).astype(int).mean(axis=(0, 1)) - (200, 100, 50)).max() < 3


def exif_with_orientation(order: str, kind: str, orientation: int) -> bytes:
    number = {"BYTE": 1, "SHORT": 3, "LONG": 4}[kind]
    value = struct.pack(order + {"BYTE": "B", "SHORT": "H", "LONG": "I"}[kind], orientation)
    entry = struct.pack(order + "HHI", 0x112, number, 1) + value.ljust(4, b"\0")
    start = b"II*\0" if order == "<" else b"MM\0*"
    return start + struct.pack(order + "IH", 8, 1) + entry + bytes(4)


def close(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.abs(a.astype(int) - b.astype(int)).mean() < 4)
