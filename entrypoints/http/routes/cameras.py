"""Endpoints for cameras: re-identification, and how a scene usually looks."""

from typing import Final

from application.use_cases.compare import Sighting
from entrypoints.http.errors.table import WrongShape
from entrypoints.http.routes.endpoint import Call, Endpoint
from entrypoints.http.schemas.cameras import (
    BaselineRequest,
    BaselineResponse,
    CompareRequest,
    CompareResponse,
    Spread,
)


async def compare(call: Call[CompareRequest]) -> CompareResponse:
    """Whether two sightings, as images or embeddings, show the same person or vehicle.

    A form holds the files `image_a` and `image_b`; a raw image is `image_a`, with `embedding_b` in
    the query.
    """
    sent = call.data
    match = await call.use.compare_sightings(
        _one_of("a", sent.image_a, sent.embedding_a),
        _one_of("b", sent.image_b, sent.embedding_b),
        threshold=sent.threshold,
    )
    return CompareResponse(
        similarity=match.similarity,
        same_entity=match.same_entity,
        threshold=match.threshold,
        inference_time_ms=call.milliseconds,
    )


async def baseline(call: Call[BaselineRequest]) -> BaselineResponse:
    """How a scene usually looks, from frames of it, and which anomaly scores are unusual.

    A form holds a file `images` for each frame; a raw image is a single frame.
    """
    scene = await call.use.build_baseline(call.data.images, call.data.embeddings)
    return BaselineResponse(
        baseline_embedding=scene.embedding.vector.tolist(),
        count=scene.count,
        spread=Spread(
            mean_similarity=scene.spread.mean,
            std_similarity=scene.spread.deviation,
            min_similarity=scene.spread.lowest,
            max_similarity=scene.spread.highest,
        ),
        suggested_threshold=scene.suggested_threshold,
        inference_time_ms=call.milliseconds,
    )


ENDPOINTS: Final = (
    Endpoint("/compare", CompareRequest, compare, CompareResponse),
    Endpoint("/baseline", BaselineRequest, baseline, BaselineResponse),
)


def _one_of(side: str, image: bytes | None, embedding: list[float] | None) -> Sighting:
    if image is not None and embedding is None:
        return image
    if embedding is not None and image is None:
        return embedding
    sent = "neither was" if image is None else "both were"
    raise WrongShape(
        f"{sent} sent of image_{side} and embedding_{side}; send exactly one of them.",
        code="image_or_embedding",
    )
