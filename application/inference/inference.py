"""From image files and texts to embeddings: admission, preparation, encoding, in that order."""

import asyncio
import copy
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Self, TypeAlias, TypeVar

from application.inference.admission import Admission
from application.inference.batcher import Batcher
from application.inference.fair_queue import FairQueue
from application.inference.text_cache import TextEmbeddings
from application.model.states import Lease
from application.model.supervisor import Supervisor
from application.ports import (
    UNOBSERVED,
    EncoderDescription,
    ImageInput,
    ImagePreparationPort,
    ObserverPort,
    Pixels,
    Stage,
    TokenCount,
)
from domain.embedding import Embedding
from domain.errors import InvalidInput
from domain.limits import TEXTS_AT_ONCE

_Result = TypeVar("_Result")

Outcome: TypeAlias = Embedding | Exception
"""The result for one image: its embedding, or why there is none."""


class ImagePreparation:
    """Has images prepared, a few at the same time; clients take turns.

    Used from the event loop only.
    """

    def __init__(
        self, port: ImagePreparationPort, *, at_once: int, observer: ObserverPort = UNOBSERVED
    ) -> None:
        """Make one.

        Args:
            port: prepares the images.
            at_once: images prepared at the same time.
            observer: is told how long each image waited, and how long it took.
        """
        self._port = port
        self._observer = observer
        self._free = at_once
        self._waiting: FairQueue[asyncio.Future[None]] = FairQueue(asyncio.Future.done)
        self._starting: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start whatever the first image would otherwise wait for. Returns at once."""
        self._starting = asyncio.create_task(self._port.start())

    async def prepare(self, data: bytes, image_input: ImageInput, *, client: str = "") -> Pixels:
        """Levels for the image tower, uint8 ``[3, size, size]``.

        Args:
            data: the bytes of one image file.
            image_input: what the image tower takes.
            client: who sent the request; clients take turns while all places are taken.

        Raises:
            ImageTooLarge, InvalidImage, ServiceUnavailable: as `ImagePreparationPort.prepare` says.
        """
        asked_s = time.perf_counter()
        await self._turn_of(client)
        started_s = time.perf_counter()
        # The place is taken until the image is prepared, even if nobody waits for it any more.
        running = asyncio.create_task(self._port.prepare(data, image_input))
        running.add_done_callback(self._prepared)
        pixels = await asyncio.shield(running)
        self._observer.stage_passed(Stage.DECODE_QUEUE, asked_s, started_s)
        self._observer.stage_passed(Stage.DECODE, started_s, time.perf_counter())
        return pixels

    async def close(self) -> None:
        """Close the port. Images in progress are abandoned."""
        if self._starting is not None:
            self._starting.cancel()
        await self._port.close()

    async def _turn_of(self, client: str) -> None:
        """Wait until this caller has a place."""
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn, client)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it got the place at that moment
                self._hand_on()
            raise

    def _prepared(self, running: asyncio.Future[Pixels]) -> None:
        if not running.cancelled():
            running.exception()  # retrieved, since its caller may have gone
        self._hand_on()

    def _hand_on(self) -> None:
        """Give the free place to the caller whose turn it is."""
        if (turn := self._waiting.pop()) is not None:
            turn.set_result(None)
        else:
            self._free += 1


class ImageEmbeddings:
    """Prepares and encodes images in groups of the encoder's batch size.

    One group is prepared while the one before it is encoded, so that the encoder gets full batches
    and does not wait for decoding. A request has at most two groups in progress, however many
    images it holds. Its pixels take bounded memory, and another request's single image never waits
    behind more than two of its batches.
    """

    def __init__(self, images: ImagePreparation, batcher: Batcher, *, group: int) -> None:
        """Prepare and encode in groups.

        Args:
            images: prepares them.
            batcher: encodes them.
            group: images that are encoded together; the encoder's largest batch.
        """
        self._images = images
        self._batcher = batcher
        self._group = group

    def groups_of(self, count: int) -> int:
        """Number of groups for ``count`` images."""
        return -(-count // self._group)

    async def encode_each(self, files: Sequence[bytes], lease: Lease) -> list[Outcome]:
        """The outcome of each image file, in their order; never raises."""
        outcomes: list[Outcome] = []
        async with aclosing(self.encode_in_groups(files, lease)) as groups:
            async for group in groups:
                outcomes += group
        return outcomes

    async def encode_all(self, files: Mapping[str, bytes], lease: Lease) -> list[Embedding]:
        """Embeddings of all image files, in their order.

        Args:
            files: the files' bytes under the names by which the client knows them.
            lease: of the encoder.

        Raises:
            InvalidInput: one of them breaks a rule; the error names the first that does.
            ServiceUnavailable, EncoderFault: as `Batcher.encode_image` says.
        """
        names = list(files)
        embeddings: list[Embedding] = []
        async with aclosing(self.encode_in_groups(list(files.values()), lease)) as groups:
            async for group in groups:
                for outcome in group:
                    if isinstance(outcome, InvalidInput):
                        raise outcome.about(names[len(embeddings)])
                    if isinstance(outcome, Exception):
                        raise outcome
                    embeddings.append(outcome)
        return embeddings

    async def encode_in_groups(
        self, files: Sequence[bytes], lease: Lease
    ) -> AsyncGenerator[list[Outcome], None]:
        """The outcomes of image files, in their order, a group as soon as it is encoded."""
        under_way: deque[asyncio.Task[list[Outcome]]] = deque()
        try:
            for start in range(0, len(files), self._group):
                group = files[start : start + self._group]
                prepared = await asyncio.gather(
                    *(
                        _outcome(self._images.prepare(file, lease.image_input, client=lease.client))
                        for file in group
                    )
                )
                under_way.append(asyncio.create_task(self._encode(prepared, lease)))
                if len(under_way) == 2:
                    yield await under_way.popleft()
            while under_way:
                yield await under_way.popleft()
        finally:
            for task in under_way:
                task.cancel()

    async def _encode(self, prepared: Sequence[Pixels | Exception], lease: Lease) -> list[Outcome]:
        """Encode the prepared images together; the others keep their failure."""
        pixels = [item for item in prepared if not isinstance(item, Exception)]
        # All are in the queue before its worker looks, so that they share a batch.
        encoded = iter(
            await asyncio.gather(
                *(_outcome(self._batcher.encode_image(item, lease)) for item in pixels)
            )
        )
        return [item if isinstance(item, Exception) else next(encoded) for item in prepared]


class Inference:
    """The base of all use cases that embed something.

    Besides the errors that they list, all methods raise:

    - ServiceUnavailable: no model is loaded, too many requests are in progress, or the server is
      shutting down;
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
            admission: refuses requests beyond the limit.
            model: holds the encoder.
            images: prepares them.
            batcher: encodes them.
            many_images: prepares and encodes several.
            texts: encodes texts, or finds them in its cache.
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
        """The same, for the requests of one client. Clients take turns.

        Args:
            client: see `Lease`.
        """
        view = copy.copy(self)
        view._client = client
        return view

    @property
    def encoder(self) -> EncoderDescription:
        """The loaded model, or the unloaded one that the next embedding request loads again."""
        return self._model.described()

    @property
    def embedding_dimension(self) -> int:
        """Numbers in an embedding: the promised count, else the model's."""
        return self._promised_dimension or self.encoder.embedding_dimension

    def dimension_of(self, embedding: Sequence[float]) -> int:
        """Numbers in an embedding; if neither a promise nor a model says, this embedding's count.

        For requests that need no model: they only compare embeddings with each other.
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
        """Like `embed_each_image`, but yields outcomes a few at a time, as soon as they exist."""
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
        """Like `embed_all`, but also counts the tokens of all texts together.

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
        """Admit the request with one lease for all of it, or refuse it before doing any work."""
        with self._admission.admit(places, client=self._client):
            async with self._model.lease(client=self._client) as lease:
                yield lease


async def _outcome(work: Awaitable[_Result]) -> _Result | Exception:
    try:
        return await work
    except Exception as failure:
        return failure
