"""What every encoder promises, put to each of them."""

import numpy as np
import pytest

from adapters.images.preprocessing import normalised, preprocess
from application.ports import EncoderPort, PixelBatch, TokenCount
from tests.support.photos import photos, plain
from tests.support.rows import unit

# How near an embedding made in company is to the same made alone. Another batch size may take
# another kernel, which rounds in another place; bfloat16 rounds to eight bits.
COMPANY = {"fp32": 0.99999, "fp16": 0.99999, "bf16": 0.9999, "int8": 0.9999}

TEXTS = ["a dog", "a delivery truck in front of a house", "fire", "a dog and a cat"]


@pytest.fixture
def dimension(encoder: EncoderPort) -> int:
    return encoder.description.embedding_dimension


@pytest.fixture
def batch(encoder: EncoderPort) -> PixelBatch:
    image_input = encoder.description.image_input
    return np.stack([preprocess(image, image_input) for image in photos().values()])


def test_description_is_complete(encoder: EncoderPort) -> None:
    description = encoder.description
    assert description == encoder.description
    assert description.model
    assert description.fingerprint
    assert description.backend
    assert description.precision in {"fp32", "fp16", "bf16", "int8"}
    assert description.embedding_dimension > 0
    assert description.context_length > 0
    assert np.isfinite(description.logit_scale)
    assert description.logit_scale > 0


def test_one_finite_row_per_image_in_float32(
    encoder: EncoderPort, batch: PixelBatch, dimension: int
) -> None:
    rows = encoder.encode_images(batch)
    assert rows.shape == (len(batch), dimension)
    assert rows.dtype == np.float32
    assert np.isfinite(rows).all()
    assert (np.linalg.norm(rows, axis=1) > 0).all()


def test_one_finite_row_per_text_in_float32(encoder: EncoderPort, dimension: int) -> None:
    rows = encoder.encode_texts(TEXTS)
    assert rows.shape == (len(TEXTS), dimension)
    assert rows.dtype == np.float32
    assert np.isfinite(rows).all()
    assert (np.linalg.norm(rows, axis=1) > 0).all()


def test_nothing_in_nothing_out(encoder: EncoderPort, batch: PixelBatch, dimension: int) -> None:
    assert encoder.encode_images(batch[:0]).shape == (0, dimension)
    assert encoder.encode_texts([]).shape == (0, dimension)


def test_levels_and_normalised_pixels_are_the_same_image(encoder: EncoderPort) -> None:
    side = encoder.description.image_input.size
    levels = np.random.default_rng(5).integers(0, 256, (3, 3, side, side), dtype=np.uint8)
    levels.flags.writeable = False  # as what comes from a socket
    expected = unit(encoder.encode_images(normalised(levels)))
    cosines = (unit(encoder.encode_images(levels)) * expected).sum(axis=1)
    assert cosines.min() > COMPANY[encoder.description.precision]
    assert encoder.encode_images(levels[:0]).shape == (0, len(expected[0]))


def test_same_input_same_embedding(encoder: EncoderPort, batch: PixelBatch) -> None:
    np.testing.assert_array_equal(encoder.encode_images(batch), encoder.encode_images(batch))
    np.testing.assert_array_equal(encoder.encode_texts(TEXTS), encoder.encode_texts(TEXTS))


def test_different_images_different_embeddings(encoder: EncoderPort, batch: PixelBatch) -> None:
    cosines = _off_diagonal(unit(encoder.encode_images(batch)))
    assert cosines.max() < 0.9999


def test_different_texts_different_embeddings(encoder: EncoderPort) -> None:
    assert _off_diagonal(unit(encoder.encode_texts(TEXTS))).max() < 0.9999


def test_company_changes_no_image(encoder: EncoderPort, batch: PixelBatch) -> None:
    together = unit(encoder.encode_images(batch))
    alone = unit(
        np.concatenate([encoder.encode_images(batch[n : n + 1]) for n in range(len(batch))])
    )
    assert (together * alone).sum(axis=1).min() > COMPANY[encoder.description.precision]


def test_company_changes_no_text(encoder: EncoderPort) -> None:
    texts = [*TEXTS, "a person " * 40, *(f"number {n}" for n in range(70))]
    together = unit(encoder.encode_texts(texts))
    alone = unit(np.concatenate([encoder.encode_texts([text]) for text in texts]))
    assert (together * alone).sum(axis=1).min() > COMPANY[encoder.description.precision]


def test_order_is_kept(encoder: EncoderPort, batch: PixelBatch) -> None:
    forward = encoder.encode_images(batch)
    backward = encoder.encode_images(np.ascontiguousarray(batch[::-1]))
    np.testing.assert_allclose(forward, backward[::-1], atol=1e-4)
    forward = encoder.encode_texts(TEXTS)
    np.testing.assert_allclose(forward, encoder.encode_texts(TEXTS[::-1])[::-1], atol=1e-4)


def test_upper_and_lower_case_are_one(encoder: EncoderPort) -> None:
    rows = encoder.encode_texts(["A Delivery TRUCK", "a delivery truck"])
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-5)


def test_what_follows_the_last_token_of_the_context_counts_for_nothing(
    encoder: EncoderPort,
) -> None:
    whole = longest_text(encoder)
    rows = encoder.encode_texts([whole, whole + "cat", whole + "dog " * 5000, whole[4:] + "cat"])
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-5)
    np.testing.assert_allclose(rows[0], rows[2], atol=1e-5)
    assert unit(rows)[0] @ unit(rows)[3] < 0.99999


def test_tokens_are_counted_before_and_after_they_are_encoded(encoder: EncoderPort) -> None:
    context = encoder.description.context_length
    texts = ["dog", longest_text(encoder) + "cat and dog"]
    before = encoder.count_tokens(texts)
    assert context < before.read < 2 * context
    assert before.cut > 0
    encoder.encode_texts(texts)
    assert encoder.count_tokens(texts) == before
    assert encoder.count_tokens([]) == TokenCount(0, 0)


def longest_text(encoder: EncoderPort) -> str:
    """Words that are together as many tokens as the text tower reads."""
    context = encoder.description.context_length
    for count in range(1, 500):
        text = "dog " * count
        if encoder.count_tokens([text]) == TokenCount(context, 0):
            return text
    raise AssertionError("no number of words is so many tokens")


@pytest.mark.parametrize("text", ["日本語 🎉", "\u0000", "&amp;&lt;", "<end_of_text>", "é" * 4000])
def test_odd_texts_have_embeddings(encoder: EncoderPort, text: str) -> None:
    assert np.isfinite(encoder.encode_texts([text])).all()


def test_plain_images_have_embeddings(encoder: EncoderPort) -> None:
    image_input = encoder.description.image_input
    colours = (plain(0, 0, 0), plain(255, 255, 255))
    batch = np.stack([preprocess(colour, image_input) for colour in colours])
    rows = encoder.encode_images(batch)
    assert np.isfinite(rows).all()
    assert not np.array_equal(rows[0], rows[1])


def test_memory_is_told_only_where_there_is_a_device(encoder: EncoderPort) -> None:
    used = encoder.device_memory_used()
    if encoder.description.device.cuda_available:
        assert used is not None
        assert used > 0
    else:
        assert used is None


def _off_diagonal(rows: np.ndarray) -> np.ndarray:
    cosines = rows @ rows.T
    return np.asarray(cosines[~np.eye(len(rows), dtype=bool)])
