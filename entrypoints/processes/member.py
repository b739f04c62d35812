"""The common parts of all processes that the parent starts."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing.process import parent_process
from pathlib import Path
from typing import Final

from prometheus_client import values

from adapters.observability.profiling import start_profiling
from adapters.system.memory import return_large_blocks_at_once
from adapters.system.process_table import ProcessTable
from entrypoints.logs import configure_logging
from entrypoints.settings import Settings

SEEN_EVERY_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Membership:
    """What the parent tells a process about the others.

    Attributes:
        settings: of the server.
        table: what all processes share.
        row: this process's row in the table.
        encoder_address: the Unix socket of the encoder's process.
    """

    settings: Settings
    table: ProcessTable
    row: int
    encoder_address: Path


def enter(member: Membership) -> None:
    """Set up a new process."""
    # Out of the terminal's group: Ctrl+C goes to the parent, which ends the others in order.
    os.setpgid(0, 0)
    settings = member.settings
    configure_logging(settings.log_format, settings.log_level)
    return_large_blocks_at_once()
    # A process that replaces another continues its counts.
    values.ValueClass = values.MultiProcessValue(  # type: ignore[no-untyped-call]
        lambda: f"row{member.row}"
    )
    start_profiling(
        wanted=settings.profile, url=settings.pyroscope_url, environment=settings.environment
    )


@asynccontextmanager
async def seen_to_work(member: Membership, on_orphaned: Callable[[], None]) -> AsyncIterator[None]:
    """Tell the parent that the event loop is running, and notice when the parent ends.

    Args:
        member: this process.
        on_orphaned: called once if the parent has ended.
    """
    loop = asyncio.get_running_loop()
    parent = parent_process()
    if parent is not None:

        def orphaned() -> None:
            loop.remove_reader(parent.sentinel)
            on_orphaned()

        loop.add_reader(parent.sentinel, orphaned)
    telling = asyncio.create_task(_tell(member))
    try:
        yield
    finally:
        telling.cancel()
        if parent is not None:
            loop.remove_reader(parent.sentinel)


async def _tell(member: Membership) -> None:
    while True:
        member.table.seen(member.row)
        await asyncio.sleep(SEEN_EVERY_SECONDS)
