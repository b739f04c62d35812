"""An image file to the pixels that the image tower sees, as eight-bit levels.

`decode_picture` is a pure function of the file's bytes, so that it can run in a worker process.
"""

import io
import warnings
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from adapters.images.headers import (
    check_gif,
    check_jpeg,
    check_png,
    format_of,
    other_format_of,
    webp_size,
)
from adapters.images.preprocessing import central_square
from domain.errors import ImageTooLarge, InvalidImage
from domain.limits import (
    IMAGE_FORMATS,
    IMAGE_SIZE,
    MAX_DECODED_PIXELS,
    MAX_IMAGE_BYTES,
    MAX_IMAGE_SIDE,
)

_ALLOWED: Final = ", ".join(IMAGE_FORMATS)

_DRAFT_SCALE: Final = 2
"""JPEGs are decoded at 1/2, 1/4 or 1/8 while both sides stay at least this many times ``size``.

Twice what is needed, so that the resizing filter still has enough to work on.
"""

_CHECKS: Final = {"JPEG": check_jpeg, "GIF": check_gif, "PNG": check_png}
"""What is looked at before the decoder, by format."""

_NO_MEMORY: Final = "out of memory"
"""How an `OSError` of a decoder begins that could not allocate (libImaging's Imaging.h: -9)."""

# Sizes are checked here against the contract's own, smaller limit, with the contract's own error.
Image.MAX_IMAGE_PIXELS = None
# Registers the decoders now rather than in the first request, where threads would race to do it.
Image.init()
# Pillow warns of each damaged EXIF entry. Python keeps every different text for good, so that files
# made for it would fill the log and then the memory.
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode_picture(
    data: bytes, *, size: int = IMAGE_SIZE, max_pixels: int = MAX_DECODED_PIXELS
) -> NDArray[np.uint8]:
    """Check, decode, turn upright, resize and crop one image file.

    Args:
        data: the file's bytes.
        size: pixels of each side of the result.
        max_pixels: how many pixels may be decoded; of a JPEG those that are left of it at 1/2,
            1/4 or 1/8 of its size.

    Returns:
        uint8 ``[size, size, 3]``, RGB, C-contiguous: the short side resized to ``size``, and of
        the long one the middle.

    Raises:
        ImageTooLarge: more bytes than allowed.
        InvalidImage: not an image, format not allowed, too many pixels, or damaged.
        MemoryError: there is not enough to decode it; says nothing about the image.
    """
    if len(data) > MAX_IMAGE_BYTES:
        raise ImageTooLarge(
            f"image is {len(data)} bytes as a file (base64 not counted); "
            f"at most {MAX_IMAGE_BYTES} bytes (10 MiB) are allowed."
        )
    if not data:
        raise InvalidImage("image is empty; it must hold an image file.", code="not_an_image")
    file_format = _checked_format(data)
    with _open(data, file_format) as image:
        _check_size(image.size)
        # Reduces JPEGs while they are decoded, to no less than this size; others ignore it.
        image.draft(None, (_DRAFT_SCALE * size, _DRAFT_SCALE * size))
        _check_pixels(image.size, max_pixels)
        return np.array(central_square(_decode_rgb(image), size))


def _checked_format(data: bytes) -> str:
    """Which of Pillow's decoders the file is for, told before any of them sees it."""
    if (file_format := format_of(data)) is None:
        if (other := other_format_of(data)) is not None:
            raise InvalidImage(
                f"image is {other}; only {_ALLOWED} are allowed.", code="unsupported_format"
            )
        raise InvalidImage(
            f"image is not an image file that can be read; {_ALLOWED} are allowed.",
            code="not_an_image",
        )
    if (check := _CHECKS.get(file_format)) is not None:
        check(data)
    elif file_format == "WEBP" and (size := webp_size(data)) is not None:
        # Its decoder makes room for two whole pictures as soon as it is opened.
        _check_size(size)
    return file_format


def _open(data: bytes, file_format: str) -> Image.Image:
    """Read the header only; no pixel is decoded. Pillow's JPEG decoder is the one for MPO."""
    try:
        return Image.open(io.BytesIO(data), formats=[file_format])
    except MemoryError:  # the machine's fault, not the file's
        raise
    except UnidentifiedImageError:
        raise InvalidImage(
            f"image begins like {file_format} and has a damaged header.", code="damaged_image"
        ) from None
    except Exception as damaged:  # Pillow's parsers raise whatever a damaged header leads to
        raise InvalidImage(
            f"image has a damaged header ({type(damaged).__name__}).", code="damaged_image"
        ) from damaged


def _check_size(size: tuple[int, int]) -> None:
    width, height = size
    if width > MAX_IMAGE_SIDE or height > MAX_IMAGE_SIDE:
        raise InvalidImage(
            f"image is {width} x {height} pixels; "
            f"at most {MAX_IMAGE_SIDE} x {MAX_IMAGE_SIDE} are allowed.",
            code="too_many_pixels",
        )
    if width < 1 or height < 1:
        raise InvalidImage(
            f"image is {width} x {height} pixels; it must have at least one.", code="damaged_image"
        )


def _check_pixels(size: tuple[int, int], limit: int) -> None:
    width, height = size
    if width * height > limit:
        raise InvalidImage(
            f"image has {width * height} pixels to decode ({width} x {height}); "
            f"at most {limit} are allowed.",
            code="too_many_pixels",
        )


def _decode_rgb(image: Image.Image) -> Image.Image:
    """All pixels, upright, in RGB. Of an animation or a multi-picture file, the first frame."""
    try:
        image.load()
        # As every viewer shows it; `transformers` turns images likewise when it loads them.
        upright = ImageOps.exif_transpose(image)
        return _to_rgb(upright)
    except MemoryError:  # the machine's fault, not the file's
        raise
    except Exception as damaged:  # decoders raise OSError, SyntaxError, struct.error, …
        if str(damaged).startswith(_NO_MEMORY):
            raise MemoryError from damaged
        raise InvalidImage(
            f"image ({image.format}) is truncated or damaged: its pixels cannot be decoded.",
            code="damaged_image",
        ) from damaged


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow would clip 16-bit grey to 255, that is to white; the upper eight bits are meant.
        grey = np.asarray(image) >> 8
        return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        # Onto white, as CLIPImageProcessor does; dropping alpha would show hidden colours.
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layered).convert("RGB")
    return image.convert("RGB")
