"""Shared memory in which the processes that serve together exchange their state."""

import time
from multiprocessing.context import SpawnContext
from typing import Final

from application.ports import PlacesPort

_SEEN, _HELD, _REFUSING = range(3)
_COLUMNS: Final = 3


class ProcessTable:
    """One row for each process: when it was last seen to work, its places, and whether it refuses.

    Every process writes only to its own row, so that no lock is needed, which a dying process could
    leave locked. A process gets the table at its start.
    """

    def __init__(self, context: SpawnContext, rows: int) -> None:
        """Make a table.

        Args:
            context: in which the processes are started.
            rows: how many processes there will be.
        """
        self._numbers = context.RawArray("q", rows * _COLUMNS)
        self._rows = rows

    def seen(self, row: int) -> None:
        """Record that a process works: its event loop is running."""
        self._numbers[row * _COLUMNS + _SEEN] = time.monotonic_ns()

    def silent_s(self, row: int) -> float:
        """Seconds since a process was last seen to work."""
        seen: int = self._numbers[row * _COLUMNS + _SEEN]
        return (time.monotonic_ns() - seen) / 1e9

    def hold(self, row: int, places: int) -> None:
        """Record the places that a process holds; 0 for one that has ended."""
        self._numbers[row * _COLUMNS + _HELD] = places

    def held(self, *, but_row: int | None = None) -> int:
        """Places that all processes hold, or all except one."""
        return sum(
            self._numbers[row * _COLUMNS + _HELD] for row in range(self._rows) if row != but_row
        )

    def refuse(self, row: int, refusing: bool) -> None:
        """Record whether a process accepts connections but has no model yet.

        One that has ended refuses nothing: its connections wait for the process that replaces it.
        """
        self._numbers[row * _COLUMNS + _REFUSING] = refusing

    def any_refuses(self) -> bool:
        """Whether a request may reach a process without a model."""
        return any(self._numbers[row * _COLUMNS + _REFUSING] for row in range(self._rows))


class SharedPlaces(PlacesPort):
    """The places of one process in the table."""

    def __init__(self, table: ProcessTable, row: int) -> None:
        self._table = table
        self._row = row

    def hold(self, places: int) -> None:
        """See `PlacesPort.hold`."""
        self._table.hold(self._row, places)

    def held_elsewhere(self) -> int:
        """See `PlacesPort.held_elsewhere`."""
        return self._table.held(but_row=self._row)
