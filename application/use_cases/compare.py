"""Use cases: how well texts describe an image; whether two sightings show the same object."""

from collections.abc import Sequence
from typing import TypeAlias

from application.inference.inference import Inference
from domain.embedding import Embedding
from domain.reidentification import SAME_ENTITY_THRESHOLD, Match, check_match_threshold, match
from domain.wording import check_text, check_texts


class CompareTexts:
    """Serves ``POST /similarity`` and ``POST /batch-similarity``."""

    def __init__(self, inference: Inference, *, max_texts: int) -> None:
        self._inference = inference
        self._max_texts = max_texts

    async def one(self, image: bytes, text: str) -> float:
        """Cosine in [-1, 1] of one image file and one text.

        Raises:
            InvalidTexts: the text is blank. Else as `Inference` says.
        """
        check_text(text)
        return (await self._cosines(image, [text]))[0]

    async def many(self, image: bytes, texts: Sequence[str]) -> dict[str, float]:
        """Text → cosine in [-1, 1], in the order given.

        Args:
            image: the file's bytes.
            texts: 1 to ``max_texts`` different texts, none blank.

        Raises:
            InvalidTexts: the texts break a rule. Else as `Inference` says.
        """
        check_texts(texts, limit=self._max_texts)
        return dict(zip(texts, await self._cosines(image, texts), strict=True))

    async def _cosines(self, image: bytes, texts: Sequence[str]) -> list[float]:
        embedding, text_embeddings = await self._inference.embed_image_and_texts(image, texts)
        return [embedding.cosine(text) for text in text_embeddings]


Sighting: TypeAlias = bytes | Sequence[float]
"""An image file's bytes, or the numbers of an existing embedding."""


class CompareSightings:
    """Serves ``POST /compare``."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    async def __call__(
        self, a: Sighting, b: Sighting, *, threshold: float = SAME_ENTITY_THRESHOLD
    ) -> Match:
        """Compare two sightings; two images are encoded together.

        Args:
            a: one sighting.
            b: the other.
            threshold: cosine in [-1, 1]; from this value on they count as the same.

        Raises:
            InvalidThreshold: outside of [-1, 1].
            InvalidEmbedding: wrong count, a number that is not finite, or all zeros. Else as
                `Inference` says; errors name ``image_a`` or ``image_b``.
        """
        check_match_threshold(threshold)
        sightings = {"a": a, "b": b}
        vectors = [sighting for sighting in (a, b) if not isinstance(sighting, bytes)]
        dimension = self._inference.dimension_of(vectors[0]) if vectors else 0
        known = {
            side: Embedding.from_numbers(sighting, dimension=dimension, name=f"embedding_{side}")
            for side, sighting in sightings.items()
            if not isinstance(sighting, bytes)
        }
        files = {
            side: sighting for side, sighting in sightings.items() if isinstance(sighting, bytes)
        }
        if files:
            embeddings, _ = await self._inference.embed_all(
                {f"image_{side}": file for side, file in files.items()}
            )
            known.update(zip(files, embeddings, strict=True))
        return match(known["a"], known["b"], threshold=threshold)
