"""Use case: the embeddings of several images, each of which may fail on its own."""

from collections.abc import Sequence
from typing import TypeAlias

from application.inference.inference import Inference
from domain.counts import check_image_count
from domain.embedding import Embedding
from domain.errors import EncoderFault, InvalidInput

EmbeddedImage: TypeAlias = Embedding | InvalidInput | EncoderFault
"""An embedding, or why this image has none."""


class EmbedImages:
    """Answers ``POST /embed/batch``."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    async def __call__(self, images: Sequence[bytes | InvalidInput]) -> list[EmbeddedImage]:
        """Embed 1 to `MAX_IMAGES` image files.

        Args:
            images: the files' bytes; or, where a client's file could not even be read, why not.

        Returns:
            One for each image, in their order.

        Raises:
            InvalidImages: none or too many. Else as `Inference` says, but for what is wrong with
                single images.
        """
        check_image_count(len(images))
        files = [image for image in images if isinstance(image, bytes)]
        outcomes = iter(await self._inference.embed_each_image(files) if files else [])
        return [_told(next(outcomes)) if isinstance(image, bytes) else image for image in images]


def _told(outcome: Embedding | Exception) -> EmbeddedImage:
    """What is to be told of one image; whatever else failed, fails the request."""
    if isinstance(outcome, Embedding | InvalidInput | EncoderFault):
        return outcome
    raise outcome
