"""JPEG files: a walk through their structure, and decoding with libjpeg-turbo.

libjpeg decodes even damaged files, with a warning. The warning distinguishes an incomplete picture
from one with harmless padding. So the decoder gets a file without any cause of harmless warnings:
no metadata, no bytes between segments, and an end marker.
"""

import io
import re
from dataclasses import dataclass
from typing import Final

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from adapters.images.exif import orientation_of, upright
from adapters.images.formats import damaged, too_many_parts, too_many_pixels, unsupported
from adapters.images.resizing import Picture
from domain.errors import InvalidImage
from domain.limits import (
    MAX_JPEG_COEFFICIENTS,
    MAX_JPEG_PIXELS,
    MAX_JPEG_SCANS,
    MAX_JPEG_SEGMENTS,
)

_NAME: Final = "JPEG"

_MARKER: Final = re.compile(rb"\xff[\x02-\xcf\xd9-\xfe]")
"""A marker of a segment or of the end (ITU-T T.81, B.1.1.2), passing over TEM, RST and SOI.

Fill bytes in front of it are skipped too, since FF FF does not match. One byte decides at each
place, so that a search takes linear time.
"""
_END_OF_SCAN: Final = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""A marker that ends a scan: any but RST0 to RST7, which belong to it."""

_START: Final = b"\xff\xd8"
_END: Final = b"\xff\xd9"
_END_OF_IMAGE, _START_OF_SCAN = 0xD9, 0xDA
_RESTARTS: Final = range(0xD0, 0xD8)
_APP0, _APP1, _APP14 = 0xE0, 0xE1, 0xEE
_JFIF_BYTES, _ADOBE_BYTES = 14, 12
_PROGRESSIVE: Final = 0xC2
_OTHER_PROCESSES: Final = {
    0xC3: "lossless",
    **dict.fromkeys((0xC5, 0xC6, 0xC7), "hierarchical"),
    **dict.fromkeys((0xC9, 0xCA), "arithmetic coding"),
    0xCB: "lossless with arithmetic coding",
    **dict.fromkeys((0xCD, 0xCE, 0xCF), "hierarchical with arithmetic coding"),
}
_FRAMES: Final = frozenset({0xC0, 0xC1, _PROGRESSIVE, *_OTHER_PROCESSES})
_KEPT: Final = _FRAMES | {_START_OF_SCAN, 0xC4, 0xDB, 0xDD}
"""Segments that affect pixels, Huffman and quantisation tables and restart intervals included."""
_COEFFICIENTS: Final = 64
_MAX_SIDE: Final = 65_500
"""libjpeg's JPEG_MAX_DIMENSION."""

_JFIF: Final = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"
"""The only thing that libjpeg takes from JFIF is that three components are YCbCr."""

_PADDING: Final = re.compile(r"(?P<count>\d+) extraneous bytes before marker 0x(?P<marker>\w\w)$")
_NO_MEMORY: Final = re.compile(r"memory", re.IGNORECASE)
_UNKNOWN_SAMPLING: Final = "Could not determine subsampling level of JPEG image"

_SCALES: Final = (1, 2, 4, 8)
"""Divisors of a side if libjpeg uses fewer coefficients of each block."""
_WANTED: Final = 2
"""Both sides stay at least this many times the result's, so that the resizing filter has enough."""


_NOT_WHOLE: Final = "the data of its pixels ends early or contradicts itself"


@dataclass(frozen=True, slots=True)
class _Jpeg:
    """The first picture of a JPEG, without metadata.

    Attributes:
        data: the file; it always has an end marker.
        width: pixels across, as the frame header says.
        height: pixels down.
        orientation: EXIF's, from 1 to 8; 1 where there is none.
        scans: start and end of each scan's coded data in ``data``, and its required number of
            restart markers.
    """

    data: bytes
    width: int
    height: int
    orientation: int
    scans: list[tuple[int, int, int]]


def decode_jpeg(data: bytes, *, size: int, max_pixels: int) -> Picture:
    """Decode the first picture of a JPEG or MPO, upright, in RGB.

    It is decoded at 1/2, 1/4 or 1/8 of its size if that leaves twice ``size`` on both sides, or at
    least ``size`` if more would be too many pixels.

    Args:
        data: the file's bytes.
        size: pixels on each side of the square that it will be resized to.
        max_pixels: how many pixels may be decoded.

    Raises:
        InvalidImage: damaged, incomplete, in an unsupported form, too many pixels, scans or
            segments.
        MemoryError: there is not enough to decode it; says nothing about the image.
    """
    jpeg = _Reader(data).read()
    scale = _scale(jpeg.width, jpeg.height, size, max_pixels)
    return upright(_decode_whole(jpeg, scale), jpeg.orientation)


def _scale(width: int, height: int, size: int, max_pixels: int) -> int:
    short = min(width, height)
    scale = max(scale for scale in _SCALES if scale == 1 or short >= _WANTED * size * scale)
    while _scaled(width, scale) * _scaled(height, scale) > max_pixels:
        if scale == _SCALES[-1] or short < 2 * scale * size:
            raise too_many_pixels(_scaled(width, scale), _scaled(height, scale), max_pixels)
        scale *= 2
    return scale


def _scaled(side: int, scale: int) -> int:
    return -(-side // scale)


def _decode_whole(jpeg: _Jpeg, scale: int) -> NDArray[np.uint8]:
    """All pixels at 1/``scale``, uint8 ``[height, width, 3]``; refuses an incomplete picture."""
    # At full size no scale is passed, since a side of less than 8 pixels is the same at 7/8.
    shape = (_scaled(jpeg.height, scale), _scaled(jpeg.width, scale)) if scale > 1 else (0, 0)
    pixels, warning = _decode(jpeg.data, shape)
    if pixels is not None:
        return pixels
    if warning.endswith(_UNKNOWN_SAMPLING):
        return _decode_with_pillow(jpeg.data, scale)
    padding = _PADDING.search(warning)
    if padding is not None and int(padding["marker"], 16) not in _RESTARTS:
        # The bytes may be padding, or the rest of zeros that were decoded as pixels.
        at_the_end = int(padding["marker"], 16) == _END_OF_IMAGE
        trimmed = _without_padding(jpeg, int(padding["count"]) if at_the_end else 0)
        pixels, _ = _decode(trimmed, shape)
    elif padding is not None and _restarts_are_right(jpeg):
        pixels, _ = _decode(jpeg.data, shape, strict=False)
    if pixels is None:
        raise damaged(_NAME, _NOT_WHOLE)
    return pixels


def _decode(
    data: bytes, shape: tuple[int, int], *, strict: bool = True
) -> tuple[NDArray[np.uint8] | None, str]:
    """The pixels, or the last of libjpeg's warnings or errors."""
    try:
        return simplejpeg.decode_jpeg(
            data, "RGB", min_height=shape[0], min_width=shape[1], strict=strict
        ), ""
    except (ValueError, RuntimeError) as failed:
        message = str(failed)
        if _NO_MEMORY.search(message):
            raise MemoryError from failed
        return None, message


def _decode_with_pillow(data: bytes, scale: int) -> NDArray[np.uint8]:
    """For sampling factors that TurboJPEG has no name for. Does not detect incomplete pictures."""
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        if scale > 1:
            image.draft(None, (image.width // scale, image.height // scale))
        return np.asarray(image.convert("RGB"))


def _without_padding(jpeg: _Jpeg, count: int) -> bytes:
    """The file without zeros at the end of any scan, and without the last scan's last bytes."""
    parts, place = [], 0
    for begin, end, _ in jpeg.scans:
        coded = jpeg.data[begin:end]
        kept = len(coded.rstrip(b"\0"))
        if end == jpeg.scans[-1][1]:
            kept = max(min(kept, len(coded) - count), 0)
        # A final FF belongs to the data only with the zero after it.
        stuffing = b"\0" if coded[:kept].endswith(b"\xff") else b""
        parts += [jpeg.data[place:begin], coded[:kept], stuffing]
        place = end
    return b"".join((*parts, jpeg.data[place:]))


def _restarts_are_right(jpeg: _Jpeg) -> bool:
    """Whether each scan has as many markers RST0 to RST7 as its restart interval requires.

    If bytes were lost together with a marker, libjpeg may only warn about padding.
    """
    return all(
        jpeg.data.count(bytes((0xFF, marker)), begin, end) == (expected + 7 - number) // 8
        for begin, end, expected in jpeg.scans
        for number, marker in enumerate(_RESTARTS)
    )


@dataclass(slots=True)
class _Frame:
    """The frame header, and the coefficients that the scans have delivered so far.

    Attributes:
        process: the marker that started it.
        width: pixels across.
        height: pixels down.
        sampling: horizontal and vertical sampling factor by component.
        missing: by component and coefficient, how many bits are still to come; -1 before any.
    """

    process: int
    width: int
    height: int
    sampling: dict[int, tuple[int, int]]
    missing: dict[int, list[int]]

    @property
    def is_progressive(self) -> bool:
        return self.process == _PROGRESSIVE

    @property
    def largest(self) -> tuple[int, int]:
        """The largest horizontal and vertical sampling factors."""
        return max(h for h, _ in self.sampling.values()), max(v for _, v in self.sampling.values())

    @property
    def coefficients(self) -> int:
        """Number of coefficients of all components, without the last block's padding."""
        blocks = sum(h * v for h, v in self.sampling.values())
        across, down = self.largest
        return self.width * self.height * blocks // (across * down)

    @property
    def is_complete(self) -> bool:
        """Whether the last bit of every coefficient has come."""
        return not any(map(any, self.missing.values()))

    def units(self, components: list[int]) -> int:
        """Units of coded data in a scan of these components (ITU-T T.81, A.2)."""
        across, down = self.largest
        if len(components) > 1:
            return _scaled(self.width, 8 * across) * _scaled(self.height, 8 * down)
        own_across, own_down = self.sampling[components[0]]
        return _scaled(_scaled(self.width * own_across, across), 8) * _scaled(
            _scaled(self.height * own_down, down), 8
        )


class _Reader:
    """One walk through a JPEG, from its start to the end of its first picture."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._view = memoryview(data)
        self._kept: list[bytes | memoryview] = []
        self._kept_bytes = 0
        self._frame: _Frame | None = None
        self._orientation: int | None = None
        self._restart_interval = 0
        self._scans: list[tuple[int, int, int]] = []
        self._segments = 0
        self._restarts = 0
        self._keep(_START)

    def read(self) -> _Jpeg:
        place = len(_START)
        while (found := _MARKER.search(self._data, place)) is not None:
            marker, place = found[0][1], found.end()
            if marker == _END_OF_IMAGE:
                break
            place = self._segment(marker, place)
            if marker == _START_OF_SCAN:
                place = self._coded_data(place)
                if self._is_done:
                    break
        return self._picture()

    @property
    def _is_done(self) -> bool:
        """Whether the picture is complete; a progressive one continues to its end marker."""
        return (
            self._frame is not None and not self._frame.is_progressive and self._frame.is_complete
        )

    def _segment(self, marker: int, place: int) -> int:
        """Keep one segment's parts that affect pixels; returns its end."""
        length = int.from_bytes(self._view[place : place + 2], "big")
        end = place + length
        content = self._view[place + 2 : end]
        if length < 2 or len(content) < length - 2:
            raise damaged(_NAME, "a segment of it is cut off")
        if (segments := self._segments + (marker != _START_OF_SCAN)) > MAX_JPEG_SEGMENTS:
            raise too_many_parts(_NAME, "segments", MAX_JPEG_SEGMENTS)
        self._segments = segments
        if marker in _FRAMES:
            self._start_frame(marker, content)
        elif marker == _START_OF_SCAN:
            content = memoryview(self._start_scan(bytes(content)))
        elif marker == 0xDD and len(content) == 2:
            self._restart_interval = int.from_bytes(content, "big")
        elif marker == _APP1 and self._orientation is None and bytes(content[:6]) == b"Exif\0\0":
            self._orientation = orientation_of(bytes(content))
        if marker in _KEPT:
            self._keep_segment(marker, content)
        elif not self._scans:
            self._keep_application_data(marker, content)
        return end

    def _keep(self, *parts: bytes | memoryview) -> None:
        self._kept += parts
        self._kept_bytes += sum(map(len, parts))

    def _keep_segment(self, marker: int, content: bytes | memoryview) -> None:
        self._keep(bytes((0xFF, marker)), (len(content) + 2).to_bytes(2, "big"), content)

    def _keep_application_data(self, marker: int, content: memoryview) -> None:
        """The segment's colour information, in a form without libjpeg warnings."""
        if marker == _APP0 and len(content) >= _JFIF_BYTES and bytes(content[:5]) == b"JFIF\0":
            self._keep(_JFIF)
        elif marker == _APP14 and len(content) >= _ADOBE_BYTES and bytes(content[:5]) == b"Adobe":
            self._keep_segment(marker, content[:_ADOBE_BYTES])

    def _start_frame(self, marker: int, content: memoryview) -> None:
        if (process := _OTHER_PROCESSES.get(marker)) is not None:
            raise unsupported(_NAME, process)
        if self._frame is not None or len(content) < 6 or len(content) != 6 + 3 * content[5]:
            raise damaged(_NAME, "its frame header is wrong")
        precision, count = content[0], content[5]
        height, width = (int.from_bytes(content[at : at + 2], "big") for at in (1, 3))
        if precision == 12:
            raise unsupported(_NAME, "of 12 bits a sample")
        if precision != 8 or not width:
            raise damaged(_NAME, f"it is {width} pixels across with {precision} bits a sample")
        if not height:
            raise unsupported(_NAME, "of a height that is stated only behind its pixels")
        if count not in (1, 3, 4):
            raise unsupported(_NAME, f"of {count} components")
        if max(width, height) > _MAX_SIDE or width * height > MAX_JPEG_PIXELS:
            raise InvalidImage(
                f"image (JPEG) is {width} x {height} pixels; at most {MAX_JPEG_PIXELS} in all and "
                f"{_MAX_SIDE} on a side are allowed.",
                code="too_many_pixels",
            )
        sampling = {
            content[at]: (content[at + 1] >> 4, content[at + 1] & 15)
            for at in range(6, len(content), 3)
        }
        if len(sampling) != count or not all(
            0 < n <= 4 for pair in sampling.values() for n in pair
        ):
            raise damaged(_NAME, "its frame header is wrong")
        missing = {component: [-1] * _COEFFICIENTS for component in sampling}
        self._frame = _Frame(marker, width, height, sampling, missing)

    def _start_scan(self, content: bytes) -> bytes:
        """The scan header, in a form without libjpeg warnings."""
        frame = self._frame
        count = content[0] if content else 0
        components = _different(content[1 : 1 + 2 * count : 2])
        if (
            frame is None
            or not 0 < count <= 4
            or len(content) != 4 + 2 * count
            or not set(components) <= set(frame.sampling)
        ):
            raise damaged(_NAME, "a scan header is wrong")
        if len(self._scans) == MAX_JPEG_SCANS:
            raise too_many_parts(_NAME, "scans", MAX_JPEG_SCANS)
        if frame.is_progressive:
            first, last, low = content[-3], content[-2], content[-1] & 15
        else:
            # Some cameras leave these at zero.
            first, last, low = 0, _COEFFICIENTS - 1, 0
            content = content[:-3] + bytes((first, last, 0))
        if last >= _COEFFICIENTS:
            raise damaged(_NAME, "a scan header is wrong")
        for component in components:
            coefficients = frame.missing[component]
            coefficients[first : last + 1] = [low] * (last + 1 - first)
        units = frame.units(components)
        interval = self._restart_interval
        self._restarts = (units - 1) // interval if interval else 0
        return content

    def _coded_data(self, place: int) -> int:
        found = _END_OF_SCAN.search(self._data, place)
        end = len(self._data) if found is None else found.start()
        begin = self._kept_bytes
        self._keep(self._view[place:end])
        self._scans.append((begin, self._kept_bytes, self._restarts))
        return end

    def _picture(self) -> _Jpeg:
        frame = self._frame
        if frame is None or not self._scans:
            raise damaged(_NAME, "it has no pixels")
        if not frame.is_complete:
            raise damaged(_NAME, "scans of it are missing")
        several = frame.is_progressive or len(self._scans) > 1
        if several and frame.coefficients > MAX_JPEG_COEFFICIENTS:
            raise InvalidImage(
                f"image (JPEG) is {frame.width} x {frame.height} pixels in several scans, which "
                f"takes {frame.coefficients} coefficients; at most {MAX_JPEG_COEFFICIENTS} are "
                "allowed.",
                code="too_many_pixels",
            )
        return _Jpeg(
            b"".join((*self._kept, _END)),
            frame.width,
            frame.height,
            self._orientation or 1,
            self._scans,
        )


def _different(components: bytes | memoryview) -> list[int]:
    """Identifiers of components; a repeated one gets a number of its own.

    The standard requires them to differ, but some writers repeat them. libjpeg reads those in this
    way.
    """
    identifiers: list[int] = []
    for component in components:
        identifiers.append(max(identifiers) + 1 if component in identifiers else component)
    return identifiers
