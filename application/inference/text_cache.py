"""Text embeddings, each encoded once: labels and prompts come again with every image."""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Sequence

from application.inference.batcher import Batcher
from application.model.states import Lease
from application.ports import UNOBSERVED, ObserverPort
from domain.embedding import Embedding
from domain.limits import TEXTS_AT_ONCE


class TextEmbeddings:
    """A least-recently-used cache in front of the text tower.

    Requests that miss the same text at the same time wait for one encoding of it. Used from the
    event loop only.
    """

    def __init__(
        self,
        batcher: Batcher,
        *,
        capacity: int,
        observer: ObserverPort = UNOBSERVED,
    ) -> None:
        """Cache what the batcher encodes.

        Args:
            batcher: encodes what is not known yet.
            capacity: embeddings to keep (3 KiB each); 0 keeps none.
            observer: is notified of hits and misses.
        """
        self._batcher = batcher
        self._capacity = capacity
        self._observer = observer
        self._known: OrderedDict[bytes, Embedding] = OrderedDict()
        self._coming: dict[bytes, asyncio.Future[Embedding]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def kept(self) -> int:
        """Embeddings in the cache."""
        return len(self._known)

    @staticmethod
    def slices_of(count: int) -> int:
        """How many times ``count`` texts have to wait for their turn."""
        return -(-count // TEXTS_AT_ONCE)

    async def encode(self, texts: Sequence[str], lease: Lease) -> list[Embedding]:
        """Embeddings of the texts, in their order.

        They are tokenized and encoded `TEXTS_AT_ONCE` at a time, away from the event loop; in
        between, others have their turn.

        Raises:
            ServiceUnavailable: the lease's encoder must not be used now.
            EncoderFault: the encoder returned something that is not an embedding.
        """
        embeddings: list[Embedding] = []
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            embeddings += await self._encode_slice(texts[start : start + TEXTS_AT_ONCE], lease)
        return embeddings

    async def _encode_slice(self, texts: Sequence[str], lease: Lease) -> list[Embedding]:
        # Entries from before a failed verification may be wrong, so they are not found any more.
        origin = f"{lease.encoder.description.fingerprint} {lease.epoch}"
        keys = [_key(origin, text) for text in texts]
        found: dict[bytes, Embedding] = {}
        awaited: dict[bytes, asyncio.Future[Embedding]] = {}
        missing: dict[bytes, str] = {}
        for key, text in zip(keys, texts, strict=True):
            if key in self._known:
                self._known.move_to_end(key)
                found[key] = self._known[key]
            elif key in self._coming:
                awaited[key] = self._coming[key]
            else:
                missing[key] = text
        self._observer.texts_looked_up(hits=len(keys) - len(missing), misses=len(missing))
        if missing:
            awaited.update(self._start(missing, lease))
        # Shielded: a caller that leaves must not take the encoding from those who stay.
        for key, future in awaited.items():
            found[key] = await asyncio.shield(future)
        return [found[key] for key in keys]

    def _start(
        self, missing: dict[bytes, str], lease: Lease
    ) -> dict[bytes, asyncio.Future[Embedding]]:
        loop = asyncio.get_running_loop()
        futures: dict[bytes, asyncio.Future[Embedding]] = {
            key: loop.create_future() for key in missing
        }
        self._coming.update(futures)
        task = loop.create_task(self._fill(list(missing.values()), futures, lease))
        self._tasks.add(task)  # the loop itself keeps only a weak reference
        task.add_done_callback(self._tasks.discard)
        return futures

    async def _fill(
        self,
        texts: Sequence[str],
        futures: dict[bytes, asyncio.Future[Embedding]],
        lease: Lease,
    ) -> None:
        try:
            embeddings = await self._batcher.encode_texts(texts, lease)
        except Exception as failure:
            for future in futures.values():
                future.set_exception(failure)
                future.exception()  # retrieved, so that a caller that left causes no warning
        else:
            for (key, future), embedding in zip(futures.items(), embeddings, strict=True):
                future.set_result(embedding)
                self._keep(key, embedding)
        finally:
            for key in futures:
                self._coming.pop(key, None)

    def _keep(self, key: bytes, embedding: Embedding) -> None:
        self._known[key] = embedding
        while len(self._known) > self._capacity:
            self._known.popitem(last=False)


def _key(origin: str, text: str) -> bytes:
    # A digest, so that a megabyte of text takes no more room than a word.
    return hashlib.blake2b(f"{origin}\n{text}".encode(), digest_size=16).digest()
