"""How near the embedding of a JPEG decoded at a reduced size is to that of all its pixels."""

import io
from collections.abc import Mapping

import numpy as np
from PIL import Image

from adapters.images.pillow_preparation import prepare_picture
from adapters.images.preprocessing import preprocess
from application.ports import EncoderPort
from tests.support.photos import as_file
from tests.support.rows import smallest_cosine


def cosines(encoder: EncoderPort, pictures: Mapping[str, Image.Image]) -> dict[str, float]:
    """By picture name; the pictures are large enough to be reduced."""
    found = {}
    for name, picture in pictures.items():
        data = as_file(picture, quality=90)
        reduced = prepare_picture(data)[np.newaxis]
        with Image.open(io.BytesIO(data)) as file:
            whole = preprocess(file.convert("RGB"))[np.newaxis]
        rows = encoder.encode_images(reduced), encoder.encode_images(whole)
        assert not np.array_equal(*rows), f"{name} was not reduced"
        found[name] = smallest_cosine(*rows)
    return found
