"""What is refused of a head that the parser lets pass, and what a target names."""

import pytest

from entrypoints.server.request_heads import head_fault, origin_form

HOST = (b"host", b"x")


@pytest.mark.parametrize(
    ("method", "version", "headers", "status"),
    [
        ("GET", "1.1", [HOST], None),
        ("GET", "1.0", [], None),
        ("GET", "1.1", [], 400),
        ("GET", "1.1", [HOST, HOST], 400),
        ("GET", "1.0", [HOST, HOST], 400),
        ("GET", "1.1", [(b"host", b"x y")], 400),
        ("GET", "1.1", [(b"host", b"[::1]:8093")], None),
        ("GET", "2.0", [HOST], 505),
        ("GET", "0.9", [], 505),
        ("CONNECT", "1.1", [HOST], 501),
        ("PURGE", "1.1", [HOST], 501),
        ("POST", "1.1", [HOST, (b"transfer-encoding", b"Chunked")], None),
        ("POST", "1.1", [HOST, (b"transfer-encoding", b"gzip, chunked")], 501),
        ("POST", "1.1", [HOST, (b"transfer-encoding", b"chunked")] * 2, 400),
        ("POST", "1.1", [HOST, *[(b"transfer-encoding", b"chunked")] * 2], 400),
        ("POST", "1.0", [HOST, (b"transfer-encoding", b"chunked")], 400),
    ],
)
def test_heads(
    method: str, version: str, headers: list[tuple[bytes, bytes]], status: int | None
) -> None:
    fault = head_fault(method, version, headers)
    assert (None if fault is None else fault.status) == status


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/a?b=http://c", b"/a?b=http://c"),
        (b"//a", b"//a"),
        (b"http://x/a?b", b"/a?b"),
        (b"HTTPS://x", b"/"),
        (b"http://x?a", b"/?a"),
        (b"http:///a", None),
        (b"http://[x/a", None),
        (b"/a#b", None),
        (b"*", None),
        (b"x:80", None),
        (b"ftp://x/a", None),
    ],
)
def test_targets(target: bytes, path: bytes | None) -> None:
    assert origin_form(target) == path
