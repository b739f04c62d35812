"""How many requests may be inside at once, and letting them out before shutdown."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from domain.errors import Draining, QueueFull


class Admission:
    """Counts the requests that are being answered; refuses more than ``capacity`` of them.

    Used from the event loop only. A request that was let in is always answered.
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
    def inside(self) -> int:
        """Requests being answered now."""
        return self._inside

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Let one request in for the duration of the block.

        Raises:
            Draining: the service is shutting down.
            QueueFull: ``capacity`` requests are inside already.
        """
        if self._draining:
            raise Draining("the server is shutting down and takes no new requests.")
        if self._inside >= self._capacity:
            raise QueueFull(
                f"{self._inside} requests are already waiting or running; "
                f"at most {self._capacity} are taken at once."
            )
        self._inside += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if self._inside == 0:
                self._empty.set()

    def start_draining(self) -> None:
        """Refuse every new request from now on."""
        self._draining = True

    async def wait_until_empty(self) -> None:
        """Return once no request is inside."""
        await self._empty.wait()
