"""Turns an image file into the image tower's pixels, as eight-bit levels.

`decode_picture` is a pure function of the file's bytes, so that it can run in a worker process.
"""

import io
import warnings
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adapters.images.bmp import read_bmp
from adapters.images.exif import upright
from adapters.images.formats import EssentialFile, checked_format, damaged, too_many_pixels
from adapters.images.gif import Gif, read_gif
from adapters.images.jpeg import decode_jpeg
from adapters.images.png import Png, read_png
from adapters.images.preprocessing import square
from adapters.images.resizing import Picture, has_simd
from adapters.images.webp import read_webp
from application.ports import CLIPS_INPUT, ImageInput
from domain.errors import ImageTooLarge, InvalidImage
from domain.limits import MAX_DECODED_PIXELS, MAX_IMAGE_BYTES

_READERS: Final[dict[str, Callable[[bytes], EssentialFile]]] = {
    "PNG": read_png,
    "GIF": read_gif,
    "BMP": read_bmp,
    "WEBP": read_webp,
}
"""The reader that checks a file before Pillow, by Pillow's name for the format."""

_NO_MEMORY: Final = "out of memory"
"""The beginning of a decoder's `OSError` if it could not allocate (libImaging's Imaging.h: -9)."""

_WHITE: Final = 255

# Sizes are checked here against the contract's own limit, with the contract's own error.
Image.MAX_IMAGE_PIXELS = None
# Register the decoders now; in the first request, threads would race to do it.
Image.init()
# For the same reason, and so that decoding workers have it when they are forked.
has_simd()
# Python keeps every different warning text for good. Malicious files could fill the log and then
# the memory.
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode_picture(
    data: bytes,
    *,
    image_input: ImageInput = CLIPS_INPUT,
    max_pixels: int = MAX_DECODED_PIXELS,
) -> NDArray[np.uint8]:
    """Check, decode, turn upright and resize one image file for the image tower.

    Args:
        data: the file's bytes.
        image_input: the size of the result, and how to make the picture square.
        max_pixels: how many pixels may be decoded; for a JPEG, after scaling to 1/2, 1/4 or 1/8.

    Returns:
        uint8 ``[size, size, 3]``, RGB, C-contiguous. If the file has several pictures or frames,
        the first one.

    Raises:
        ImageTooLarge: more bytes than allowed.
        InvalidImage: not an image, format not allowed, too many pixels, damaged, or incomplete.
        MemoryError: there is not enough to decode it; says nothing about the image.
    """
    if len(data) > MAX_IMAGE_BYTES:
        raise ImageTooLarge(
            f"image is {len(data)} bytes as a file (base64 not counted); "
            f"at most {MAX_IMAGE_BYTES} bytes (10 MiB) are allowed."
        )
    if not data:
        raise InvalidImage("image is empty; it must hold an image file.", code="not_an_image")
    name = checked_format(data)
    try:
        if name == "JPEG":
            picture = decode_jpeg(data, size=image_input.size, max_pixels=max_pixels)
        else:
            picture = _decode_with_pillow(name, _READERS[name](data), max_pixels)
        return np.ascontiguousarray(square(picture, image_input))
    except (MemoryError, InvalidImage):
        raise
    except Exception as failed:  # decoders raise OSError, SyntaxError, struct.error, …
        if str(failed).startswith(_NO_MEMORY):
            raise MemoryError from failed
        raise damaged(name, "its pixels cannot be decoded") from failed


def _decode_with_pillow(name: str, file: EssentialFile, max_pixels: int) -> Picture:
    """All pixels, upright, in RGB."""
    if file.width * file.height > max_pixels:
        raise too_many_pixels(file.width, file.height, max_pixels)
    with Image.open(io.BytesIO(file.data), formats=[name]) as image:
        if image.size != (file.width, file.height):
            raise damaged(name, "its header contradicts itself")
        image.load()
        if isinstance(file, Png) and _may_lack_rows(image, file) and not file.is_whole:
            raise damaged(name, "its data ends before its last pixels")
        if isinstance(file, Png) and file.transparent is not None:
            shown = _without_transparent_colour(image, file, file.transparent)
        else:
            shown = _to_rgb(image)
        if isinstance(file, Gif):
            shown = _on_white(shown, file.box)
    return upright(np.asarray(shown), file.orientation)


def _may_lack_rows(image: Image.Image, file: Png) -> bool:
    """Whether the last row is zero, as Pillow leaves it if its data is missing."""
    last = image.crop((0, image.height - 1, image.width, image.height))
    return file.interlaced or last.getbbox(alpha_only=False) is None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow would clip 16-bit grey to 255, which is white; use the upper eight bits instead.
        return _grey(np.asarray(image) >> 8)
    if image.has_transparency_data and not _has_empty_alpha(image):
        # Paste onto white, as CLIPImageProcessor does; dropping alpha would show hidden colours.
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, (_WHITE, _WHITE, _WHITE, _WHITE))
        return Image.alpha_composite(white, layered).convert("RGB")
    return image.convert("RGB")


def _has_empty_alpha(image: Image.Image) -> bool:
    """Whether this is a BMP whose alpha is zero everywhere.

    Programs that do not support alpha leave it at zero; viewers show such a picture as opaque.
    """
    return image.format == "BMP" and image.getchannel("A").getextrema() == (0, 0)


def _without_transparent_colour(
    image: Image.Image, file: Png, transparent: tuple[int, ...]
) -> Image.Image:
    """A grey or colour PNG with its transparent colour (tRNS) replaced by white.

    The colour is compared in the file's own depth, as the standard requires.
    """
    if len(transparent) == 1:
        samples = np.asarray(image if file.depth == 16 else image.convert("L"))
        # Depths below eight bits were spread over all 256 levels.
        value = transparent[0] * (255 // (2**file.depth - 1) if file.depth < 8 else 1)
        levels = samples >> 8 if file.depth == 16 else samples
        return _grey(np.where(samples == value, _WHITE, levels))
    levels = np.asarray(image)
    is_transparent = np.ones(levels.shape[:2], dtype=np.bool_)
    for shift, part in ((8, levels), (0, _low_bytes(file))) if file.depth == 16 else ((0, levels),):
        for channel, value in enumerate(transparent):
            is_transparent &= part[..., channel] == (value >> shift & 0xFF)
    return Image.fromarray(np.where(is_transparent[..., np.newaxis], np.uint8(_WHITE), levels))


def _low_bytes(file: Png) -> NDArray[np.uint8]:
    """The lower halves of a 16-bit colour PNG's samples; Pillow returns the upper ones."""
    with Image.open(io.BytesIO(file.data), formats=["PNG"]) as image:
        image.tile = [tile._replace(args="RGB;16L") for tile in image.tile]
        return np.array(image)


def _grey(levels: NDArray[np.integer]) -> Image.Image:
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8)).convert("RGB")


def _on_white(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """The picture on its canvas; the uncovered part is white, as if transparent."""
    if box == (0, 0, *image.size):
        return image
    canvas = Image.new("RGB", image.size, (_WHITE, _WHITE, _WHITE))
    canvas.paste(image.crop(box), box)
    return canvas
