"""Forms: the request, or the error that says what is wrong."""

from collections.abc import Iterator

from domain.errors import InvalidInput
from entrypoints.http.bodies.form import decode_form
from entrypoints.http.schemas.images import EmbedRequest
from tests.support.hostile_corpus import BOUNDARY, END, part


def run(data: bytes) -> None:
    try:
        sent = decode_form(data, EmbedRequest, BOUNDARY)
    except InvalidInput:
        return
    assert sent.data.image in data


def seeds() -> Iterator[bytes]:
    yield part("image", b"picture") + END
    yield part("file", b"", more="Content-Type: image/jpeg\r\n") + END
    yield part("x", b"1") + part("image", b"\r\n--b") + END
    yield part("image", b"\r\n--b-", filename="../x\0") + END
    yield END
