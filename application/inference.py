"""From an image file and texts to embeddings: admission, preparation, encoding, in that order."""

import asyncio
from collections.abc import Sequence

from application.admission import Admission
from application.encoding_queue import EncodingQueue
from application.image_preparation import ImagePreparation
from application.model_lifecycle import ModelLifecycle
from application.text_embeddings import TextEmbeddings
from domain.embedding import Embedding


class Inference:
    """What every use case that looks at an image is built on.

    All methods raise, besides what each says:

    - ServiceUnavailable: no model is loaded, too many requests are inside, or shutting down;
    - InvalidInput: the image breaks a rule;
    - EncoderFault: the encoder broke its contract.
    """

    def __init__(
        self,
        *,
        admission: Admission,
        model: ModelLifecycle,
        images: ImagePreparation,
        queue: EncodingQueue,
        texts: TextEmbeddings,
    ) -> None:
        self._admission = admission
        self._model = model
        self._images = images
        self._queue = queue
        self._texts = texts

    @property
    def logit_scale(self) -> float:
        """The loaded checkpoint's multiplier of cosines in a classification."""
        return self._model.encoder().description.logit_scale

    async def embed_image(self, image: bytes) -> Embedding:
        """Embedding of one image file."""
        with self._admission.admit():
            self._model.encoder()  # without a model, refuse before any work is done
            return await self._queue.encode_image(await self._images.prepare(image))

    async def embed_image_and_texts(
        self, image: bytes, texts: Sequence[str]
    ) -> tuple[Embedding, list[Embedding]]:
        """Embedding of one image file, and of each text in its order."""
        with self._admission.admit():
            self._model.encoder()
            pixels = await self._images.prepare(image)
            return await asyncio.gather(self._queue.encode_image(pixels), self._texts.encode(texts))
