"""Checks for request heads that llhttp accepts and HTTP/1.1 forbids (RFC 9110 and 9112)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

_METHODS: Final = frozenset(
    ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"),
)
_VERSIONS: Final = ("1.0", "1.1")
_HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-fvV:.%~_-]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::[0-9]*)?")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A response that the connection sends itself, without the application, before it closes.

    Attributes:
        status: the HTTP status.
        code: what is wrong, for programs.
        detail: what is wrong, for people.
        headers: more header lines, each ended by CRLF.
    """

    status: int
    code: str
    detail: str
    headers: bytes = b""


def invalid(detail: str) -> Refusal:
    """What was sent is not HTTP/1.1."""
    return Refusal(400, "invalid_http", detail)


def head_fault(method: str, version: str, headers: Sequence[tuple[bytes, bytes]]) -> Refusal | None:
    """The problem with a head; None if it can be served.

    Args:
        method: such as ``GET``.
        version: such as ``1.1``.
        headers: names in lower case, and values.
    """
    if version not in _VERSIONS:
        return Refusal(
            505, "unsupported_http_version", f"HTTP/{version} is not served; HTTP/1.1 is."
        )
    if method not in _METHODS:
        # Includes CONNECT, after which another protocol would follow.
        return Refusal(501, "unknown_method", f"the method {method} is not served here.")
    hosts = [value.strip(b" \t") for name, value in headers if name == b"host"]
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        return invalid(
            "a request of HTTP/1.1 has exactly one Host header (RFC 9112, 3.2); this has "
            f"{len(hosts)}."
        )
    if hosts and _HOST.fullmatch(hosts[0]) is None:
        return invalid("the Host header names no host (RFC 9110, 7.2).")
    codings = [value.strip(b" \t") for name, value in headers if name == b"transfer-encoding"]
    return _coding_fault(codings, version) if codings else None


def _coding_fault(codings: Sequence[bytes], version: str) -> Refusal | None:
    if version == "1.0":
        return invalid("HTTP/1.0 has no Transfer-Encoding (RFC 9112, 6.1).")
    if len(codings) > 1:
        return invalid("a request has at most one Transfer-Encoding header.")
    if codings[0].lower() != b"chunked":
        return Refusal(
            501, "unknown_transfer_coding", "chunked is the only supported Transfer-Encoding."
        )
    return None


def origin_form(target: bytes) -> bytes | None:
    """The path and query of a request's target; None if it has none.

    A client may send a whole URL (RFC 9112, 3.2.2), even without a path. Only its path and query
    matter here. A fragment is never sent.
    """
    if b"#" in target:
        return None
    if target.startswith(b"/"):
        return target
    if target[:7].lower() != b"http://" and target[:8].lower() != b"https://":
        return None
    try:
        address = urlsplit(target)
    except ValueError:
        return None
    if not address.netloc:
        return None
    return (address.path or b"/") + (b"?" + address.query if address.query else b"")
