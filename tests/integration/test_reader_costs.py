"""Reading the structure of a file costs no more than in proportion to its size."""

import contextlib
import time
from collections.abc import Callable

import pytest

from adapters.images.gif import read_gif
from adapters.images.jpeg import decode_jpeg
from adapters.images.png import read_png
from adapters.images.webp import read_webp
from domain.errors import InvalidImage
from tests.support import hostile_files as files

MEBIBYTES = (1, 2, 4, 8)
MAX_RATIO = 24
"""How much longer eight times as much may take: three times what is in proportion.

A quadratic reader would take 64 times as long.
"""
MIN_SECONDS = 0.02
"""What is faster is not compared; the clock and other work decide about it."""


def read_jpeg(data: bytes) -> None:
    decode_jpeg(data, size=224, max_pixels=2**24)


WORST: dict[str, tuple[Callable[[bytes], object], Callable[[int], bytes]]] = {
    "JPEG of FF": (read_jpeg, lambda size: b"\xff\xd8" + b"\xff" * size),
    "JPEG of FF 00": (read_jpeg, lambda size: b"\xff\xd8" + b"\xff\0" * (size // 2)),
    "JPEG of restarts": (read_jpeg, lambda size: files.jpeg_with(b"\xff\xd0" * (size // 2))),
    "JPEG of starts": (read_jpeg, lambda size: b"\xff\xd8" * (size // 2)),
    "JPEG of segments": (
        read_jpeg,
        lambda size: files.jpeg_with(files.segment(0xE1, b"Exif\0\0II*\0") * (size // 14)),
    ),
    "JPEG of large segments": (
        read_jpeg,
        lambda size: files.jpeg_with(files.segment(0xFE, bytes(9000)) * (size // 9004)),
    ),
    "JPEG of stuffed data": (
        read_jpeg,
        lambda size: files.tiny("JPEG")[:-2] + b"\xff\0" * (size // 2) + b"\xff\xd9",
    ),
    "JPEG of restarts in its data": (
        read_jpeg,
        lambda size: files.tiny("JPEG")[:-2] + b"\xff\xd0" * (size // 2) + b"\xff\xd9",
    ),
    "JPEG of zeros behind its data": (
        read_jpeg,
        lambda size: files.tiny("JPEG")[:-2] + bytes(size) + b"\xff\xd9",
    ),
    "PNG of empty chunks": (
        read_png,
        lambda size: files.png_with(files.chunk(b"IDAT", b"") * (size // 12)),
    ),
    "PNG of chunks of 1 KB": (
        read_png,
        lambda size: files.png_with(files.chunk(b"IDAT", bytes(1012)) * (size // 1024)),
    ),
    "PNG of profiles": (
        read_png,
        lambda size: files.png_with(files.compressed_text(b"iCCP", 10**6) * (size // 1024)),
    ),
    "GIF of comments": (read_gif, lambda size: files.gif_with_tiny_blocks(0xFE, size // 2)),
    "GIF of junk": (read_gif, lambda size: files.gif(16, 16, (16, 16), extra=bytes(size))),
    "WebP of empty chunks": (
        read_webp,
        lambda size: files.riff(files.riff_chunk(b"XXXX", b"") * (size // 8)),
    ),
    "WebP of frames": (read_webp, lambda size: files.webp_animation(size // 64, 16)),
    "WebP of alphas": (
        read_webp,
        lambda size: files.webp_canvas(16, 16, files.riff_chunk(b"ALPH", b"") * (size // 8)),
    ),
}


@pytest.mark.parametrize("worst", WORST)
def test_eight_times_as_much_takes_about_eight_times_as_long(worst: str) -> None:
    read, make = WORST[worst]
    seconds = [fastest(read, make(size * 2**20)) for size in MEBIBYTES]
    assert seconds[-1] < MAX_RATIO * max(seconds[0], MIN_SECONDS), seconds


def fastest(read: Callable[[bytes], object], data: bytes) -> float:
    """Processor seconds of the fastest of three runs."""
    taken = []
    for _ in range(3):
        started = time.process_time()
        with contextlib.suppress(InvalidImage):
            read(data)
        taken.append(time.process_time() - started)
    return min(taken)
