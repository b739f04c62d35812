"""PNG files: extracts only the chunks that affect the pixels."""

import struct
import zlib
from dataclasses import dataclass
from typing import Final

from adapters.images.exif import orientation_of
from adapters.images.formats import EssentialFile, damaged, too_many_parts, unsupported
from domain.limits import MAX_EXIF_BYTES, MAX_IMAGE_BLOCKS

_NAME: Final = "PNG"
_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_DEPTHS: Final = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
"""Allowed bits of a sample, by colour type (PNG, third edition, table 8)."""
_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_GREY, _COLOUR, _PALETTE = 0, 2, 3
_ADAM7: Final = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
"""First column and row, and steps across and down, of each pass (section 8.2)."""
_UNPACKED_AT_ONCE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Png(EssentialFile):
    """A PNG with only its critical chunks, and with tRNS if it has a palette.

    Attributes:
        transparent: the sample values that mean "transparent" in a grey or colour picture without
            an alpha channel, in the file's own depth; None if there are none.
        depth: bits of a sample.
        channels: samples of a pixel.
        interlaced: whether the pixels come in the seven passes of Adam7.
        compressed: the pixels as zlib data.
    """

    transparent: tuple[int, ...] | None = None
    depth: int = 8
    channels: int = 3
    interlaced: bool = False
    compressed: tuple[memoryview, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether the zlib data contains every pixel; unpacks the pixels without keeping them.

        Pillow accepts data that ends early, as long as it is properly ended zlib data.
        """
        missing = self._unpacked_bytes()
        unpacker = zlib.decompressobj()
        try:
            for packed in self.compressed:
                rest: bytes | memoryview = packed
                while rest and missing > 0:
                    missing -= len(unpacker.decompress(rest, _UNPACKED_AT_ONCE))
                    rest = unpacker.unconsumed_tail
            while missing > 0 and (unpacked := unpacker.decompress(b"", _UNPACKED_AT_ONCE)):
                missing -= len(unpacked)
        except zlib.error:
            return False
        return missing <= 0

    def _unpacked_bytes(self) -> int:
        """Bytes of all rows, each with its filter's number in front (sections 7 and 8)."""
        total = 0
        for left, upper, across, down in _ADAM7 if self.interlaced else ((0, 0, 1, 1),):
            columns = -(-(self.width - left) // across)
            rows = -(-(self.height - upper) // down)
            if columns > 0 and rows > 0:
                total += rows * (1 + -(-columns * self.channels * self.depth // 8))
        return total


def read_png(data: bytes) -> Png:
    """Extract the picture of a PNG (PNG, third edition, section 5).

    Ancillary chunks are skipped unread, whatever they contain. An animation is reduced to its
    default image.

    Raises:
        InvalidImage: damaged, in an unsupported form, or with more than `MAX_IMAGE_BLOCKS` chunks.
    """
    kept: dict[bytes, bytes] = {}
    pixels: list[memoryview] = []
    exif = b""
    view = memoryview(data)
    place, chunks = len(_SIGNATURE), 0
    while place + 8 <= len(data):
        if (chunks := chunks + 1) > MAX_IMAGE_BLOCKS:
            raise too_many_parts(_NAME, "chunks", MAX_IMAGE_BLOCKS)
        length, kind = int.from_bytes(view[place : place + 4], "big"), data[place + 4 : place + 8]
        content = view[place + 8 : place + 8 + length]
        if kind == b"IEND":
            break
        if kind == b"CgBI":
            raise unsupported(_NAME, "in Apple's own form for iPhone applications")
        if kind == b"IDAT":
            _check_checksum(data, place, length)
            pixels.append(content)
        elif kind in (b"IHDR", b"PLTE"):
            _check_checksum(data, place, length)
            kept.setdefault(kind, bytes(content))
        elif kind == b"tRNS" and not pixels and _checksum_is_right(data, place, length):
            kept.setdefault(kind, bytes(content[:256]))
        elif kind == b"eXIf" and not exif:
            exif = bytes(content[:MAX_EXIF_BYTES])
        place += 12 + length
    return _png(kept, pixels, orientation_of(exif))


def _png(kept: dict[bytes, bytes], pixels: list[memoryview], orientation: int) -> Png:
    header = kept.get(b"IHDR", b"")
    if len(header) != 13:
        raise damaged(_NAME, "its header is missing or has the wrong length")
    width, height, depth, colour, compression, filtering, interlace = struct.unpack(
        ">IIBBBBB", header
    )
    if depth not in _DEPTHS.get(colour, ()):
        raise damaged(_NAME, f"there is no colour type {colour} with {depth} bits")
    if compression or filtering or interlace > 1:
        raise unsupported(
            _NAME,
            f"of compression method {compression}, filter method {filtering} and interlace method "
            f"{interlace}",
        )
    if not pixels:
        raise damaged(_NAME, "it has no pixels")
    parts: list[bytes | memoryview] = [_SIGNATURE, _chunk(b"IHDR", header)]
    transparency = kept.get(b"tRNS", b"")
    transparent = None
    if colour == _PALETTE:
        palette = kept.get(b"PLTE", b"")
        if not palette or len(palette) % 3 or len(palette) > 768:
            raise damaged(_NAME, "its palette is missing or has the wrong length")
        parts.append(_chunk(b"PLTE", palette))
        if 0 < len(transparency) <= len(palette) // 3:
            parts.append(_chunk(b"tRNS", transparency))
    elif len(transparency) == {_GREY: 2, _COLOUR: 6}.get(colour):
        transparent = struct.unpack(f">{len(transparency) // 2}H", transparency)
    # One chunk for all data, since Pillow reads each separately. It ignores this checksum.
    length = sum(map(len, pixels))
    parts += [length.to_bytes(4, "big"), b"IDAT", *pixels, bytes(4)]
    parts.append(_chunk(b"IEND", b""))
    return Png(
        b"".join(parts),
        width,
        height,
        orientation,
        transparent,
        depth,
        _CHANNELS[colour],
        bool(interlace),
        tuple(pixels),
    )


def _check_checksum(data: bytes, place: int, length: int) -> None:
    """Refuse a critical chunk with a wrong checksum, or with none because it is cut off.

    The last IDAT may lack its checksum: it only matters that its pixels are there.
    """
    if place + 12 + length <= len(data) and not _checksum_is_right(data, place, length):
        kind = data[place + 4 : place + 8].decode("ascii")
        raise damaged(_NAME, f"the checksum of a chunk {kind} is wrong")


def _checksum_is_right(data: bytes, place: int, length: int) -> bool:
    end = place + 8 + length
    stored = int.from_bytes(data[end : end + 4], "big")
    return end + 4 <= len(data) and zlib.crc32(memoryview(data)[place + 4 : end]) == stored


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return len(content).to_bytes(4, "big") + kind + content + checksum.to_bytes(4, "big")
