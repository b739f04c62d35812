"""Image files made to hurt a decoder; small to send, or at most as large as allowed."""

import functools
import io
import random
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from domain.limits import IMAGE_FORMATS
from tests.support.photos import as_file, photo, plain

SIDE = 4096
TINY = plain(10, 20, 30, (16, 16))
MEGABYTE = 1_000_000


@functools.cache
def tiny(file_format: str) -> bytes:
    """16 x 16 pixels of one colour."""
    return as_file(TINY, file_format)


def full(mode: str) -> Image.Image:
    """As many pixels as are allowed, all zero."""
    return Image.new(mode, (SIDE, SIDE))


def header(file_format: str) -> bytes:
    """A small valid file in an unsupported format."""
    return as_file(TINY, file_format)


# PNG


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


_INTERLACED = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
"""Left, top, step across and step down of each pass of Adam7."""


def png(
    width: int, height: int, *, depth: int = 8, colour: int = 2, interlaced: bool = False
) -> bytes:
    """All pixels zero, compressed as far as deflate goes."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    passes = _INTERLACED if interlaced else ((0, 0, 1, 1),)
    size = 0
    for left, top, across, down in passes:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        size += rows * (1 + -(-columns * channels * depth // 8))
    palette = chunk(b"PLTE", bytes(768)) if colour == 3 else b""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + palette
        + chunk(b"IDAT", deflated_zeros(size))
        + chunk(b"IEND", b"")
    )


def png_that_claims(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")


@functools.cache
def deflated_zeros(size: int) -> bytes:
    packer = zlib.compressobj(9)
    block = bytes(MEGABYTE)
    packed = [packer.compress(block) for _ in range(size // MEGABYTE)]
    packed += [packer.compress(bytes(size % MEGABYTE)), packer.flush()]
    return b"".join(packed)


def png_with(extra: bytes) -> bytes:
    """Between the header and the pixels."""
    whole = tiny("PNG")
    return whole[:33] + extra + whole[33:]


def compressed_text(kind: bytes, unpacked: int, times: int = 1) -> bytes:
    packed = deflated_zeros(unpacked)
    data = {
        b"zTXt": b"Comment\0\0" + packed,
        b"iTXt": b"Comment\0\1\0\0\0" + packed,
        b"iCCP": b"icc\0\0" + packed,
    }[kind]
    return chunk(kind, data) * times


# EXIF, as PNG and WebP hold it


def tiff(entries: list[tuple[int, int, int, int]], *, then: int = 0, more: bytes = b"") -> bytes:
    """A TIFF directory of (tag, type, count, value or offset), and where the next one is."""
    rows = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return (
        b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + rows + struct.pack("<I", then) + more
    )


def exif_in_png(data: bytes) -> bytes:
    return png_with(chunk(b"eXIf", data))


def overlapping_exif() -> bytes:
    """65,535 entries that all hold the same 5 MB: 300 GB if they are believed."""
    entries = [(tag, 7, 5 * MEGABYTE, 900_000) for tag in range(65_535)]
    return tiff(entries, more=bytes(6 * MEGABYTE))


def looping_exif() -> bytes:
    return tiff([(0x8769, 4, 1, 8), (0x8825, 4, 1, 8), (0xA005, 4, 1, 8)], then=8)


def counting_exif() -> bytes:
    return tiff([(0x0112, 3, 0xFFFFFFFF, 8), (0x011A, 5, 0xFFFFFFFF, 8)])


# JPEG


def jpeg_with(segments: bytes) -> bytes:
    """After the first segment of a JPEG."""
    whole = tiny("JPEG")
    return whole[:20] + segments + whole[20:]


def segment(marker: int, data: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data


def progressive(scans: int, side: int = SIDE) -> bytes:
    """A whole progressive JPEG of 64 to 127 scans; grey, and all of its coefficients zero.

    One scan for the first coefficient of each block and one for each of the others, of which as
    many as are needed come in two: the last bit by itself. ``side`` is a power of two, at least 8.
    """
    exponent = min(14, 2 * (side.bit_length() - 4))  # of two: blocks that one code stands for
    blocks = (side // 8) ** 2
    one_code = bytes((1, *bytes(15)))  # a Huffman table of one symbol, which is the bit 0
    tables = segment(0xC4, b"\x00" + one_code + b"\x00") + segment(
        0xC4, b"\x10" + one_code + bytes((exponent << 4,))
    )
    frame = struct.pack(">BHHBBBB", 8, side, side, 1, 1, 0x11, 0)
    skips = bits("0" * (1 + exponent) * (blocks >> exponent))
    twice = scans - 64
    first = scan(0, 0, 0, bits("0" * blocks))
    others = b"".join(scan(place, place, place <= twice, skips) for place in range(1, 64))
    refined = b"".join(scan(place, place, 0x10, skips) for place in range(1, twice + 1))
    quantisation = segment(0xDB, b"\0" + b"\1" * 64)
    return (
        b"\xff\xd8" + quantisation + segment(0xC2, frame) + tables
        + first + others + refined + b"\xff\xd9"
    )  # fmt: skip


def scan(first: int, last: int, approximation: int, coded: bytes) -> bytes:
    """A scan of the only component."""
    return segment(0xDA, bytes((1, 1, 0, first, last, approximation))) + coded


def bits(text: str) -> bytes:
    """Bits as bytes, the last one filled with ones."""
    text += "1" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def repeated_scans(scans: int) -> bytes:
    """A full-size progressive photo whose real scans come again and again, full of errors."""
    whole = as_file(photo().resize((1024, 1024)), "JPEG", progressive=True, quality=95)
    body = whole[whole.index(b"\xff\xda") : -2]
    times = scans // body.count(b"\xff\xda")
    return whole[: whole.index(b"\xff\xda")] + body * times + whole[-2:]


def jpeg_that_claims(width: int, height: int) -> bytes:
    whole = bytearray(tiny("JPEG"))
    frame = whole.index(b"\xff\xc0")
    whole[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(whole)


def jpeg_of_sampling(sampling: int) -> bytes:
    """A grey baseline JPEG in colour, 96 x 96, whose first component has these sampling factors."""
    across, down = sampling >> 4, sampling & 15
    units = -(-96 // (8 * across)) * -(-96 // (8 * down))
    one_code = bytes((1, *bytes(15))) + b"\0"
    frame = struct.pack(">BHHBBB", 8, 96, 96, 3, 1, sampling) + b"\0\2\x11\0\3\x11\0"
    return (
        b"\xff\xd8"
        + segment(0xDB, b"\0" + b"\1" * 64)
        + segment(0xC0, frame)
        + segment(0xC4, b"\x00" + one_code)
        + segment(0xC4, b"\x10" + one_code)
        + segment(0xDA, b"\3\1\0\2\0\3\0\0\x3f\0")
        + bits("00" * (across * down + 2) * units)
        + b"\xff\xd9"
    )


def jpeg_of_separate_scans(scans: int) -> bytes:
    """A baseline JPEG of three components, of which each has a scan of its own; so many of them."""
    one_code = bytes((1, *bytes(15))) + b"\0"  # a Huffman table of the symbol 0, which is the bit 0
    frame = struct.pack(">BHHB", 8, 64, 64, 3) + b"\1\x11\0\2\x11\0\3\x11\0"
    coded = bits("0" * 2 * 64)  # no difference, end of block
    return (
        b"\xff\xd8"
        + segment(0xDB, b"\0" + b"\1" * 64)
        + segment(0xC0, frame)
        + segment(0xC4, b"\x00" + one_code)
        + segment(0xC4, b"\x10" + one_code)
        + b"".join(
            segment(0xDA, bytes((1, component, 0, 0, 63, 0))) + coded
            for component in range(1, scans + 1)
        )
        + b"\xff\xd9"
    )


def thumbnail_of_scans() -> bytes:
    """Two hundred scan markers inside metadata, where they do not count as scans."""
    return jpeg_with(segment(0xE4, b"\xff\xda\x00\x08" * 200))


def multi_picture(count: int, *, offset: int, entries: int = 2) -> bytes:
    """An MPO that says how many pictures it holds and where."""
    rows = b"".join(
        struct.pack("<LLLHH", 0x030000 if place == 0 else 0, 1000, offset * place, 0, 0)
        for place in range(entries)
    )
    directory = tiff(
        [(0xB000, 7, 4, 0x30303130), (0xB001, 4, 1, count), (0xB002, 7, len(rows), 50)]
    )
    return jpeg_with(segment(0xE2, b"MPF\0" + directory + rows))


# GIF


def gif(width: int, height: int, frame: tuple[int, int], *, extra: bytes = b"") -> bytes:
    screen = (
        b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes((0, 0, 0, 9, 9, 9))
    )
    picture = b"," + struct.pack("<HHHHB", 0, 0, *frame, 0)
    return screen + extra + picture + b"\x02\x02\x4c\x01\x00;"


def gif_that_disposes() -> bytes:
    """A first frame of 65,535 x 65,535 whose place is to be filled afterwards."""
    control = b"\x21\xf9\x04\x08\0\0\0\0"
    return gif(1, 1, (65_535, 65_535), extra=control)


def gif_with_tiny_blocks(kind: int, blocks: int) -> bytes:
    """Millions of blocks of one byte in front of the picture."""
    extension = bytes((0x21, kind)) + b"\x01a" * blocks + b"\0"
    return gif(16, 16, (16, 16), extra=extension)


# BMP


def bmp(width: int, height: int, bits: int, *, compression: int = 0, data: bytes = b"") -> bytes:
    palette = b"".join(bytes((n, 255 - n, 7, 0)) for n in range(1 << bits)) if bits <= 8 else b""
    header = struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(data), 0, 0, 0, 0
    )
    start = 54 + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header + palette + data


# WebP


def riff(*chunks: bytes) -> bytes:
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def riff_chunk(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


def three(number: int) -> bytes:
    return number.to_bytes(3, "little")


def webp_canvas(width: int, height: int, *chunks: bytes, flags: int = 0) -> bytes:
    head = bytes((flags, 0, 0, 0)) + three(width - 1) + three(height - 1)
    return riff(riff_chunk(b"VP8X", head), *chunks)


@functools.cache
def lossless() -> bytes:
    """The pixels' chunk of a WebP of 16 x 16."""
    return as_file(TINY, "WEBP", lossless=True)[12:]


def webp_lossless_that_claims(width: int, height: int) -> bytes:
    bits = (width - 1) | (height - 1) << 14
    return riff(riff_chunk(b"VP8L", b"\x2f" + struct.pack("<I", bits) + bytes(16)))


def webp_animation(frames: int, canvas: int) -> bytes:
    frame = three(0) * 2 + three(15) * 2 + three(1) + b"\0" + lossless()
    return webp_canvas(
        canvas,
        canvas,
        riff_chunk(b"ANIM", bytes(6)),
        *[riff_chunk(b"ANMF", frame)] * frames,
        flags=2,
    )


def noisy_webp() -> bytes:
    """Slow to decode: random bits, with transparency."""
    levels = np.random.default_rng(1).integers(0, 2, (SIDE, SIDE, 4), dtype=np.uint8) * 255
    return as_file(Image.fromarray(levels), "WEBP", lossless=True, method=0)


# Files that are two things at once, or something else


def with_a_zip(picture: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("hello.txt", "hello")
    return picture + buffer.getvalue()


def others() -> Iterator[tuple[str, bytes]]:
    """A file in each format that Pillow knows and the service does not accept."""
    for name in sorted(Image.SAVE):
        if name in {*IMAGE_FORMATS, "BUFR", "GRIB", "HDF5", "WMF"}:
            continue
        for mode in ("RGB", "L", "1", "P", "F"):
            try:
                with warnings.catch_warnings():
                    # Pillow means to drop some of these formats; until then it reads them.
                    warnings.simplefilter("ignore", DeprecationWarning)
                    data = as_file(TINY.convert(mode), name)
                yield name, data
                break
            except (OSError, ValueError, KeyError):
                continue
        else:
            raise AssertionError(f"Pillow writes {name} in none of the modes that were tried")
    yield from {
        "FITS header": b"SIMPLE  =                    T".ljust(2880),
        "HDF5 header": b"\x89HDF\r\n\x1a\n" + bytes(64),
        "GRIB header": b"GRIB\0\0\0\1" + bytes(64),
        "BUFR header": b"BUFR" + bytes(64),
        "PSD header": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 16, 16, 8, 3) + bytes(64),
        "WMF header": b"\xd7\xcd\xc6\x9a\0\0" + bytes(80),
        "FLI header": bytes(4) + b"\x11\xaf" + bytes(122),
        "XPM": b'/* XPM */\nstatic char * x[] = {"1 1 1 1", "a c #000000", "a"};',
        "CUR": b"\0\0\2\0\1\0" + bytes(64),
        "QOI header": b"qoif" + struct.pack(">II", 1 << 31, 1 << 31) + bytes(20),
        "Sun raster": b"\x59\xa6\x6a\x95"
        + struct.pack(">IIIIIII", 1 << 31, 1 << 31, 8, 0, 1, 0, 0),
        "PhotoCD": b"PCD_".rjust(2052) + bytes(64),
        "OLE": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512),
        "MPEG": b"\0\0\1\xb3\x10\0\x10" + bytes(64),
        "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9999 9999\nshowpage\n",
        "JPEG XL": b"\xff\x0a" + bytes(64),
        "HEIC": b"\0\0\0\x18ftypheic" + bytes(64),
        "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "HTML": b"<html><script>alert(1)</script>",
        "ELF": b"\x7fELF" + bytes(64),
        "pickle": b"cos\nsystem\n(S'false'\ntR.",
    }.items()


# Damage


def damaged(file_format: str, count: int) -> Iterator[bytes]:
    """Copies of a photo cut off or with bits turned over, the same ones every time."""
    rng = random.Random(file_format)
    whole = as_file(photo().resize((96, 64)), file_format)
    ways: tuple[Callable[[], bytes], ...] = (
        lambda: whole[: rng.randrange(len(whole))],
        lambda: _flipped(whole, rng, within=len(whole)),
        lambda: _flipped(whole, rng, within=min(len(whole), 200)),
    )
    for place in range(count):
        yield ways[place % len(ways)]()


def _flipped(whole: bytes, rng: random.Random, *, within: int) -> bytes:
    copy = bytearray(whole)
    for _ in range(rng.randint(1, 12)):
        copy[rng.randrange(within)] ^= 1 << rng.randrange(8)
    return bytes(copy)
