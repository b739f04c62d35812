"""Who sent a request, as far as sharing the server fairly goes."""

import hashlib
import ipaddress
from functools import lru_cache
from typing import Final

from litestar.types import HTTPScope

from entrypoints.http.middleware.auth import sent_keys

_NETWORK_BITS: Final = 64
"""Of an IPv6 address: what one household or machine is given, which picks the rest at will."""


class ClientIdentity:
    """Tells clients apart by address and, where the server has keys, by key.

    A key is not checked here: a made-up one makes another client, which auth refuses before it
    takes a place.
    """

    def __init__(self, *, keyed: bool) -> None:
        self._keyed = keyed

    def __call__(self, scope: HTTPScope) -> str:
        """The same text for all requests of one client. It holds a digest and never a key."""
        client = scope["client"]
        network = _network(client[0]) if client else ""
        key = next(iter(sent_keys(scope)), None) if self._keyed else None
        return network if key is None else f"{network} {hashlib.sha256(key).hexdigest()}"


@lru_cache(maxsize=4096)
def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:  # a Unix socket's
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed.packed, _NETWORK_BITS), strict=False))
