"""Use case: the embedding of one image."""

from application.inference.inference import Inference
from domain.embedding import Embedding


class EmbedImage:
    """Answers ``POST /embed``."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    async def __call__(self, image: bytes) -> Embedding:
        """Embed one image file. Raises as `Inference` says."""
        return await self._inference.embed_image(image)
