"""A fixed input that an encoder must always make the same of."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from application.ports import EncoderPort, PixelBatch, RawEmbeddings
from domain.embedding import Embedding, smallest_cosine
from domain.errors import EncoderFault
from domain.limits import IMAGE_SIZE, SMALLEST_COSINE

_TEXTS: Final = ("a photo", "two people in front of a door at night")


def self_test(encoder: EncoderPort) -> list[Embedding]:
    """What the encoder makes of one image and two texts. Blocks as long as two calls of it.

    Raises:
        EncoderFault: something that is no embedding; or whatever the encoder raises.
    """
    # One image, since an engine may have been built for no more.
    return [
        *_embeddings(encoder, encoder.encode_images(_image()), 1),
        *_embeddings(encoder, encoder.encode_texts(_TEXTS), len(_TEXTS)),
    ]


def check_agreement(made: Sequence[Embedding], expected: Sequence[Embedding]) -> None:
    """Check that both are of the same encoder, whatever precision and backend it had.

    Raises:
        EncoderFault: they are not; says how far they are apart.
    """
    cosine = smallest_cosine(made, expected)
    if not cosine >= SMALLEST_COSINE:
        raise EncoderFault(
            f"of the same input it made something else than before (cosine {cosine:.4f}, "
            f"at least {SMALLEST_COSINE} is needed)"
        )


def _embeddings(encoder: EncoderPort, rows: RawEmbeddings, count: int) -> list[Embedding]:
    check_shape(encoder, rows, count)
    return [Embedding.from_encoder(row) for row in rows]


def check_shape(encoder: EncoderPort, rows: RawEmbeddings, count: int) -> None:
    """Check that the encoder returned ``count`` rows of its dimension.

    Raises:
        EncoderFault: it did not.
    """
    expected = (count, encoder.description.embedding_dimension)
    if rows.shape != expected:
        raise EncoderFault(f"the encoder returned shape {rows.shape} instead of {expected}")


def _image() -> PixelBatch:
    """Waves of another length in each channel, in the range of normalised pixels."""
    place = np.arange(IMAGE_SIZE, dtype=np.float32) / IMAGE_SIZE
    return np.stack(
        [
            1.5 * np.outer(np.sin(2 * np.pi * waves * place), np.cos(2 * np.pi * waves * place))
            for waves in (1, 3, 5)
        ]
    )[np.newaxis].astype(np.float32)
