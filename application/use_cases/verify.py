"""Use case: check whether another server returns a checkpoint's correct embeddings."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from application.ports import EncoderPort, Pixels, ServerFailure
from domain.embedding import Embedding
from domain.limits import SMALLEST_COSINE

EXACT: Final = 0.9999
"""Two embeddings with at least this cosine differ only by rounding."""

EXPLAINED: Final = 0.999
"""A deviation that reaches this cosine is taken as what the server does."""

_LARGEST_TEXT_DIFFERENCE: Final = 0.01
"""Largest allowed difference of an image-text cosine; bf16 changes it by less."""


class EmbeddingServerPort(ABC):
    """A running server of the contract."""

    @abstractmethod
    def embed(self, image: bytes) -> Sequence[float]:
        """The embedding of an image file.

        Raises:
            ServerFailure: the response is not an embedding; says what it is.
        """

    @abstractmethod
    def cosines(self, image: bytes, texts: Sequence[str]) -> Mapping[str, float]:
        """Cosine of the image with each text. Raises as `embed` does."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """A mistake that a server may make with pictures.

    Attributes:
        stage: where it happens, such as ``filter``.
        what: the mistake, in words that complete "the server ...".
        prepare: makes the mistake: turns an image file into pixels for the encoder.
    """

    stage: str
    what: str
    prepare: Callable[[bytes], Pixels]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How a server's embeddings compare with the checkpoint's own.

    Attributes:
        pictures: name → cosine with the reference.
        texts: name → difference of its cosine with a picture from the reference's.
        deviation: explains the difference of the pictures; None if nothing known does, or there is
            no difference.
        explained: the smallest cosine of the pictures once that is taken into account.
    """

    pictures: Mapping[str, float]
    texts: Mapping[str, float]
    deviation: Deviation | None
    explained: float

    @property
    def pictures_agree(self) -> bool:
        """Whether the embeddings can be compared with the reference's."""
        return min(self.pictures.values()) > SMALLEST_COSINE and self.deviation is None

    @property
    def only_rounded(self) -> bool:
        """Whether they differ by no more than a change of precision would cause."""
        return self.pictures_agree and min(self.pictures.values()) <= EXACT

    @property
    def texts_agree(self) -> bool:
        """Whether texts have the reference's cosines."""
        return max(self.texts.values()) <= _LARGEST_TEXT_DIFFERENCE


class VerifyServer:
    """Serves ``clip-server verify``. Calls block."""

    def __init__(
        self,
        encoder: EncoderPort,
        prepare: Callable[[bytes], Pixels],
        deviations: Sequence[Deviation],
    ) -> None:
        """Make one.

        Args:
            encoder: the checkpoint's, in float32.
            prepare: turns an image file into pixels, the correct way.
            deviations: mistakes that a server may make instead.
        """
        self._encoder = encoder
        self._prepare = prepare
        self._deviations = deviations

    def __call__(
        self,
        server: EmbeddingServerPort,
        pictures: Mapping[str, bytes],
        texts: Mapping[str, str],
    ) -> Agreement:
        """Get all embeddings from the server and compare them.

        Args:
            server: the server to verify.
            pictures: name → image file; at least one.
            texts: name → text; at least one.

        Raises:
            ServerFailure: it does not respond, or its response breaks the contract.
        """
        dimension = self._encoder.description.embedding_dimension
        found: dict[str, Embedding] = {}
        for name, data in pictures.items():
            numbers = server.embed(data)
            if len(numbers) != dimension:
                raise ServerFailure(
                    f"its embeddings have {len(numbers)} numbers, and those of "
                    f"{self._encoder.description.model} have {dimension}: it serves another model."
                )
            found[name] = Embedding.from_numbers(numbers, dimension=dimension, name=name)
        cosines = self._cosines(found, pictures, self._prepare)
        deviation, explained = None, min(cosines.values())
        if explained <= EXACT:
            deviation, explained = self._best_explanation(found, pictures, explained)
        return Agreement(cosines, self._texts(server, found, pictures, texts), deviation, explained)

    def _best_explanation(
        self, found: Mapping[str, Embedding], pictures: Mapping[str, bytes], smallest: float
    ) -> tuple[Deviation | None, float]:
        """The deviation with which the pictures agree best, if they do, and how well they agree."""
        tried = [
            (min(self._cosines(found, pictures, deviation.prepare).values()), deviation)
            for deviation in self._deviations
        ]
        best, deviation = max(tried, key=lambda each: each[0])
        # It must explain half of the difference, or rounding would be taken for a cause.
        if best > EXPLAINED and 1 - best < (1 - smallest) / 2:
            return deviation, best
        return None, smallest

    def _cosines(
        self,
        found: Mapping[str, Embedding],
        pictures: Mapping[str, bytes],
        prepare: Callable[[bytes], Pixels],
    ) -> dict[str, float]:
        cosines = {}
        for name, data in pictures.items():  # one by one: memory, and an engine's largest batch
            (row,) = self._encoder.encode_images(prepare(data)[np.newaxis])
            cosines[name] = Embedding.from_encoder(row).cosine(found[name])
        return cosines

    def _texts(
        self,
        server: EmbeddingServerPort,
        found: Mapping[str, Embedding],
        pictures: Mapping[str, bytes],
        texts: Mapping[str, str],
    ) -> dict[str, float]:
        """Compared with the server's own image, so that a wrong picture does not count twice."""
        name, data = next(iter(pictures.items()))
        rows = self._encoder.encode_texts(list(texts.values()))
        expected = [Embedding.from_encoder(row).cosine(found[name]) for row in rows]
        said = server.cosines(data, list(texts.values()))
        differences = {}
        for (label, text), cosine in zip(texts.items(), expected, strict=True):
            if text not in said:
                raise ServerFailure(f"/batch-similarity leaves out the text {text[:40]!r}.")
            differences[label] = abs(said[text] - cosine)
        return differences
