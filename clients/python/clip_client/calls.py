"""Each endpoint as a function that makes its request. Reads files, so it may block."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar, cast

import msgspec
from msgspec import Struct

from clip_client.errors import InvalidInput, Refused
from clip_client.exchange import Call, Result, read_as, refusal
from clip_client.images import ImageSource, image_file
from clip_client.results import AnomalyScore, Baseline, Classification, Comparison, Health, Spread
from clip_client.vectors import Embedding, Vector, fingerprint_of, is_vector, numbers_of

_Item = TypeVar("_Item")

ImageOrVector: TypeAlias = ImageSource | Vector
"""An image, or an embedding of one: a sequence of numbers or a one-dimensional array."""


def embed(image: ImageSource) -> Call[Embedding]:
    """``POST /embed``."""
    return _post("/embed", _read_embedding, image=image_file(image))


def embed_batch(images: Sequence[ImageSource]) -> Call[list[Embedding | Refused]]:
    """``POST /embed/batch``."""
    files = [image_file(image) for image in _several("images", images)]
    return _post("/embed/batch", _read_batch, images=files)


def anomaly_score(
    image: ImageSource, baseline: Vector, *, threshold: float | None = None
) -> Call[AnomalyScore]:
    """``POST /anomaly-score``."""
    return _post(
        "/anomaly-score",
        read_as(AnomalyScore),
        fingerprint_of([baseline]),
        image=image_file(image),
        baseline_embedding=numbers_of(baseline),
        **_given(threshold=threshold),
    )


def classify(
    image: ImageSource,
    labels: Sequence[str],
    *,
    use_ensemble: bool = False,
    camera_type: str | None = None,
    score: str | None = None,
) -> Call[Classification]:
    """``POST /classify``."""
    return _post(
        "/classify",
        read_as(Classification),
        image=image_file(image),
        labels=_several("labels", labels),
        use_ensemble=use_ensemble,
        **_given(camera_type=camera_type, score=score),
    )


def similarity(image: ImageSource, text: str) -> Call[float]:
    """``POST /similarity``."""
    return _post("/similarity", _read_similarity, image=image_file(image), text=text)


def batch_similarity(image: ImageSource, texts: Sequence[str]) -> Call[dict[str, float]]:
    """``POST /batch-similarity``."""
    return _post(
        "/batch-similarity",
        _read_similarities,
        image=image_file(image),
        texts=_several("texts", texts),
    )


def compare(
    a: ImageOrVector, b: ImageOrVector, *, threshold: float | None = None
) -> Call[Comparison]:
    """``POST /compare``."""
    sides = {"a": _image_or_numbers(a), "b": _image_or_numbers(b)}
    return _post(
        "/compare",
        read_as(Comparison),
        fingerprint_of([a, b]),
        **{
            f"{'image' if isinstance(side, bytes) else 'embedding'}_{name}": side
            for name, side in sides.items()
        },
        **_given(threshold=threshold),
    )


def baseline(frames: Sequence[ImageOrVector]) -> Call[Baseline]:
    """``POST /baseline``."""
    sent = [_image_or_numbers(frame) for frame in _several("frames", frames)]
    return _post(
        "/baseline",
        _read_baseline,
        fingerprint_of(frames),
        images=[frame for frame in sent if isinstance(frame, bytes)],
        embeddings=[frame for frame in sent if not isinstance(frame, bytes)],
    )


def health() -> Call[Health]:
    """``GET /health``."""
    return Call("GET", "/health", read_as(Health))


class _EmbedResponse(Struct):
    embedding: list[float]


class _ItemError(Struct):
    status: int
    code: str
    detail: str


class _BatchItem(Struct):
    embedding: list[float] | None
    error: _ItemError | None


class _BatchResponse(Struct):
    results: list[_BatchItem]


class _SimilarityResponse(Struct):
    similarity: float


class _BatchSimilarityResponse(Struct):
    similarities: dict[str, float]


class _BaselineResponse(Struct):
    baseline_embedding: list[float]
    count: int
    spread: Spread
    suggested_threshold: float | None
    inference_time_ms: float


def _read_embedding(body: bytes, fingerprint: str | None) -> Embedding:
    decoded = msgspec.json.decode(body, type=_EmbedResponse)
    return Embedding(decoded.embedding, fingerprint=fingerprint)


def _read_batch(body: bytes, fingerprint: str | None) -> list[Embedding | Refused]:
    return [
        _read_item(item, fingerprint)
        for item in msgspec.json.decode(body, type=_BatchResponse).results
    ]


def _read_item(item: _BatchItem, fingerprint: str | None) -> Embedding | Refused:
    if item.embedding is not None:
        return Embedding(item.embedding, fingerprint=fingerprint)
    if item.error is None:
        raise msgspec.ValidationError("an item has neither an embedding nor an error")
    return refusal(item.error.status, item.error.code, item.error.detail, request_id=None)


def _read_similarity(body: bytes, _: str | None) -> float:
    return msgspec.json.decode(body, type=_SimilarityResponse).similarity


def _read_similarities(body: bytes, _: str | None) -> dict[str, float]:
    return msgspec.json.decode(body, type=_BatchSimilarityResponse).similarities


def _read_baseline(body: bytes, fingerprint: str | None) -> Baseline:
    decoded = msgspec.json.decode(body, type=_BaselineResponse)
    return Baseline(
        embedding=Embedding(decoded.baseline_embedding, fingerprint=fingerprint),
        count=decoded.count,
        spread=decoded.spread,
        suggested_threshold=decoded.suggested_threshold,
        inference_time_ms=decoded.inference_time_ms,
    )


def _post(
    path: str,
    read: Callable[[bytes, str | None], Result],
    fingerprint: str | None = None,
    **fields: Any,
) -> Call[Result]:
    # msgspec writes bytes as base64, which is how the server takes images.
    try:
        body = msgspec.json.encode(fields)
    except UnicodeEncodeError as invalid:
        raise InvalidInput(
            f"the text {invalid.object[:60]!a} holds half a character (a surrogate) at "
            f"position {invalid.start}, as text that was decoded wrongly does; decode it with its "
            "own encoding."
        ) from invalid
    return Call("POST", path, read, body, fingerprint)


def _given(**optional: Any) -> dict[str, Any]:
    """Only what was given: defaults are the server's to choose."""
    return {name: value for name, value in optional.items() if value is not None}


def _several(name: str, items: Sequence[_Item]) -> Sequence[_Item]:
    if isinstance(items, str | bytes):
        raise InvalidInput(f"{name} is one {type(items).__name__}; give a list.")
    return list(items)


def _image_or_numbers(source: ImageOrVector) -> bytes | list[float]:
    if is_vector(source):
        return numbers_of(cast(Vector, source))
    return image_file(cast(ImageSource, source))
