"""Several callers' images in one batch of a replica: whose rows, and whose failure."""

import numpy as np

from adapters.ray.remote_encoder import RemoteEmbeddings
from adapters.ray.shared_batch import encode_together
from application.ports import PixelBatch
from domain.errors import EncoderFault
from tests.support.encoders import RecordingEncoder, pixels_of, vector_of


def call(*numbers: float) -> PixelBatch:
    return np.stack([pixels_of(number) for number in numbers])


def test_everyone_gets_their_own_rows_of_one_batch() -> None:
    encoder = RecordingEncoder()
    responses = encode_together(encoder, [call(1), call(20, 21, 22), call(3, 4)])
    assert encoder.image_batches == [[1, 20, 21, 22, 3, 4]]
    for response, numbers in zip(responses, ([1], [20, 21, 22], [3, 4]), strict=True):
        assert isinstance(response, RemoteEmbeddings)
        assert response.fingerprint == "r"
        np.testing.assert_allclose(response.rows, [vector_of(number) for number in numbers])


def test_one_callers_bad_image_fails_that_caller_alone() -> None:
    encoder = RecordingEncoder()
    encoder.poison = 20.0
    first, bad, last = encode_together(encoder, [call(10), call(19, 20), call(30)])
    assert isinstance(bad, RuntimeError)
    for response, number in ((first, 10), (last, 30)):
        assert isinstance(response, RemoteEmbeddings)
        np.testing.assert_allclose(response.rows, [vector_of(number)])


def test_a_row_too_few_reaches_nobody() -> None:
    encoder = RecordingEncoder()
    encoder.response = lambda rows: rows[1:]
    responses = encode_together(encoder, [call(1), call(2, 3)])
    assert all(isinstance(response, EncoderFault) for response in responses)
