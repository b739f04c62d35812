"""What a request does: take a lease, have something encoded, give the lease back."""

from collections.abc import Sequence

from application.inference.batcher import Batcher
from application.inference.inference import ImageEmbeddings, ImagePreparation, Outcome
from application.inference.text_cache import TextEmbeddings
from application.model.supervisor import Supervisor
from application.ports import UNOBSERVED, ImagePreparationPort, ObserverPort, Pixels
from domain.embedding import Embedding


class Requests:
    """Requests to one encoder, each with a lease of its own."""

    def __init__(
        self, model: Supervisor, *, max_batch: int = 4, observer: ObserverPort = UNOBSERVED
    ) -> None:
        self.model = model
        self.batcher = Batcher(model, max_batch=max_batch, observer=observer)

    async def encode_image(self, pixels: Pixels) -> Embedding:
        async with self.model.lease() as lease:
            return await self.batcher.encode_image(pixels, lease)

    async def encode_texts(self, texts: Sequence[str]) -> list[Embedding]:
        async with self.model.lease() as lease:
            return await self.batcher.encode_texts(texts, lease)

    def close(self) -> None:
        self.model.close()


class TextRequests:
    """Requests for the embeddings of texts, through the cache."""

    def __init__(
        self, requests: Requests, *, capacity: int = 10, observer: ObserverPort = UNOBSERVED
    ) -> None:
        self._model = requests.model
        self.cache = TextEmbeddings(requests.batcher, capacity=capacity, observer=observer)

    async def encode(self, texts: Sequence[str]) -> list[Embedding]:
        async with self._model.lease() as lease:
            return await self.cache.encode(texts, lease)


class ImageRequests:
    """Requests for the embeddings of many image files."""

    def __init__(
        self, requests: Requests, port: ImagePreparationPort, *, at_once: int, group: int
    ) -> None:
        self._model = requests.model
        self._preparation = ImagePreparation(port, at_once=at_once)
        self.images = ImageEmbeddings(self._preparation, requests.batcher, group=group)

    async def encode_each(self, files: Sequence[bytes]) -> list[Outcome]:
        async with self._model.lease() as lease:
            return await self.images.encode_each(files, lease)

    async def encode_all(self, files: dict[str, bytes]) -> list[Embedding]:
        async with self._model.lease() as lease:
            return await self.images.encode_all(files, lease)

    async def close(self) -> None:
        await self._preparation.close()
