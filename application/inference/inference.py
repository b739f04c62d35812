"""From image files and texts to embeddings: admission, preparation, encoding, in that order."""

import asyncio
import copy
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Self

from application.inference.admission import Admission
from application.inference.batcher import Batcher
from application.inference.image_embeddings import ImageEmbeddings, Outcome
from application.inference.image_preparation import ImagePreparation
from application.inference.text_cache import TextEmbeddings
from application.model.states import Lease
from application.model.supervisor import Supervisor
from application.ports import EncoderDescription, TokenCount
from domain.embedding import Embedding
from domain.limits import TEXTS_AT_ONCE


class Inference:
    """What all use cases that embed something are built on.

    All methods raise, besides what each says:

    - ServiceUnavailable: no model is loaded, too many requests are inside, or shutting down;
    - InvalidInput: the image breaks a rule;
    - EncoderFault: the encoder returned something that is not an embedding.
    """

    def __init__(
        self,
        *,
        admission: Admission,
        model: Supervisor,
        images: ImagePreparation,
        batcher: Batcher,
        many_images: ImageEmbeddings,
        texts: TextEmbeddings,
        promised_dimension: int | None = None,
    ) -> None:
        """Join the parts.

        Args:
            admission: refuses what is too much.
            model: has the encoder.
            images: prepares them.
            batcher: encodes them.
            many_images: prepares and encodes several.
            texts: encodes texts, or knows them.
            promised_dimension: numbers in every embedding, whatever is loaded; None: the model's.
        """
        self._promised_dimension = promised_dimension
        self._admission = admission
        self._model = model
        self._images = images
        self._batcher = batcher
        self._many_images = many_images
        self._texts = texts
        self._client = ""

    def asked_by(self, client: str) -> Self:
        """The same for the requests of one client, who takes turns with the others.

        Args:
            client: see `Lease`.
        """
        view = copy.copy(self)
        view._client = client
        return view

    @property
    def encoder(self) -> EncoderDescription:
        """What is loaded, or was and is loaded again for the next request that embeds something."""
        return self._model.described()

    @property
    def embedding_dimension(self) -> int:
        """Numbers in an embedding: as was promised, else as the model has it."""
        return self._promised_dimension or self.encoder.embedding_dimension

    def dimension_of(self, embedding: Sequence[float]) -> int:
        """Numbers in an embedding; while neither a promise nor a model says it, as many as here.

        For what needs no model: embeddings that are compared with each other alone.
        """
        if self._promised_dimension is None and self._model.description is None:
            return len(embedding)
        return self.embedding_dimension

    async def embed_image(self, image: bytes) -> Embedding:
        """Embedding of one image file."""
        async with self._admitted() as lease:
            pixels = await self._images.prepare(image, lease.image_input, client=lease.client)
            return await self._batcher.encode_image(pixels, lease)

    async def embed_image_and_texts(
        self, image: bytes, texts: Sequence[str]
    ) -> tuple[Embedding, list[Embedding]]:
        """Embedding of one image file, and of each text in its order."""
        async with self._admitted() as lease:
            pixels = await self._images.prepare(image, lease.image_input, client=lease.client)
            return await asyncio.gather(
                self._batcher.encode_image(pixels, lease), self._texts.encode(texts, lease)
            )

    async def embed_each_image(self, images: Sequence[bytes]) -> list[Outcome]:
        """The outcome of each of several image files, in their order: an embedding or a failure.

        A failure is an exception that says what is wrong with that image or its encoding.
        """
        async with self._admitted(self._many_images.groups_of(len(images))) as lease:
            return await self._many_images.encode_each(images, lease)

    async def embed_in_groups(self, images: Sequence[bytes]) -> AsyncGenerator[list[Outcome], None]:
        """As `embed_each_image`, some outcomes at a time and as soon as they are there."""
        async with (
            self._admitted(self._many_images.groups_of(len(images))) as lease,
            aclosing(self._many_images.encode_in_groups(images, lease)) as groups,
        ):
            async for group in groups:
                yield group

    async def embed_all(
        self, images: Mapping[str, bytes], texts: Sequence[str] = ()
    ) -> tuple[list[Embedding], list[Embedding]]:
        """Embeddings of several image files and of each text, both in their order.

        Args:
            images: files under the names by which the client knows them; errors say which it is.
            texts: any number.
        """
        async with self._admitted(self._places_of(images, texts)) as lease:
            return await self._encode_all(images, texts, lease)

    async def embed_all_and_count(
        self, images: Mapping[str, bytes], texts: Sequence[str]
    ) -> tuple[list[Embedding], list[Embedding], TokenCount]:
        """As `embed_all`, and the tokens of all texts together.

        They are counted while the request is still admitted, `TEXTS_AT_ONCE` at a time in a thread,
        after the encoder has tokenized them: then there is little to do.
        """
        async with self._admitted(self._places_of(images, texts)) as lease:
            image_embeddings, text_embeddings = await self._encode_all(images, texts, lease)
            tokens = TokenCount(0, 0)
            for start in range(0, len(texts), TEXTS_AT_ONCE):
                some = texts[start : start + TEXTS_AT_ONCE]
                tokens += await asyncio.to_thread(lease.encoder.count_tokens, some)
            return image_embeddings, text_embeddings, tokens

    async def count_tokens(self, texts: Sequence[str]) -> TokenCount:
        """The tokens of all texts together, before any of them is encoded."""
        async with self._admitted() as lease:
            return await asyncio.to_thread(lease.encoder.count_tokens, texts)

    def _places_of(self, images: Mapping[str, bytes], texts: Sequence[str]) -> int:
        return self._many_images.groups_of(len(images)) + self._texts.slices_of(len(texts))

    async def _encode_all(
        self, images: Mapping[str, bytes], texts: Sequence[str], lease: Lease
    ) -> tuple[list[Embedding], list[Embedding]]:
        image_embeddings = await self._many_images.encode_all(images, lease)
        return image_embeddings, await self._texts.encode(texts, lease)

    @asynccontextmanager
    async def _admitted(self, places: int = 1) -> AsyncIterator[Lease]:
        """Admitted, with a lease for all of the request; refused before any work is done for it."""
        with self._admission.admit(places, client=self._client):
            async with self._model.lease(client=self._client) as lease:
                yield lease
