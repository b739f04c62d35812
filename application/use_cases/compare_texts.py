"""Use case: how well texts describe an image."""

from collections.abc import Sequence

from application.inference.inference import Inference
from domain.wording import check_text, check_texts


class CompareTexts:
    """Answers ``POST /similarity`` and ``POST /batch-similarity``."""

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
