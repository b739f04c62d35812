"""The questions that cameras ask: the same one again, and what a scene usually looks like."""

from typing import Annotated

from litestar.di import NamedDependency
from litestar.params import Body

from application.use_cases.baseline import BuildBaseline
from application.use_cases.compare import CompareSightings, Sighting
from entrypoints.http.bodies.json_bodies import JsonRequest, WrongShape
from entrypoints.http.middleware.disconnects import unless_gone
from entrypoints.http.routes.question import Stopwatch, question
from entrypoints.http.schemas import examples
from entrypoints.http.schemas.cameras import (
    BaselineAnswer,
    BaselineRequest,
    CompareAnswer,
    CompareRequest,
    Spread,
)


@question("/compare", CompareAnswer)
async def compare(
    request: JsonRequest,
    data: Annotated[CompareRequest, Body(examples=[examples.COMPARE])],
    compare_sightings: NamedDependency[CompareSightings],
) -> CompareAnswer:
    """Whether two sightings, as images or embeddings, show the same person or vehicle."""
    watch = Stopwatch()
    match = await unless_gone(
        request,
        compare_sightings(
            _one_of("a", data.image_a, data.embedding_a),
            _one_of("b", data.image_b, data.embedding_b),
            threshold=data.threshold,
        ),
    )
    return CompareAnswer(
        similarity=match.similarity,
        same_entity=match.same_entity,
        threshold=match.threshold,
        inference_time_ms=watch.milliseconds,
    )


@question("/baseline", BaselineAnswer)
async def baseline(
    request: JsonRequest,
    data: Annotated[BaselineRequest, Body(examples=[examples.BASELINE])],
    build_baseline: NamedDependency[BuildBaseline],
) -> BaselineAnswer:
    """What a scene usually looks like, from frames of it, and from which score on it does not."""
    watch = Stopwatch()
    scene = await unless_gone(request, build_baseline(data.images, data.embeddings))
    return BaselineAnswer(
        baseline_embedding=scene.embedding.vector.tolist(),
        count=scene.count,
        spread=Spread(
            mean_similarity=scene.spread.mean,
            std_similarity=scene.spread.deviation,
            min_similarity=scene.spread.lowest,
            max_similarity=scene.spread.highest,
        ),
        suggested_threshold=scene.suggested_threshold,
        inference_time_ms=watch.milliseconds,
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
