"""How many requests may be inside at once, and letting them out before shutdown."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from domain.errors import Draining, QueueFull


class Admission:
    """Counts the requests that are being answered; refuses more than ``capacity`` of them.

    A request that keeps the encoder busy for several batches counts as that many. Used from the
    event loop only. A request that was let in is always answered.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._inside = 0
        self._draining = False
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def draining(self) -> bool:
        """Whether new requests are refused because the service is shutting down."""
        return self._draining

    @property
    def capacity(self) -> int:
        """How many requests may be inside at once."""
        return self._capacity

    @property
    def inside(self) -> int:
        """Places taken now by requests that are being answered."""
        return self._inside

    @contextmanager
    def admit(self, places: int = 1) -> Iterator[None]:
        """Let one request in for the duration of the block.

        Args:
            places: how many requests it counts as; of more than ``capacity``, the capacity, so
                that it gets in where nobody else is.

        Raises:
            Draining: the service is shutting down.
            QueueFull: ``capacity`` requests would be exceeded.
        """
        places = min(places, self._capacity)
        if self._draining:
            raise Draining("the server is shutting down and takes no new requests.")
        if self._inside + places > self._capacity:
            raise self.full(places)
        self._inside += places
        self._empty.clear()
        try:
            yield
        finally:
            self._inside -= places
            if self._inside == 0:
                self._empty.set()

    def full(self, places: int = 1) -> QueueFull:
        """The error for a request that counts as so many and finds no room."""
        weight = "" if places == 1 else f" and this one, with its size, counts as {places}"
        return QueueFull(
            f"{self._inside} requests are already waiting or running{weight}; "
            f"at most {self._capacity} are taken at once."
        )

    def start_draining(self) -> None:
        """Refuse every new request from now on."""
        self._draining = True

    async def wait_until_empty(self) -> None:
        """Return once no request is inside."""
        await self._empty.wait()
