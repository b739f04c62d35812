"""JSON bodies of every endpoint: the request, or the error that says what is wrong."""

from collections.abc import Iterator
from typing import Final

from domain.errors import InvalidInput
from entrypoints.http.bodies.json import decode_json
from entrypoints.http.schemas import cameras, embeddings, images, openai
from tests.support.hostile_corpus import UNICODE, VALID_REQUESTS, request_body

_KINDS: Final = (
    images.EmbedRequest,
    images.AnomalyScoreRequest,
    images.ClassifyRequest,
    images.SimilarityRequest,
    images.BatchSimilarityRequest,
    embeddings.EmbedBatchRequest,
    embeddings.EmbedTextRequest,
    cameras.CompareRequest,
    cameras.BaselineRequest,
    openai.EmbeddingsRequest,
)


def run(data: bytes) -> None:
    if not data:
        return
    kind = _KINDS[data[0] % len(_KINDS)]
    try:
        body = decode_json(data[1:], kind).data
    except InvalidInput:
        return
    assert isinstance(body, kind)


def seeds() -> Iterator[bytes]:
    fields = {"image": "AAAA", "images": ["AAAA"], "image_a": "AAAA", "image_b": " AA\nAA"}
    for place, path in enumerate(VALID_REQUESTS):
        sent = {name: fields[name] for name in fields if name in VALID_REQUESTS[path]}
        yield bytes([place]) + request_body(path, **sent)
    yield b'\0{"image": "data:image/png;base64,AA%41A%3D"}'
    yield b'\0{"image": [[[[]]]], "x": {"y": [NaN, 1e999]}}'
    for text in UNICODE.values():
        yield b"\6" + request_body("/embed/text", texts=[text])
