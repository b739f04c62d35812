"""Real photos for the tests, and ways to turn them into files."""

import base64
import functools
import io
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont


@functools.cache
def photos() -> dict[str, Image.Image]:
    """Six photos that come with scikit-learn and scikit-image, in RGB."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    china, flower = load_sample_images().images
    arrays = {
        "china": china,
        "flower": flower,
        "astronaut": data.astronaut(),
        "cat": data.chelsea(),
        "coffee": data.coffee(),
        "rocket": data.rocket(),
    }
    return {name: Image.fromarray(np.asarray(array)) for name, array in arrays.items()}


def photo(name: str = "astronaut") -> Image.Image:
    """One of the photos."""
    return photos()[name]


def as_file(image: Image.Image, file_format: str = "JPEG", **options: Any) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def as_base64(image: Image.Image, file_format: str = "JPEG", **options: Any) -> str:
    """The file as base64, as a request holds it."""
    return base64.b64encode(as_file(image, file_format, **options)).decode()


def plain(red: int, green: int, blue: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    """An image of one colour."""
    return Image.new("RGB", size, (red, green, blue))


def page_of_text(width: int, height: int, letters: int) -> Image.Image:
    """Black lines on white, with letters of so many pixels: the finest detail there is."""
    page = Image.new("RGB", (width, height), "white")
    font = ImageFont.load_default(size=letters)
    line = "the quick brown fox 0123456789 " * 20
    for top in range(0, height, letters + 6):
        ImageDraw.Draw(page).text((4, top), line, "black", font=font)
    return page


def large_pictures() -> dict[str, Image.Image]:
    """Photos and pages of fine text, larger than any image tower takes by twice and more."""
    sizes = ((1280, 960), (2560, 1440))
    found = {
        f"{name} {width}": image.resize((width, height), Image.Resampling.LANCZOS)
        for name, image in photos().items()
        for width, height in sizes
    }
    for width, height in sizes:
        for letters in (8, 14):
            found[f"text {letters} {width}"] = page_of_text(width, height, letters)
    return found
