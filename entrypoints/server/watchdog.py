"""systemd's watchdog: told again and again that the process can go on, or it is started again."""

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Watchdog:
    """Who wants to be told, as systemd says in the environment (sd_notify(3), sd_watchdog_enabled).

    Attributes:
        address: ``NOTIFY_SOCKET``, a path, or a name that begins with ``@``.
        patience_s: ``WATCHDOG_USEC`` in seconds; who says nothing for so long is started again.
    """

    address: str
    patience_s: float

    async def tell(self, alive: Callable[[], bool]) -> None:
        """Tell three times as often as needed, as long as ``alive``; ends by being cancelled."""
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications:
            notifications.setblocking(False)
            while True:
                if alive():
                    try:
                        notifications.sendto(b"WATCHDOG=1", address)
                    except OSError as failure:
                        logger.warning("the watchdog cannot be told: %s", failure)
                await asyncio.sleep(self.patience_s / 3)
