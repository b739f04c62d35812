"""Real photos for the tests, and ways to turn them into files."""

import base64
import functools
import io
from typing import Any

import numpy as np
from PIL import Image


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
