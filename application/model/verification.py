"""Whether an encoder still returns the same embeddings of a fixed input as when it was loaded."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from application.ports import EncoderPort, PixelBatch, RawEmbeddings
from domain.embedding import Embedding, agrees, smallest_cosine
from domain.errors import EncoderFault
from domain.limits import SMALLEST_COSINE

_TEXTS: Final = ("a photo", "two people in front of a door at night")


class Verification:
    """Remembers the first encoder's embeddings of the test input and compares later ones with them.

    Called from one thread at a time.
    """

    def __init__(self) -> None:
        self._expected: tuple[str, Sequence[Embedding]] | None = None

    def verify(self, encoder: EncoderPort) -> None:
        """Let the encoder embed one image and two texts. Blocks as long as two calls of it.

        An encoder of a different checkpoint replaces the expected embeddings.

        Raises:
            EncoderFault: the result is not embeddings, or differs from the expected ones; or
                whatever the encoder raises.
        """
        embeddings = _embeddings_of_test_input(encoder)
        fingerprint = encoder.description.fingerprint
        if self._expected is None or self._expected[0] != fingerprint:
            self._expected = fingerprint, embeddings
            return
        expected = self._expected[1]
        if not agrees(embeddings, expected):
            raise EncoderFault(
                "its embeddings of the test input differ from before (cosine "
                f"{smallest_cosine(embeddings, expected):.4f}, more than {SMALLEST_COSINE} is "
                "needed)"
            )


def check_shape(encoder: EncoderPort, rows: RawEmbeddings, count: int) -> None:
    """Check that the encoder returned ``count`` rows of the right dimension.

    Raises:
        EncoderFault: it did not.
    """
    expected = (count, encoder.description.embedding_dimension)
    if rows.shape != expected:
        raise EncoderFault(f"the encoder returned shape {rows.shape} instead of {expected}")


def _embeddings_of_test_input(encoder: EncoderPort) -> list[Embedding]:
    # One image, since an engine may have been built for just one.
    return [
        *_embeddings(
            encoder, encoder.encode_images(_image(encoder.description.image_input.size)), 1
        ),
        *_embeddings(encoder, encoder.encode_texts(_TEXTS), len(_TEXTS)),
    ]


def _embeddings(encoder: EncoderPort, rows: RawEmbeddings, count: int) -> list[Embedding]:
    check_shape(encoder, rows, count)
    return [Embedding.from_encoder(row) for row in rows]


def _image(size: int) -> PixelBatch:
    """Waves, of a different length in each channel, in the range of normalised pixels."""
    place = np.arange(size, dtype=np.float32) / size
    return np.stack(
        [
            1.5 * np.outer(np.sin(2 * np.pi * waves * place), np.cos(2 * np.pi * waves * place))
            for waves in (1, 3, 5)
        ]
    )[np.newaxis].astype(np.float32)
