"""A picture is refused unless every pixel had data, whatever bytes stand at the file's end."""

import functools
import random
import zlib
from typing import Any

import numpy as np
import pytest

from adapters.images.picture import decode_picture
from adapters.images.png import read_png
from adapters.images.webp import _chunks as webp_chunks
from domain.errors import InvalidImage
from tests.support import hostile_files as files
from tests.support.photos import as_file, photo

END = b"\xff\xd9"
JPEGS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "optimised": {"optimize": True, "quality": 95},
    "with restart markers": {"restart_marker_rows": 1},
    "of full colour": {"subsampling": "4:4:4"},
}


@functools.cache
def jpeg(kind: str) -> bytes:
    return as_file(photo("cat").resize((320, 240)), "JPEG", **JPEGS[kind])


def is_refused(data: bytes) -> bool:
    try:
        decode_picture(data)
    except InvalidImage as refused:
        return refused.code == "damaged_image"
    return False


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_a_torn_jpeg_is_refused_however_it_ends(kind: str, part: float) -> None:
    whole = jpeg(kind)
    torn = whole[: int(len(whole) * part)]
    lost = bytes(len(whole) - len(torn))
    for end in (b"", END, lost, lost + END, bytes(100_000) + END, END + lost, END + whole):
        assert is_refused(torn + end)


@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_that_lacks_only_its_end_is_whole(kind: str) -> None:
    whole = jpeg(kind)
    expected = decode_picture(whole)
    for end in (b"", b"\xff", bytes(3), bytes(10), bytes(5000), bytes(10) + END, b"\xff\xff" + END):
        np.testing.assert_array_equal(decode_picture(whole[:-2] + end), expected)


@pytest.mark.parametrize("kind", JPEGS)
def test_bytes_between_segments_and_behind_the_end_are_harmless(kind: str) -> None:
    whole = jpeg(kind)
    expected = decode_picture(whole)
    header = whole[:20] + b"\0\0\xff\xff\xff" + whole[20:]
    np.testing.assert_array_equal(decode_picture(header), expected)
    np.testing.assert_array_equal(decode_picture(whole + whole[:5000]), expected)


@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_that_lost_a_kilobyte_is_refused(kind: str) -> None:
    whole = jpeg(kind)
    rng = random.Random(kind)
    start = whole.index(b"\xff\xda") + 20
    for _ in range(20):
        place = rng.randrange(start, len(whole) - 1100)
        assert is_refused(whole[:place] + whole[place + 1000 :])


def test_a_progressive_jpeg_that_lost_its_last_scans_is_refused() -> None:
    whole = jpeg("progressive")
    scans = [at for at in range(len(whole)) if whole.startswith(b"\xff\xda", at)]
    assert len(scans) > 5
    for scan in scans[1:]:
        assert is_refused(whole[:scan] + END)


def test_scans_of_one_component_each_must_all_be_there() -> None:
    for scans in (1, 2, 3):
        assert is_refused(files.jpeg_of_separate_scans(scans)) == (scans < 3)


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "BMP"])
def test_a_torn_picture_is_refused_whatever_ends_it(file_format: str) -> None:
    whole = as_file(photo("cat").resize((160, 120)), file_format)
    for part in (0.3, 0.6, 0.95):
        torn = whole[: int(len(whole) * part)]
        for end in (b"", b"\0;", files.chunk(b"IEND", b"")):
            assert is_refused(torn + end)


@pytest.mark.parametrize("file_format", ["GIF", "PNG"])
def test_a_picture_that_lacks_only_its_end_is_whole(file_format: str) -> None:
    whole = as_file(photo("cat").resize((160, 120)), file_format)
    end = {"GIF": 2, "PNG": 12}[file_format]
    np.testing.assert_array_equal(decode_picture(whole[:-end]), decode_picture(whole))


@pytest.mark.parametrize("interlaced", [False, True])
def test_png_data_must_unpack_to_every_pixel(interlaced: bool) -> None:
    whole = files.png(64, 48, interlaced=interlaced)
    packed = b"".join(read_png(whole).compressed)
    rows = zlib.decompress(packed)
    for kept, refused in ((len(rows), False), (len(rows) - 1, True), (len(rows) // 2, True)):
        shorter = files.chunk(b"IDAT", zlib.compress(rows[:kept]))
        data = whole[:33] + shorter + files.chunk(b"IEND", b"")
        assert is_refused(data) == refused
    assert is_refused(whole[:33] + files.chunk(b"IDAT", packed[:-8]) + files.chunk(b"IEND", b""))


def test_a_wrong_checksum_of_pixels_is_damage() -> None:
    whole = files.png(64, 48)
    place = whole.index(b"IDAT") + 10
    assert is_refused(whole[:place] + bytes((whole[place] ^ 1,)) + whole[place + 1 :])


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exact": True}])
def test_a_webp_whose_sizes_were_mended_is_still_torn(options: dict[str, bool]) -> None:
    picture = photo("cat").resize((160, 120))
    if options.get("exact"):
        picture.putalpha(picture.convert("L"))
    whole = memoryview(as_file(picture, "WEBP", **options))
    parts = [(kind, bytes(part)) for kind, part in webp_chunks(whole, 12)]
    assert not is_refused(files.riff(*(files.riff_chunk(*part) for part in parts)))
    for place, (kind, content) in enumerate(parts):
        if kind == b"VP8X":
            continue
        for share in (0.3, 0.6, 0.95):
            torn = [*parts]
            torn[place] = kind, content[: int(len(content) * share)]
            assert is_refused(files.riff(*(files.riff_chunk(*part) for part in torn)))
