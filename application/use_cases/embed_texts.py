"""Use case: the embeddings of several texts."""

from collections.abc import Sequence

from application.inference.inference import Inference
from domain.embedding import Embedding
from domain.wording import check_each_text


class EmbedTexts:
    """Answers ``POST /embed/text``."""

    def __init__(self, inference: Inference, *, max_texts: int) -> None:
        self._inference = inference
        self._max_texts = max_texts

    async def __call__(self, texts: Sequence[str]) -> list[Embedding]:
        """Embed 1 to ``max_texts`` texts, in their order; one may come twice.

        Raises:
            InvalidTexts: the texts break a rule. Else as `Inference` says.
        """
        check_each_text(texts, limit=self._max_texts)
        _, embeddings = await self._inference.embed_all({}, texts)
        return embeddings
