"""Image files whose headers are wrong in the ways that structure allows, always the same ones."""

import random
import zlib
from collections.abc import Iterator
from typing import Final

from tests.support import hostile_files as files
from tests.support.photos import as_file

_EXTREMES: Final = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
_HEADER_BYTES: Final = 160


def seeds() -> dict[str, list[bytes]]:
    """Small whole files of each format in its different forms."""
    picture = files.TINY
    return {
        "JPEG": [
            files.tiny("JPEG"),
            as_file(picture, "JPEG", progressive=True),
            as_file(picture.convert("CMYK"), "JPEG"),
            files.jpeg_of_separate_scans(3),
            files.jpeg_with(files.segment(0xE1, b"Exif\0\0" + files.looping_exif())),
        ],
        "MPO": [files.multi_picture(2, offset=0)],
        "PNG": [
            *(as_file(picture.convert(mode), "PNG") for mode in ("1", "L", "LA", "P", "RGBA")),
            files.png(16, 16, depth=16, colour=6, interlaced=True),
            files.exif_in_png(files.counting_exif()),
        ],
        "GIF": [files.tiny("GIF"), files.gif_that_disposes(), files.gif(1, 1, (16, 16))],
        "BMP": [
            files.tiny("BMP"),
            files.bmp(16, 16, 8, compression=1, data=b"\x02\x05\0\0\0\2\1\1\0\1"),
            files.bmp(16, 16, 4, compression=2, data=b"\x02\x05\0\0\0\3\1\1\0\1"),
            files.bmp(16, 16, 32, compression=3, data=bytes(2000)),
        ],
        "WEBP": [
            files.tiny("WEBP"),
            as_file(picture.convert("RGBA"), "WEBP", lossless=True),
            files.webp_animation(2, 16),
        ],
    }


def mutations(file_format: str, count: int, *, seed: int = 0) -> Iterator[bytes]:
    """So many files that begin like whole ones of a format."""
    rng = random.Random(f"{file_format} {seed}")
    wholes = seeds()[file_format]
    for _ in range(count):
        yield mutated(rng.choice(wholes), file_format, rng)


def mutated(whole: bytes, file_format: str, rng: random.Random) -> bytes:
    """One file that begins like a whole one, changed in one to four places."""
    data = bytearray(whole)
    for _ in range(rng.randint(1, 4)):
        rng.choice((_set_number, _set_number, _repeat, _drop, _cut))(data, rng)
    if file_format == "PNG" and rng.random() < 0.9:
        _mend_checksums(data)
    return bytes(data)


def _place(data: bytearray, rng: random.Random) -> int:
    """More often at the beginning, where headers are; never in the first bytes of all."""
    end = min(len(data), _HEADER_BYTES) if rng.random() < 0.8 else len(data)
    return rng.randrange(min(6, end), end + 1)


def _set_number(data: bytearray, rng: random.Random) -> None:
    size = rng.choice((1, 2, 3, 4))
    value = rng.choice((*_EXTREMES, rng.getrandbits(32))) & (1 << 8 * size) - 1
    place = _place(data, rng)
    data[place : place + size] = value.to_bytes(size, "little" if rng.random() < 0.5 else "big")


def _repeat(data: bytearray, rng: random.Random) -> None:
    place, size = _place(data, rng), rng.randint(1, 64)
    data[place:place] = data[place : place + size] * rng.choice((1, 2, 200))


def _drop(data: bytearray, rng: random.Random) -> None:
    place = _place(data, rng)
    del data[place : place + rng.randint(1, 32)]


def _cut(data: bytearray, rng: random.Random) -> None:
    if rng.random() < 0.2:
        del data[_place(data, rng) :]


def _mend_checksums(data: bytearray) -> None:
    """Make decoders look at the changed parts."""
    place = 8
    while place + 12 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4], "big")
        if end + 4 > len(data):
            break
        data[end : end + 4] = zlib.crc32(data[place + 4 : end]).to_bytes(4, "big")
        place = end + 4
