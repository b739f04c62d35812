"""Auth: accepts requests with a valid key, and from browsers on allowed websites.

Both are checked before a request is routed or any of its body is read.
"""

import hashlib
import hmac
import ipaddress
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlsplit

from entrypoints.http.errors.table import CrossSite, KeyRefused, PreflightRefused, send_error
from entrypoints.http.middleware import HttpApp

if TYPE_CHECKING:  # the settings are checked before the framework loads
    from litestar.types import HTTPScope, Message, Receive, Send

SHORTEST_KEY: Final = 16
"""Fewest characters of a key."""

KEY_HEADER: Final = "X-API-Key"

OPEN_OPTION: Final = "clip_open_to_all"
OPEN_TO_ALL: Final = {OPEN_OPTION: True}
"""Litestar's ``opt`` of a handler that needs no key."""

_KEY_IN_QUERY: Final = "/clip/"
_MAX_QUERY_FIELDS: Final = 50

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}

_CORS_METHODS: Final = ("GET", "HEAD", "POST")

_NETWORK_BITS: Final = 64
"""Prefix length of an IPv6 client: one household or machine gets this and chooses the rest."""


class ApiKeys:
    """The valid keys. Only their SHA-256 digests are kept.

    So printing one of these objects never prints a key.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = tuple(_digest(key.encode("ascii")) for key in keys)

    def __repr__(self) -> str:
        return f"ApiKeys({len(self._digests)})"

    def let_in(self, key: bytes) -> bool:
        """Whether the key is valid. The time it takes does not reveal how close a guess is."""
        digest = _digest(key)
        known = False
        for expected in self._digests:  # always compare all of them
            known |= hmac.compare_digest(digest, expected)
        return known


def key_problem(key: str) -> str | None:
    """Why a text cannot be a key, without repeating the text; None if it can."""
    if len(key) >= SHORTEST_KEY and all("!" <= character <= "~" for character in key):
        return None
    return (
        f"each must have at least {SHORTEST_KEY} characters, all of them visible ASCII, "
        "without space or comma"
    )


class Auth:
    """Middleware that accepts a request or refuses it with 401 or 403.

    It also handles CORS for allowed websites, so that their pages can read all responses, refusals
    included (https://fetch.spec.whatwg.org/#http-cors-protocol).
    """

    def __init__(
        self,
        app: HttpApp,
        *,
        keys: ApiKeys | None,
        is_open: Callable[[str], bool],
        origins: Sequence[str],
        allowed_headers: Sequence[str],
        exposed_headers: Sequence[str],
    ) -> None:
        """Put it around ``app``.

        Args:
            app: handles accepted requests.
            keys: None accepts everyone.
            is_open: whether a path needs no key.
            origins: of websites whose pages may send requests, such as ``https://cameras.example``;
                ``*`` means all.
            allowed_headers: that their requests may have.
            exposed_headers: of responses, that their pages may read.
        """
        self._app = app
        self._keys = keys
        self._is_open = is_open
        self._origins = frozenset(origins)
        self._allowed_headers = ", ".join(sorted(allowed_headers))
        self._allowed_names = {name.lower() for name in allowed_headers}
        self._exposed_headers = ", ".join(sorted(exposed_headers))

    async def __call__(self, scope: "HTTPScope", receive: "Receive", send: "Send") -> None:
        """Handle a request."""
        if self._origins and (origin := _header(scope, b"origin")):
            send = self._sending_cors(send, origin)
            if scope["method"] == "OPTIONS":
                await self._preflight(scope, send, origin)
                return
        if (refusal := self._refusal(scope)) is not None:
            await send_error(scope, send, refusal)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: "HTTPScope") -> CrossSite | KeyRefused | None:
        if scope["method"] == "POST" and "*" not in self._origins:
            refusal = _site_refusal(scope, self._origins)
            if refusal is not None:
                return refusal
        if self._keys is not None and not self._is_open(scope["path"]):
            return _key_refusal(scope, self._keys)
        return None

    def _allows(self, origin: str) -> bool:
        return "*" in self._origins or origin.lower() in self._origins

    def _sending_cors(self, send: "Send", origin: str) -> "Send":
        async def send_with_cors(message: "Message") -> None:
            if message["type"] == "http.response.start":
                headers = list(message["headers"])
                if self._exposed_headers:
                    headers.append(
                        (b"access-control-expose-headers", self._exposed_headers.encode("ascii"))
                    )
                if "*" in self._origins:
                    headers.append((b"access-control-allow-origin", b"*"))
                else:
                    headers.append((b"vary", b"Origin"))
                    if self._allows(origin):
                        headers.append((b"access-control-allow-origin", origin.encode("latin-1")))
                message["headers"] = headers
            await send(message)

        return send_with_cors

    async def _preflight(self, scope: "HTTPScope", send: "Send", origin: str) -> None:
        """Respond to a browser's preflight request."""
        method = _header(scope, b"access-control-request-method")
        names = _header(scope, b"access-control-request-headers").lower().split(",")
        wanted = {name.strip() for name in names} - {""}
        if (
            not self._allows(origin)
            or method not in _CORS_METHODS
            or not wanted <= self._allowed_names
        ):
            await send_error(
                scope,
                send,
                PreflightRefused(
                    f"pages of {origin[:100]!r} may not send this request. CLIP_CORS_ORIGINS lists "
                    f"the websites that may, with the methods {', '.join(_CORS_METHODS)} and the "
                    f"headers {self._allowed_headers}."
                ),
            )
            return
        await send(
            {
                "type": "http.response.start",
                "status": 204,
                "headers": [
                    (b"access-control-allow-methods", ", ".join(_CORS_METHODS).encode("ascii")),
                    (b"access-control-allow-headers", self._allowed_headers.encode("ascii")),
                    (b"access-control-max-age", b"600"),
                ],
            }
        )
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _header(scope: "HTTPScope", wanted: bytes) -> str:
    """The value of a header, or an empty text."""
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == wanted), "")


def _key_refusal(scope: "HTTPScope", keys: ApiKeys) -> KeyRefused | None:
    sent = list(sent_keys(scope))
    if not sent:
        return KeyRefused(
            f"the request has no key; send one as '{KEY_HEADER}: ...' or "
            "'Authorization: Bearer ...'.",
            code="missing_api_key",
        )
    if not any(keys.let_in(key) for key in sent):
        return KeyRefused("the request's key is not one of this server's.")
    return None


def sent_keys(scope: "HTTPScope") -> Iterable[bytes]:
    """All keys in a request, unchecked.

    Keys are in headers. Roboflow's clients put theirs into the query as well, or only there. Other
    endpoints ignore keys in the query, since other programs log queries.
    """
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            yield value.strip()
        elif name == b"authorization":
            scheme, _, key = value.strip().partition(b" ")
            if scheme.lower() == b"bearer":
                yield key.strip()
    if scope["path"].startswith(_KEY_IN_QUERY):
        with suppress(ValueError):  # too many fields
            fields = parse_qsl(scope["query_string"], max_num_fields=_MAX_QUERY_FIELDS)
            yield from (value for name, value in fields if name == b"api_key")


def _site_refusal(scope: "HTTPScope", origins: frozenset[str]) -> CrossSite | None:
    """Why a request is refused as cross-site, sent by a browser for another website; else None.

    Forms and simple requests reach any server that the visitor's machine can reach. CORS only keeps
    the page from reading the response. Browsers say where a request comes from in
    ``Sec-Fetch-Site`` (over TLS and on localhost) and ``Origin``, and pages cannot change either.
    Other clients send neither.
    """
    origin: bytes | None = None
    site = host = b""
    for name, value in scope["headers"]:
        if name == b"origin":
            origin = value
        elif name == b"sec-fetch-site":
            site = value
        elif name == b"host":
            host = value
    if origin is None and not site:
        return None
    shown = None if origin is None else origin.decode("latin-1")
    if (shown is not None and shown.lower() in origins) or site in {b"same-origin", b"none"}:
        return None
    foreign = site == b"cross-site"
    if not foreign and shown is not None:
        foreign = not _is_own(shown, host.decode("latin-1"))
    if not foreign:
        return None
    website = f"the website {shown[:100]!r}" if shown else "another website"
    return CrossSite(
        f"a browser sent this from {website}, which is not this server's own; CLIP_CORS_ORIGINS "
        "lists the websites that may."
    )


def _is_own(origin: str, host: str) -> bool:
    """Whether the ``Origin`` is the address to which the request was sent."""
    try:
        page, server = urlsplit(origin), urlsplit(f"//{host}")
        default = _DEFAULT_PORTS.get(page.scheme)
        return page.hostname is not None and (page.hostname, page.port or default) == (
            server.hostname,
            server.port or default,
        )
    except ValueError:  # not a valid port
        return False


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


class ClientIdentity:
    """Tells clients apart by address and, where the server has keys, by key.

    Keys are not checked here: an invalid one counts as another client, which auth refuses before it
    takes a place.
    """

    def __init__(self, *, keyed: bool) -> None:
        self._keyed = keyed

    def __call__(self, scope: "HTTPScope") -> str:
        """The same text for all requests of one client. It contains a digest, never a key."""
        client = scope["client"]
        network = _network(client[0]) if client else ""
        key = next(iter(sent_keys(scope)), None) if self._keyed else None
        return network if key is None else f"{network} {hashlib.sha256(key).hexdigest()}"


@lru_cache(maxsize=4096)
def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:  # a Unix socket's address
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed.packed, _NETWORK_BITS), strict=False))
