"""How long and how much a client may keep the server waiting or holding, each in this one place.

The contract's own limits are in `domain/limits.py`; these are about connections.
"""

from typing import Final

HEAD_SECONDS: Final = 10
"""For a TLS handshake, and for a request's head: from the connection or the head's first byte."""

IDLE_SECONDS: Final = 75
"""Between a response and the next request.

Longer than clients keep an idle connection, so that they close it and not the server: otherwise a
request may meet a connection that is just being closed, and be lost.
"""

LEFTOVER_SECONDS: Final = 30
"""For the rest of a body whose request already has its response, such as 413.

It is read and thrown away meanwhile: closing at once would take the response from a client that is
still sending.
"""

LINGER_SECONDS: Final = 5
"""For a client to close its side after the last response (RFC 9112, 9.6)."""

LINGER_BYTES: Final = 16 * 1024 * 1024
"""What a client may still send in that time."""

MAX_LINGERING: Final = 512
"""Connections in that state at once, with a thousand open; the oldest is cut off for another."""

GRACE_SECONDS: Final = 20
"""How far a client may fall behind `SLOWEST_BYTES_PER_SECOND`."""

SLOWEST_BYTES_PER_SECOND: Final = 16 * 1024
"""How fast a body must arrive, and a response be taken."""

MAX_HEAD_BYTES: Final = 64 * 1024
"""Of a request's line, headers and trailers, and of what chunking adds to its body."""

MAX_PIPELINED: Final = 100
"""Requests that may wait on one connection behind the one in progress."""

MAX_UNSENT_BYTES: Final = 256 * 1024 * 1024
"""Of responses that clients have not taken yet, all together."""


class Patience:
    """How long a client that sends a body or takes a response still has.

    `GRACE_SECONDS`, and more with every byte, but never more than that from now on: a client that
    was fast at first must not stall for long afterwards.
    """

    def __init__(self, now_s: float) -> None:
        """Begin to wait."""
        self.ends_s = now_s + GRACE_SECONDS

    def progressed(self, now_s: float, size: int) -> None:
        """Note that ``size`` more bytes have been sent or taken."""
        self.ends_s = min(self.ends_s + size / SLOWEST_BYTES_PER_SECOND, now_s + GRACE_SECONDS)
