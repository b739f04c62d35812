"""Headers that are wrong in any way give pixels or a named error, and nothing else."""

import numpy as np
import pytest

from adapters.images.picture import decode_picture
from domain.errors import InvalidInput
from domain.limits import IMAGE_FORMATS
from tests.support.mutated_pictures import mutations


@pytest.mark.parametrize("file_format", IMAGE_FORMATS)
def test_a_mutated_file_is_decoded_or_refused(file_format: str) -> None:
    decoded = refused = 0
    for data in mutations(file_format, 300):
        try:
            pixels = decode_picture(data)
        except InvalidInput:
            refused += 1
        else:
            assert pixels.shape == (224, 224, 3)
            assert pixels.dtype == np.uint8
            decoded += 1
    assert decoded
    assert refused
