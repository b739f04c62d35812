"""The embeddings of many image files of one request, a batch at a time."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from contextlib import aclosing
from typing import TypeAlias, TypeVar

from application.inference.batcher import Batcher
from application.inference.image_preparation import ImagePreparation
from application.model.states import Lease
from application.ports import Pixels
from domain.embedding import Embedding
from domain.errors import InvalidInput

_Result = TypeVar("_Result")

Outcome: TypeAlias = Embedding | Exception
"""The outcome of one image: its embedding, or why there is none."""


class ImageEmbeddings:
    """Prepares and encodes images in groups of the encoder's batch size.

    A group is prepared while the one before it is encoded, so that the encoder is given full
    batches and need not wait for decoding. A request has at most two groups under way, however
    many images it holds: its pixels take bounded memory, and another's lone image never waits
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
        """How many groups ``count`` images make."""
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
        """Encode, together, what could be prepared; the rest keeps its failure."""
        pixels = [item for item in prepared if not isinstance(item, Exception)]
        # All are in the queue before its worker looks, so that they share a batch.
        encoded = iter(
            await asyncio.gather(
                *(_outcome(self._batcher.encode_image(item, lease)) for item in pixels)
            )
        )
        return [item if isinstance(item, Exception) else next(encoded) for item in prepared]


async def _outcome(work: Awaitable[_Result]) -> _Result | Exception:
    try:
        return await work
    except Exception as failure:
        return failure
