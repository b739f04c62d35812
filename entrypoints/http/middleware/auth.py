"""Who may ask: keys, and browsers that another website sends.

Both are decided before anything of a request's body is read.
"""

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from domain.errors import ClipError

if TYPE_CHECKING:  # the settings are read, and refused, before the framework is loaded
    from litestar.connection import ASGIConnection
    from litestar.handlers import BaseRouteHandler
    from litestar.types import Guard

    _Connection = ASGIConnection[Any, Any, Any, Any]

SHORTEST_KEY: Final = 16
"""Characters that a key has at least."""

KEY_HEADER: Final = "X-API-Key"

_OPEN_KEY: Final = "clip_open_to_all"
OPEN_TO_ALL: Final = {_OPEN_KEY: True}
"""Litestar's ``opt`` of a handler that asks nobody for a key."""

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class KeyRefused(ClipError):
    """The request has no key (``missing_api_key``) or none that is known (``wrong_api_key``)."""

    code = "wrong_api_key"


class CrossSite(ClipError):
    """A browser was made to send the request by a website that may not do so."""

    code = "cross_site"


class ApiKeys:
    """The keys that let a request in, of which only SHA-256 digests are kept.

    So whatever prints one of these objects prints no key.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = tuple(_digest(key.encode("ascii")) for key in keys)

    def __repr__(self) -> str:
        return f"ApiKeys({len(self._digests)})"

    def let_in(self, key: bytes) -> bool:
        """Whether it is one of them; the time it takes tells nothing of how near it came."""
        digest = _digest(key)
        known = False
        for expected in self._digests:  # all of them, whichever it is
            known |= hmac.compare_digest(digest, expected)
        return known


def key_problem(key: str) -> str | None:
    """What keeps a text from being a key, without repeating it; None if it is one."""
    if len(key) >= SHORTEST_KEY and all("!" <= character <= "~" for character in key):
        return None
    return (
        f"each must have at least {SHORTEST_KEY} characters, all of them visible ASCII, "
        "without space or comma"
    )


def guards(keys: ApiKeys | None, origins: Sequence[str]) -> "list[Guard]":
    """What every request passes before its body is read, as guards of the whole application.

    Args:
        keys: None lets everybody in.
        origins: of websites that may send their visitors' browsers, such as
            ``https://cameras.example``; ``*`` is all of them.
    """

    # Asynchronous: others Litestar calls in a thread, for each request and guard anew.
    async def refuse_cross_site(connection: "_Connection", _: "BaseRouteHandler") -> None:
        if connection.scope.get("method") == "POST" and "*" not in origins:
            _check_site(connection, origins)

    async def require_key(connection: "_Connection", handler: "BaseRouteHandler") -> None:
        if keys is not None and not handler.opt.get(_OPEN_KEY):
            _check_key(connection, keys)

    return [refuse_cross_site, require_key]


def _check_key(connection: "_Connection", keys: ApiKeys) -> None:
    sent = list(_sent_keys(connection.scope["headers"]))
    if not sent:
        raise KeyRefused(
            f"the request has no key; send one as '{KEY_HEADER}: ...' or "
            "'Authorization: Bearer ...'.",
            code="missing_api_key",
        )
    if not any(keys.let_in(key) for key in sent):
        raise KeyRefused("the request's key is none of this server's.")


def _sent_keys(headers: Iterable[tuple[bytes, bytes]]) -> Iterable[bytes]:
    for name, value in headers:
        if name.lower() == b"x-api-key":
            yield value.strip()
        elif name.lower() == b"authorization":
            scheme, _, key = value.strip().partition(b" ")
            if scheme.lower() == b"bearer":
                yield key.strip()


def _check_site(connection: "_Connection", origins: Sequence[str]) -> None:
    """Refuse what a page elsewhere made a browser send.

    Forms and simple requests reach any server that the visitor's machine reaches, CORS or not:
    it only keeps the page from reading the answer. Browsers tell where a request comes from by
    ``Sec-Fetch-Site`` (over TLS and on localhost) and ``Origin``, and pages cannot change either;
    other clients send neither.
    """
    origin = connection.headers.get("origin")
    if origin is not None and origin.lower() in origins:
        return
    site = connection.headers.get("sec-fetch-site")
    if site in {"same-origin", "none"}:
        return
    foreign = site == "cross-site"
    if not foreign and origin is not None:
        foreign = not _is_own(origin, connection.headers.get("host", ""))
    if foreign:
        raise CrossSite(
            f"a browser sent this from the website {(origin or 'it does not name')[:100]!r}, which "
            "is not this server's own; CLIP_CORS_ORIGINS lists the websites that may."
        )


def _is_own(origin: str, host: str) -> bool:
    """Whether the ``Origin`` is the address that the request was sent to."""
    try:
        page, server = urlsplit(origin), urlsplit(f"//{host}")
        default = _DEFAULT_PORTS.get(page.scheme)
        return page.hostname is not None and (page.hostname, page.port or default) == (
            server.hostname,
            server.port or default,
        )
    except ValueError:  # no port is called so
        return False


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
