"""A queue in which clients take turns, so that a light client does not wait for a heavy one."""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

_Item = TypeVar("_Item")


class FairQueue(Generic[_Item]):
    """First in, first out for each client, and round robin between clients.

    A client that was just served goes behind all others that wait. A client that had nothing in the
    queue is served after each of the others has had at most one more turn. With one client it is an
    ordinary queue. Used from the event loop only.
    """

    def __init__(self, gone: Callable[[_Item], bool] = lambda _: False) -> None:
        """Make one.

        Args:
            gone: whether nobody waits for an item any more.
        """
        self._gone = gone
        self._waiting: OrderedDict[str, deque[_Item]] = OrderedDict()
        """Each client's items, oldest first; the client whose turn it is stands first."""

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def __iter__(self) -> Iterator[_Item]:
        """All waiting items, client by client."""
        for items in self._waiting.values():
            yield from items

    def append(self, item: _Item, client: str) -> None:
        """Add an item behind the others of its client."""
        self._waiting.setdefault(client, deque()).append(item)

    def pop(self, fits: Callable[[_Item], bool] | None = None) -> _Item | None:
        """Take the item whose turn it is, dropping any items on the way that are gone.

        Args:
            fits: which items may be taken; a client's turn goes to its oldest that does, and a
                client that has none keeps its place. None: all.

        Returns:
            The item; None if none fits.
        """
        for client, items in tuple(self._waiting.items()):
            place = 0
            while place < len(items):
                item = items[place]
                if self._gone(item):
                    del items[place]
                elif fits is None or fits(item):
                    del items[place]
                    self._had_its_turn(client)
                    return item
                else:
                    place += 1
            if not items:
                del self._waiting[client]
        return None

    def _had_its_turn(self, client: str) -> None:
        if self._waiting[client]:
            self._waiting.move_to_end(client)
        else:
            del self._waiting[client]
