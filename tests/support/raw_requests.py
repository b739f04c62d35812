"""Requests as bytes, right and wrong ones, each with what RFC 9110 and 9112 make of it.

Restated from what public collections try (http-garden, h1spec, the research on request smuggling),
and from clients that were seen. The bodies are those of ``POST /embed``, so that 200 means that the
body was read as it was sent.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.photos import as_base64, plain

CASES: Final = Path(__file__).parents[1] / "cases/requests"
PAUSE: Final = b"\n=====(pause)=====\n"
"""Between the packets of a request in a file."""

BODY: Final = json.dumps({"image": as_base64(plain(200, 30, 40), "PNG")}).encode()
SMUGGLED: Final = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
"""Answered with 404 if it is ever taken for a request."""

LAST: Final = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
"""Sent after a request that leaves the connection open: its response comes last."""


@dataclass(frozen=True)
class RawCase:
    """What is sent, and the responses.

    Attributes:
        name: what is special about it.
        packets: sent one after the other, with a pause in between.
        responses: for each response, the statuses that will do.
        open: whether the connection can be used for `LAST` afterwards.
        ends: whether the client closes its side after the last packet.
    """

    name: str
    packets: tuple[bytes, ...]
    responses: tuple[frozenset[int], ...]
    open: bool = True
    ends: bool = False


def get(*lines: bytes, path: bytes = b"/health/live", version: bytes = b"1.1") -> bytes:
    """A GET with more header lines than Host."""
    return _head(b"GET " + path + b" HTTP/" + version, (b"Host: x", *lines))


def post(*lines: bytes, version: bytes = b"1.1") -> bytes:
    """The head of a POST of JSON, with more header lines."""
    kind = b"Content-Type: application/json"
    return _head(b"POST /embed HTTP/" + version, (b"Host: x", kind, *lines))


def _head(line: bytes, headers: tuple[bytes, ...]) -> bytes:
    return b"\r\n".join((line, *headers, b"", b""))


def _length(body: bytes = BODY) -> bytes:
    return b"Content-Length: %d" % len(body)


def _chunks(body: bytes = BODY, size: int = 50) -> bytes:
    pieces = (body[place : place + size] for place in range(0, len(body), size))
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


CHUNKED: Final = b"Transfer-Encoding: chunked"
_CHUNK: Final = b"%x\r\n%s\r\n" % (len(BODY), BODY)


def _ok(name: str, *packets: bytes, times: int = 1, open: bool = True) -> RawCase:
    return RawCase(name, packets, (frozenset({200}),) * times, open)


def _refused(name: str, *packets: bytes, statuses: tuple[int, ...] = (400,)) -> RawCase:
    return RawCase(name, packets, (frozenset(statuses),), open=False)


def corpus() -> list[RawCase]:
    """Every case."""
    return [
        *_request_lines(),
        *_hosts(),
        *_header_lines(),
        *_lengths(),
        *_codings(),
        *_chunked_bodies(),
        *_bodies_where_none_is_expected(),
        *_expectations(),
        *_upgrades(),
        *_many_at_once(),
        *_half_closed(),
        *_large_heads(),
    ]


def _request_lines() -> Iterator[RawCase]:
    yield _ok("GET", get())
    yield _ok("HTTP/1.0", get(version=b"1.0"), open=False)
    yield _ok("HTTP/1.0 without Host", b"GET /health/live HTTP/1.0\r\n\r\n", open=False)
    yield _ok("HTTP/1.0 with a body", post(_length(), version=b"1.0") + BODY, open=False)
    yield _ok("empty line before the request", b"\r\n" + get())
    yield _ok("absolute-form", get(path=b"http://x/health/live"))
    yield _ok("absolute-form of another host", get(path=b"http://elsewhere:1/health/live"))
    yield _ok("absolute-form in upper case", get(path=b"HTTP://X/health/live"))
    yield RawCase("absolute-form without path", (get(path=b"http://x"),), (frozenset({200, 404}),))
    yield RawCase(
        "absolute-form, query only", (get(path=b"http://x?a=b"),), (frozenset({200, 404}),)
    )
    yield RawCase(
        "OPTIONS *", (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",), (frozenset({200, 204}),)
    )
    yield _ok("query", get(path=b"/health/live?a=b&c=%20d"))
    yield _ok("query with an address", get(path=b"/health/live?a=http://b/"))
    yield RawCase("two slashes", (get(path=b"//health/live"),), (frozenset({200, 308, 404}),))
    yield RawCase("dots", (get(path=b"/health/../health/live"),), (frozenset({200, 404}),))
    for name, line in (
        ("asterisk-form of GET", b"GET * HTTP/1.1"),
        ("authority-form of GET", b"GET x:80 HTTP/1.1"),
        ("no slash", b"GET health HTTP/1.1"),
        ("fragment", b"GET /health/live#a HTTP/1.1"),
        ("another scheme", b"GET ftp://x/health HTTP/1.1"),
        ("scheme without authority", b"GET http:///health/live HTTP/1.1"),
        ("no target", b"GET  HTTP/1.1"),
        ("space in the target", b"GET /health live HTTP/1.1"),
        ("space before the method", b" GET /health/live HTTP/1.1"),
        ("tab before the version", b"GET /health/live\tHTTP/1.1"),
        ("space after the version", b"GET /health/live HTTP/1.1 "),
        ("no version", b"GET /health/live"),
        ("version without minor", b"GET /health/live HTTP/1"),
        ("version in lower case", b"GET /health/live http/1.1"),
        ("version of letters", b"GET /health/live HTTP/a.b"),
        ("version +1.1", b"GET /health/live HTTP/+1.1"),
        ("version 1.01", b"GET /health/live HTTP/1.01"),
        ("NUL in the target", b"GET /health\x00/live HTTP/1.1"),
        ("bare CR in the target", b"GET /health\r/live HTTP/1.1"),
        ("byte above ASCII in the target", b"GET /health\xff HTTP/1.1"),
        ("method of a bracket", b"G(T /health/live HTTP/1.1"),
    ):
        yield _refused(name, line + b"\r\nHost: x\r\n\r\n", statuses=(400, 501, 505))
    for method in (b"CONNECT", b"BREW", b"get", b"PROPFIND"):
        line = method + b" /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
        yield _refused(f"method {method.decode()}", line + SMUGGLED, statuses=(400, 405, 501))
    tunnel = b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n"
    yield _refused("CONNECT", tunnel, SMUGGLED, statuses=(400, 405, 501))
    for version in (b"0.9", b"1.2", b"2.0", b"3.0", b"9.9"):
        yield _refused(f"HTTP/{version.decode()}", get(version=version), statuses=(400, 505))
    yield _refused(
        "prior knowledge of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", statuses=(400, 505)
    )
    yield _refused("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)))
    yield _refused("RTSP", b"PLAY / RTSP/1.0\r\n\r\n", statuses=(400, 501))


def _hosts() -> Iterator[RawCase]:
    for name, host in (
        ("empty Host", b""),
        ("Host with port", b"x:8093"),
        ("Host of IPv6", b"[::1]:80"),
        ("Host with underscore", b"my_server"),
        ("Host with white space around", b" \tx\t "),
    ):
        yield _ok(name, b"GET /health/live HTTP/1.1\r\nHost:" + host + b"\r\n\r\n")
    for name, lines in (
        ("no Host", b""),
        ("two Hosts", b"Host: x\r\nHost: y\r\n"),
        ("the same Host twice", b"Host: x\r\nhost: x\r\n"),
        ("Host with a space", b"Host: x y\r\n"),
        ("Host with a user", b"Host: a@x\r\n"),
        ("Host with a path", b"Host: x/y\r\n"),
        ("Host with an open bracket", b"Host: [::1\r\n"),
        ("Host with a port of letters", b"Host: x:y\r\n"),
    ):
        yield _refused(name, b"GET /health/live HTTP/1.1\r\n" + lines + b"\r\n")


def _header_lines() -> Iterator[RawCase]:
    yield _ok("value of bytes above ASCII", get(b"X-A: caf\xe9"))
    yield _ok("no space after the colon", get(b"X-A:b"))
    yield _ok("tabs around the value", get(b"X-A:\tb\t"))
    yield _ok("empty value", get(b"X-A:"))
    yield _ok("name of all token characters", get(b"!#$%&'*+-.^_`|~09aZ: b"))
    yield _ok("hundred headers", get(*(b"X-%d: a" % number for number in range(100))))
    for name, line in (
        ("space before the colon", b"X-A : b"),
        ("tab before the colon", b"X-A\t: b"),
        ("no name", b": b"),
        ("no colon", b"X-A"),
        ("name with a bracket", b"X(A: b"),
        ("name above ASCII", b"X\xffA: b"),
        ("NUL in a name", b"X\x00A: b"),
        ("NUL in a value", b"X-A: b\x00c"),
        ("bare CR in a value", b"X-A: b\rc"),
        ("bare LF in a value, smuggling a header", b"X-A: b\nContent-Length: 5"),
        ("control character in a value", b"X-A: b\x01c"),
        ("folded line", b"X-A: b\r\n c"),
        ("folded line with tab", b"X-A: b\r\n\tc"),
        ("folded Transfer-Encoding", b"Transfer-Encoding:\r\n chunked"),
        ("space before the first name", b" X-A: b"),
    ):
        yield _refused(name, get(line))
    yield _refused("folded first line", b"GET /health/live HTTP/1.1\r\n Host: x\r\n\r\n")
    yield _refused("bare LF everywhere", get().replace(b"\r\n", b"\n"))
    yield _refused("bare LF after the request line", get().replace(b"\r\n", b"\n", 1))
    yield _refused("bare LF at the end", b"GET /health/live HTTP/1.1\r\nHost: x\r\n\n")
    yield _refused("CR without LF at the end", b"GET /health/live HTTP/1.1\r\nHost: x\r\n\rX")


def _lengths() -> Iterator[RawCase]:
    yield _ok("Content-Length", post(_length()) + BODY)
    yield _ok("body in a packet of its own", post(_length()), BODY)
    yield _ok("leading zeros", post(b"Content-Length: 000%d" % len(BODY)) + BODY)
    yield _ok("byte by byte", *(bytes([byte]) for byte in get()))
    for value in (
        b"+5", b"-5", b"0x5", b"5a", b"5 5", b"5,5", b"5, 6", b"", b"5.0", b"1e1", b"5;",
        b"\xd9\xa5", b"99999999999999999999999", b"18446744073709551621",
    ):  # fmt: skip
        name = f"Content-Length {value.decode('latin-1')!r}"
        yield _refused(name, post(b"Content-Length: " + value) + b"12345", statuses=(400, 413))
    for second in (b"5", b"6"):
        twice = post(b"Content-Length: 5", b"Content-Length: " + second)
        yield _refused(f"Content-Length 5 and {second.decode()}", twice + b"12345" + SMUGGLED)
    yield RawCase("no length", (post(),), (frozenset({400, 411, 415, 422}),))


def _codings() -> Iterator[RawCase]:
    yield _ok("chunked", post(CHUNKED) + _chunks())
    yield _ok("Chunked", post(b"transfer-encoding: Chunked") + _chunks())
    yield _ok("chunked in two packets", post(CHUNKED), _chunks())
    for lines in (
        (_length(), CHUNKED),
        (CHUNKED, _length()),
        (b"Content-Length: 4", CHUNKED),
        (b"Content-Length: 0", b"Transfer-Encoding: Chunked"),
        (CHUNKED, b"Transfer-Encoding: identity"),
        (b"Transfer-Encoding: identity", CHUNKED),
        (CHUNKED, CHUNKED),
    ):
        names = " and ".join(line.decode() for line in lines)
        yield _refused(names, post(*lines) + _chunks() + SMUGGLED, statuses=(400, 501))
    for value in (
        b"xchunked", b"chunkedx", b"identity", b"gzip", b"gzip, chunked", b"chunked, gzip",
        b"identity, chunked", b"chunked, chunked", b"chunked;q=1", b"\x0bchunked", b"'chunked'",
        b"", b",chunked", b"chunked,",
    ):  # fmt: skip
        coding = post(b"Transfer-Encoding: " + value)
        name = f"Transfer-Encoding {value.decode('latin-1')!r}"
        yield _refused(name, coding + _chunks() + SMUGGLED, statuses=(400, 501))
    yield _refused("chunked in HTTP/1.0", post(CHUNKED, version=b"1.0") + _chunks())
    spaced = post(b"Transfer-Encoding : chunked", _length())
    yield _refused("Transfer-Encoding with a space before the colon", spaced + _chunks())


def _chunked_bodies() -> Iterator[RawCase]:
    size = b"%x" % len(BODY)
    end = b"0\r\n\r\n"
    data = b"\r\n" + BODY + b"\r\n"
    yield _ok("one chunk", post(CHUNKED) + _CHUNK + end)
    yield _ok("upper case and zeros", post(CHUNKED) + b"000" + size.upper() + data + end)
    yield _ok("extension", post(CHUNKED) + size + b";a=b" + data + end)
    yield _ok("quoted extension", post(CHUNKED) + size + b';a="b;c"' + data + end)
    yield _ok("trailers", post(CHUNKED) + _CHUNK + b"0\r\nX-A: b\r\nX-C: d\r\n\r\n")
    yield _ok("many zeros at the end", post(CHUNKED) + _CHUNK + b"0000\r\n\r\n")
    for name, body in (
        ("bare LF after the size", size + b"\n" + BODY + b"\r\n" + end),
        ("bare LF after the data", size + b"\r\n" + BODY + b"\n" + end),
        ("bare LF in an extension", size + b";\n" + data + end),
        ("bare CR in an extension", size + b";a\rb" + data + end),
        ("space before the size", b" " + size + data + end),
        ("size 0x", b"0x" + size + data + end),
        ("size +", b"+" + size + data + end),
        ("size -", b"-" + size + data + end),
        ("no size", data + end),
        ("size beyond 64 bits", b"1" + b"0" * 16 + size + data + end),
        ("size too small", b"5\r\n" + BODY + b"\r\n" + end),
        ("no CRLF after the data", size + b"\r\n" + BODY + end),
        ("bare LF after the last chunk", size + data + b"0\n\n"),
        ("bare LF at the end of trailers", size + data + b"0\r\n\n"),
        ("Content-Length as a trailer", size + data + b"0\r\nContent-Length: 5\r\n\r\n"),
        ("Transfer-Encoding as a trailer", size + data + b"0\r\n" + CHUNKED + b"\r\n\r\n"),
    ):
        yield _refused(name, post(CHUNKED) + body + SMUGGLED)
    yield _ok(
        "trailers that would be refused as headers",
        post(CHUNKED) + _CHUNK + b"0\r\nOrigin: http://evil.example\r\nHost: a b\r\n\r\n",
    )
    extension = post(CHUNKED) + size + b";" + b"a" * 1_000_000 + data + end
    yield _refused("1 MB of extension", extension, statuses=(400, 413, 431))
    filling = b"".join(b"X-%d: %s\r\n" % (number, b"a" * 1000) for number in range(100))
    trailers = post(CHUNKED) + b"2\r\n{}\r\n0\r\n" + filling + b"\r\n"
    yield RawCase("100 KB of trailers", (trailers,), (frozenset({400, 413, 422, 431}),), open=False)


def _bodies_where_none_is_expected() -> Iterator[RawCase]:
    length = _length(SMUGGLED)
    yield _ok("GET with a body", get(length) + SMUGGLED)
    yield _ok("GET with a body in a packet of its own", get(length), SMUGGLED)
    yield _ok("GET with a chunked body", get(CHUNKED) + _chunks(SMUGGLED))
    for method in (b"HEAD", b"OPTIONS", b"DELETE"):
        yield RawCase(
            f"{method.decode()} with a body",
            (get(length).replace(b"GET", method, 1) + SMUGGLED,),
            (frozenset({200, 204, 405}),),
        )
    wrong = b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n" + length
    yield RawCase(
        "refused before its body is read", (wrong + b"\r\n\r\n", SMUGGLED), (frozenset({415}),)
    )
    yield RawCase(
        "no such path", (post(length).replace(b"/embed", b"/nothing") + SMUGGLED,),
        (frozenset({404}),),
    )  # fmt: skip


def _expectations() -> Iterator[RawCase]:
    expecting = post(b"Expect: 100-continue", _length())
    proceed = frozenset({100})
    yield RawCase("100-continue", (expecting, BODY), (proceed, frozenset({200})))
    yield RawCase("100-Continue", (expecting.replace(b"100-c", b"100-C"), BODY),
                  (proceed, frozenset({200})))  # fmt: skip
    yield RawCase(
        "100-continue of HTTP/1.0",
        (post(b"Expect: 100-continue", _length(), version=b"1.0") + BODY,),
        (frozenset({200}),),
        open=False,
    )
    refused = post(b"Expect: 100-continue", b"Content-Length: 99999999")
    yield RawCase(
        "100-continue, refused by its length", (refused, SMUGGLED), (frozenset({413}),), open=False
    )
    yield RawCase(
        "another expectation", (post(b"Expect: tea", _length()) + BODY,), (frozenset({200, 417}),)
    )


def _upgrades() -> Iterator[RawCase]:
    h2c = (
        b"Connection: Upgrade, HTTP2-Settings",
        b"Upgrade: h2c",
        b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
    )
    websocket = (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13")
    for name, lines in (("h2c", h2c), ("websocket", websocket)):
        yield _ok(f"{name} with a body", post(*lines, _length()) + BODY)
        yield _ok(f"{name}, body in a packet of its own", post(*lines, _length()), BODY)
        yield _ok(f"{name} with a chunked body", post(*lines, CHUNKED) + _chunks())
        yield _ok(f"{name}, chunks in a packet of their own", post(*lines, CHUNKED), _chunks())
        yield _ok(f"{name} without a body", get(*lines))
        yield _ok(f"{name}, then a request", get(*lines) + get(), times=2)
        yield _ok(f"{name} fifty times", get(*lines) * 50, times=50)
        yield _ok(f"{name} byte by byte", *(bytes([byte]) for byte in get(*lines)))
    smuggled = post(*h2c, _length(SMUGGLED))
    bad = (frozenset({400}),)
    yield RawCase("h2c with a request as body", (smuggled + SMUGGLED,), bad)
    yield RawCase("h2c with a request as body, in its own packet", (smuggled, SMUGGLED), bad)
    yield _ok(
        "upgrade and close",
        post(b"Connection: close, upgrade", b"Upgrade: h2c", _length()) + BODY + SMUGGLED,
        open=False,
    )
    yield _ok("Upgrade alone", post(b"Upgrade: h2c", _length()) + BODY)
    yield _ok("Connection: Upgrade alone", post(b"Connection: Upgrade", _length()) + BODY)
    yield RawCase(
        "upgrade and 100-continue",
        (post(*h2c, b"Expect: 100-continue", _length()), BODY),
        (frozenset({100}), frozenset({200})),
    )
    both = post(*h2c, _length(), CHUNKED)
    yield _refused("upgrade, a length and chunks", both + _chunks() + SMUGGLED)
    unknown = post(*h2c, b"Transfer-Encoding: xchunked")
    yield _refused("upgrade and xchunked", unknown + _chunks() + SMUGGLED, statuses=(400, 501))
    yield _refused("upgrade and a broken chunk", post(*h2c, CHUNKED) + b"zz\r\n" + SMUGGLED)
    yield _ok(
        "upgrade of HTTP/1.0", post(*h2c, _length(), version=b"1.0") + BODY + SMUGGLED, open=False
    )
    for file, statuses in (("h01.raw", {200}), ("h06.raw", {400})):
        packets = tuple((CASES / file).read_bytes().split(PAUSE))
        yield RawCase(f"{file} in its packets", packets, (frozenset(statuses),))
        yield RawCase(f"{file} in one packet", (b"".join(packets),), (frozenset(statuses),))


def _many_at_once() -> Iterator[RawCase]:
    asking = post(_length()) + BODY
    yield _ok("three at once", get() * 3, times=3)
    yield _ok("bodies in between", asking + get() + asking, times=3)
    yield _ok("the last in pieces", get() + asking[:30], asking[30:200], asking[200:], times=2)
    yield _ok("nothing after close", get(b"Connection: close") + SMUGGLED, open=False)
    yield _ok("close in a list", get(b"Connection: foo, Close") + SMUGGLED, open=False)
    both = (frozenset({200}), frozenset({400}))
    yield RawCase("nonsense after a request", (asking + b"\x00\x01\x02",), both, open=False)
    yield RawCase(
        "a broken body after a request", (asking + post(CHUNKED) + b"zz\r\n",), both, open=False
    )
    yield RawCase("two without Host", (asking + b"GET / HTTP/1.1\r\n\r\n" * 2,), both, open=False)


def _half_closed() -> Iterator[RawCase]:
    asking = post(_length()) + BODY
    ok = frozenset({200})
    for name, packets, responses in (
        ("GET, half-closed", (get(),), (ok,)),
        ("POST, half-closed", (asking,), (ok,)),
        ("chunked POST, half-closed", (post(CHUNKED) + _chunks(),), (ok,)),
        ("three, half-closed", (asking + get() + asking,), (ok, ok, ok)),
        ("one and a half, half-closed", (asking + asking[:-5],), (ok,)),
        ("one and half a head, half-closed", (asking + b"GET /he",), (ok,)),
        ("half of one, half-closed", (asking[:-5],), ()),
        ("half a head, half-closed", (b"GET /health/live HTTP/1.1\r\nHo",), ()),
        ("nothing, half-closed", (), ()),
    ):
        yield RawCase(name, packets, responses, open=False, ends=True)


def _large_heads() -> Iterator[RawCase]:
    yield _ok("head of 60 KB", get(b"X-A: " + b"a" * 60_000))
    yield _ok("head of 60 KB in many headers", get(*(b"X-%d: aaaa" % n for n in range(4500))))
    for size in (100_000, 1_000_000):
        large = get(b"X-A: " + b"a" * size)
        yield _refused(f"one header of {size} bytes", large, statuses=(431,))
        many = get(*(b"X-%d: %s" % (number, b"a" * 990) for number in range(size // 1000)))
        yield _refused(f"headers of {size} bytes", many, statuses=(431,))
        body = post(b"X-A: " + b"a" * size, _length()) + BODY
        yield _refused(f"header of {size} bytes before a body", body, statuses=(431,))
    yield _refused("target of 100 KB", get(path=b"/" + b"a" * 100_000), statuses=(414, 431))
    small = get(*(b"a:" for _ in range(30_000)))
    yield _refused("30,000 headers of three bytes", small, statuses=(431,))
