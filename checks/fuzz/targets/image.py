"""Image files: levels for the model, or the error that says what is wrong. Nothing else."""

from collections.abc import Iterator

import numpy as np

from adapters.images.pillow_preparation import prepare_picture
from domain.errors import InvalidInput
from domain.limits import IMAGE_FORMATS
from tests.support import hostile_files as files
from tests.support.photos import as_file


def run(data: bytes) -> None:
    try:
        pixels = prepare_picture(data)
    except InvalidInput:
        return
    assert pixels.shape == (3, 224, 224)
    assert pixels.dtype == np.uint8


def seeds() -> Iterator[bytes]:
    yield from (files.tiny(name) for name in IMAGE_FORMATS)
    for mode in ("1", "L", "LA", "P", "RGBA"):
        yield as_file(files.TINY.convert(mode), "PNG")
    yield files.png(16, 16, depth=16, colour=0)
    yield as_file(files.TINY, "JPEG", progressive=True)
    yield as_file(files.TINY.convert("CMYK"), "JPEG")
    yield as_file(files.TINY.convert("RGBA"), "WEBP", lossless=True)
    yield as_file(files.TINY, "GIF", save_all=True, append_images=[files.TINY.rotate(90)])
    yield files.exif_in_png(files.looping_exif())
    yield files.exif_in_png(files.counting_exif())
    yield files.multi_picture(2, offset=0)
    yield files.webp_animation(2, 16)
    yield files.gif(1, 1, (16, 16))
    yield files.bmp(16, 16, 8, compression=1, data=b"\x02\x05\0\0\0\2\1\1\0\1")
    yield files.bmp(16, 16, 4, compression=2, data=b"\x02\x05\0\0\0\3\1\1\0\1")
    yield files.png(16, 16, depth=16, colour=6, interlaced=True)
