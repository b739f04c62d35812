"""Our own scanners of JSON, base64, forms and headers take linear time at their worst inputs.

Eight times the input may take at most three times eight times as long: a quadratic scanner takes
64 times. The fastest of several runs counts, so that a busy machine decides nothing.
"""

import contextlib
import time
from collections.abc import Callable
from typing import Any, Final

import pytest

from domain.errors import ClipError
from entrypoints.http.bodies.base64_images import decode_image, is_data_uri
from entrypoints.http.bodies.form import decode_form
from entrypoints.http.bodies.json import decode_json
from entrypoints.http.routes.endpoint import content_type_of, query_fields
from entrypoints.http.routes.openai import inputs_of
from entrypoints.http.schemas.cameras import BaselineRequest
from entrypoints.http.schemas.images import ClassifyRequest, EmbedRequest
from entrypoints.http.schemas.openai import EmbeddingsRequest
from entrypoints.server.client_limits import MAX_HEAD_BYTES

SMALL: Final = 500_000
SMALL_HEAD: Final = MAX_HEAD_BYTES // 8
TIMES: Final = 8
SLACK: Final = 3
LEAST_S: Final = 0.02
"""Below it, time is the machine's and not the scanner's."""

Scan = Callable[[bytes], Any]


def filled(head: bytes, unit: bytes, tail: bytes = b"") -> Callable[[int], bytes]:
    return lambda size: head + unit * (size // len(unit)) + tail


def as_json(kind: type[Any]) -> Scan:
    return lambda body: decode_json(body, kind)


def as_form(body: bytes) -> Any:
    return decode_form(body, ClassifyRequest, "x")


def as_image(body: bytes) -> Any:
    return decode_image(body.decode(), name="image")


def as_input(body: bytes) -> Any:
    return inputs_of(body.decode(), None, check_texts=True)


def as_header(body: bytes) -> Any:
    return content_type_of({"headers": [(b"content-type", body)]})


def as_query(body: bytes) -> Any:
    return query_fields(body)


PART: Final = b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\n'
WORST: Final[dict[str, tuple[Scan, Callable[[int], bytes]]]] = {
    "JSON: nested lists": (as_json(EmbedRequest), filled(b'{"x":', b"[")),
    "JSON: nested objects": (as_json(EmbedRequest), filled(b"", b'{"x":')),
    "JSON: unknown fields": (as_json(EmbedRequest), filled(b'{"image":"",', b'"a":1,', b'"b":1}')),
    "JSON: a long name": (as_json(EmbedRequest), filled(b'{"image":"","', b"i", b'":1}')),
    "JSON: escapes": (as_json(EmbedRequest), filled(b'{"image":"', b"\\n", b'"}')),
    "JSON: escaped pairs": (as_json(EmbedRequest), filled(b'{"image":"', b"\\ud83d\\ude00", b'"}')),
    "JSON: numbers": (as_json(BaselineRequest), filled(b'{"embeddings":[[', b"1,", b"1]]}")),
    "JSON: large exponents": (
        as_json(BaselineRequest),
        filled(b'{"embeddings":[[', b"1.5e300,", b"1]]}"),
    ),
    "JSON: almost large exponents": (
        as_json(BaselineRequest),
        filled(b'{"embeddings":[[' + b"1," * 2000, b"1", b"e30]]}"),
    ),
    "JSON: spaces after commas": (
        as_json(BaselineRequest),
        filled(b'{"embeddings":[[' + b"1," * 2000, b" ", b"1]]}"),
    ),
    "JSON: one number": (as_json(BaselineRequest), filled(b'{"embeddings":[[', b"1", b"]]}")),
    "JSON: white space": (as_json(EmbedRequest), filled(b"", b" ", b"{")),
    "JSON: texts": (as_json(EmbeddingsRequest), filled(b'{"input":[', b'"a",', b'"a"]}')),
    "base64: white space in JSON": (as_json(EmbedRequest), filled(b'{"image":"', b"AA AA", b'"}')),
    "base64: white space": (as_image, filled(b"", b" \n", b"A")),
    "base64: broken lines": (as_image, filled(b"", b"AAAA\r\n")),
    "base64: escapes": (as_image, filled(b"data:;base64,", b"%41")),
    "base64: broken escapes": (as_image, filled(b"data:;base64,", b"%4%4")),
    "base64: white space before a head": (as_image, filled(b"", b" ", b"data:x")),
    "base64: heads": (as_image, filled(b"", b"data:;base64,")),
    "base64: padding": (as_image, filled(b"", b"=")),
    "a text: white space": (as_input, filled(b"", b" ", b"https://x y")),
    "a text: an address": (as_input, filled(b"https://", b"x", b" y")),
    "a text: base64": (as_input, filled(b"/9j/", b"A", b" ")),
    "a data URI": (lambda text: is_data_uri(text.decode()), filled(b"", b" data:", b"")),
    "a form: near its boundary": (as_form, filled(PART, b"\r\n--", b"\r\n--x--\r\n")),
    "a form: nearer its boundary": (as_form, filled(PART, b"\r\n--x-", b"\r\n--x--\r\n")),
    "a form: line ends": (as_form, filled(PART, b"\r\n", b"\r\n--x--\r\n")),
    "a form: carriage returns": (as_form, filled(PART, b"\r", b"\r\n--x--\r\n")),
    "a form: before its first part": (as_form, filled(b"", b"\r\n--y", b"")),
    "a form: a header that does not end": (as_form, filled(PART[:-4], b"; a=b", b"\r\n\r\n")),
    "a form: headers": (as_form, filled(PART[:-2], b"A: b\r\n", b"\r\n")),
    "a form: an array": (
        as_form, filled(PART.replace(b"image", b"labels"), b"[", b"\r\n--x--\r\n"),
    ),
    "a header: parameters": (as_header, filled(b"multipart/form-data", b"; a=b")),
    "a header: quotes": (as_header, filled(b"multipart/form-data; boundary=", b'"')),
    "a header: escaped quotes": (as_header, filled(b'multipart/form-data; boundary="', b'\\"')),
    "a header: semicolons": (as_header, filled(b"multipart/form-data", b";")),
    "a header: spaces": (as_header, filled(b"multipart/form-data;", b" ", b"a")),
    "a query: fields": (as_query, filled(b"", b"a&")),
    "a query: escapes": (as_query, filled(b"text=", b"%41")),
    "a query: broken escapes": (as_query, filled(b"text=", b"%4")),
}  # fmt: skip


def fastest_s(scan: Scan, data: bytes) -> float:
    times = []
    for _ in range(3):
        started_s = time.process_time()
        with contextlib.suppress(ClipError):  # refusing is an outcome like any other
            scan(data)
        times.append(time.process_time() - started_s)
    return min(times)


@pytest.mark.parametrize("name", WORST)
def test_eight_times_the_input_takes_about_eight_times_as_long(name: str) -> None:
    scan, of_size = WORST[name]
    size = SMALL_HEAD if name.startswith(("a header", "a query")) else SMALL
    small, large = of_size(size), of_size(size * TIMES)
    longest_s = max(fastest_s(scan, small), LEAST_S) * TIMES * SLACK
    assert fastest_s(scan, large) < longest_s
