"""Limits the requests in progress, shares them fairly, and drains them at shutdown."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from application.ports import ALONE, PlacesPort
from domain.errors import Draining, QueueFull


class Admission:
    """Counts the requests that are being processed, and refuses those above the limit.

    Every request is admitted up to ``capacity``. A quarter more is reserved for clients that hold
    less than an equal share of ``capacity``. So if one client keeps the server full, another
    client's request is still admitted. The first client then gets no new requests in until fewer
    than ``capacity`` are in progress. The shares become equal without dropping any request.

    A request that keeps the encoder busy for several batches counts as that many. Used from the
    event loop only. An accepted request always gets a response.

    If several processes serve together, ``capacity`` is for all of them: this process's clients
    share only the places that the other processes do not hold.
    """

    def __init__(self, capacity: int, *, places: PlacesPort = ALONE) -> None:
        """Count for one process.

        Args:
            capacity: requests that may be inside at once.
            places: knows how many places the other processes hold.
        """
        self._capacity = capacity
        self._places = places
        self._most = capacity + -(-capacity // 4)
        self._held: Counter[str] = Counter()
        """Places that each client holds now."""
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
        """Whether `admit` would accept such a request, ignoring draining."""
        places = min(places, self._capacity)
        elsewhere = self._places.held_elsewhere()
        wanted = elsewhere + self._inside + places
        if wanted <= self._capacity:
            return True
        held = self._held[client]  # reading a missing key does not add it to a Counter
        clients = len(self._held) + (held == 0)
        share = max((self._capacity - elsewhere) // clients, 1)
        return held + places <= share and wanted <= self._most

    @contextmanager
    def admit(self, places: int = 1, *, client: str = "") -> Iterator[None]:
        """Admit one request for the duration of the block.

        Args:
            places: how many requests it counts as, at most ``capacity``, so that a large request is
                admitted when nothing else is in progress.
            client: who sent it: an address or a key. All requests without one count as one client.

        Raises:
            Draining: the service is shutting down.
            QueueFull: there is no room for it.
        """
        if self._draining:
            raise Draining("the server is shutting down and accepts no new requests.")
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
        """The error for a request of this many places when there is no room."""
        places = min(places, self._capacity)
        weight = "" if places == 1 else f" and this one, with its size, counts as {places}"
        own = self._held[client]
        inside = self._inside + self._places.held_elsewhere()
        yours = f", {own} of them yours" if 0 < own < inside else ""
        return QueueFull(
            f"{inside} requests are already waiting or running{yours}{weight}; "
            f"at most {self._capacity} are accepted at once."
        )

    def start_draining(self) -> None:
        """Refuse every new request from now on."""
        self._draining = True

    async def wait_until_empty(self) -> None:
        """Return once no request is in progress."""
        await self._empty.wait()
