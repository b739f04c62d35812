"""How many requests may be inside at once, shared fairly, and letting them out at the end."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from application.ports import ALONE, PlacesPort
from domain.errors import Draining, QueueFull


class Admission:
    """Counts the requests that are being processed, and refuses those above the limit.

    Anyone gets in while ``capacity`` is not exceeded. Beyond it a quarter more is kept for clients
    that hold less than an equal share of ``capacity``, so that a server that one client keeps full
    takes another's request. As the first client's requests end, it gets no new ones in before
    fewer than ``capacity`` are inside: the shares become equal without anyone being thrown out.

    A request that keeps the encoder busy for several batches counts as that many. Used from the
    event loop only. An accepted request always gets a response.

    Where several processes serve together, ``capacity`` is for all of them: what the others hold
    is not there for this one's clients to share.
    """

    def __init__(self, capacity: int, *, places: PlacesPort = ALONE) -> None:
        """Count for one process.

        Args:
            capacity: requests that may be inside at once.
            places: what other processes hold of it.
        """
        self._capacity = capacity
        self._places = places
        self._most = capacity + -(-capacity // 4)
        self._held: Counter[str] = Counter()
        """Places that each client inside holds."""
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
        """How many requests of all clients may be accepted at once."""
        return self._capacity

    @property
    def inside(self) -> int:
        """Places taken now by requests that this process works on."""
        return self._inside

    def has_room(self, places: int = 1, *, client: str = "") -> bool:
        """Whether `admit` would let such a request in, but for draining."""
        places = min(places, self._capacity)
        elsewhere = self._places.held_elsewhere()
        wanted = elsewhere + self._inside + places
        if wanted <= self._capacity:
            return True
        held = self._held[client]  # a Counter does not keep what is only looked up
        clients = len(self._held) + (held == 0)
        share = max((self._capacity - elsewhere) // clients, 1)
        return held + places <= share and wanted <= self._most

    @contextmanager
    def admit(self, places: int = 1, *, client: str = "") -> Iterator[None]:
        """Let one request in for the duration of the block.

        Args:
            places: how many requests it counts as; of more than ``capacity``, the capacity, so
                that it gets in where nobody else is.
            client: who sent it: an address or a key. All that name none are one client.

        Raises:
            Draining: the service is shutting down.
            QueueFull: there is no room for it.
        """
        if self._draining:
            raise Draining("the server is shutting down and takes no new requests.")
        if not self.has_room(places, client=client):
            raise self.full(places, client=client)
        places = min(places, self._capacity)
        self._inside += places
        self._places.hold(self._inside)
        self._held[client] += places
        self._empty.clear()
        try:
            yield
        finally:
            self._inside -= places
            self._places.hold(self._inside)
            self._held[client] -= places
            if not self._held[client]:
                del self._held[client]
            if self._inside == 0:
                self._empty.set()

    def full(self, places: int = 1, *, client: str = "") -> QueueFull:
        """The error for a request that counts as so many and finds no room."""
        places = min(places, self._capacity)
        weight = "" if places == 1 else f" and this one, with its size, counts as {places}"
        own = self._held[client]
        inside = self._inside + self._places.held_elsewhere()
        yours = f", {own} of them yours" if 0 < own < inside else ""
        return QueueFull(
            f"{inside} requests are already waiting or running{yours}{weight}; "
            f"at most {self._capacity} are taken at once."
        )

    def start_draining(self) -> None:
        """Refuse every new request from now on."""
        self._draining = True

    async def wait_until_empty(self) -> None:
        """Return once no request is inside."""
        await self._empty.wait()
