"""Time and memory limits for clients' connections, all in one place.

The contract's own limits are in `domain/limits.py`; these are about connections.
"""

from typing import Final

HEAD_SECONDS: Final = 10
"""For a TLS handshake or a request's head, from the connection or the head's first byte."""

IDLE_SECONDS: Final = 75
"""Idle time between a response and the next request.

Longer than clients keep an idle connection, so that the client closes it and not the server.
Otherwise a request may arrive on a connection that is just being closed, and be lost.
"""

LEFTOVER_SECONDS: Final = 30
"""For the rest of a body after an early response, such as 413.

The rest is read and discarded. If the server closed at once, a client that is still sending would
lose the response.
"""

LINGER_SECONDS: Final = 5
"""For a client to close its side after the last response (RFC 9112, 9.6)."""

LINGER_BYTES: Final = 16 * 1024 * 1024
"""Bytes that a client may still send in that time."""

MAX_LINGERING: Final = 512
"""Most connections in that state; half of all if that is less. The oldest makes room for more."""

GRACE_SECONDS: Final = 20
"""How far a client may fall behind `SLOWEST_BYTES_PER_SECOND`."""

SLOWEST_BYTES_PER_SECOND: Final = 16 * 1024
"""Minimum rate at which a body must arrive and a response must be read."""

MAX_HEAD_BYTES: Final = 64 * 1024
"""Bytes of a request's line, headers and trailers, and of the overhead of chunking."""

MAX_PIPELINED: Final = 100
"""Requests that may wait on one connection behind the one in progress."""

MAX_UNSENT_BYTES: Final = 256 * 1024 * 1024
"""Bytes of all responses together that clients have not read yet."""


class Patience:
    """The remaining time of a client that sends a body or reads a response.

    It starts at `GRACE_SECONDS`, grows with every byte, and is never more than `GRACE_SECONDS` from
    now. So a client that was fast at first cannot stall for long afterwards.
    """

    def __init__(self, now_s: float) -> None:
        """Begin to wait."""
        self.ends_s = now_s + GRACE_SECONDS

    def progressed(self, now_s: float, size: int) -> None:
        """Record that ``size`` more bytes have been sent or read."""
        self.ends_s = min(self.ends_s + size / SLOWEST_BYTES_PER_SECOND, now_s + GRACE_SECONDS)
