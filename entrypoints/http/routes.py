"""One handler for each call of the contract: body in, use case, answer out."""

import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import Body
from msgspec import Struct

from application.classify_image import ClassifyImage, Ensemble
from application.compare_texts import CompareTexts
from application.embed_image import EmbedImage
from application.report_health import Health, ReportHealth
from application.score_anomaly import ScoreAnomaly
from domain.prompts import CameraType
from entrypoints.http import examples
from entrypoints.http.disconnects import unless_gone
from entrypoints.http.json_bodies import JsonRequest
from entrypoints.http.problems import MEDIA_TYPE
from entrypoints.http.schemas import (
    AnomalyScoreAnswer,
    AnomalyScoreRequest,
    BatchSimilarityAnswer,
    BatchSimilarityRequest,
    ClassifyAnswer,
    ClassifyRequest,
    EmbedAnswer,
    EmbedRequest,
    EnsembleMetadata,
    HealthAnswer,
    LivenessAnswer,
    Problem,
    ReadinessAnswer,
    SimilarityAnswer,
    SimilarityRequest,
)

_BYTES_PER_GIB: Final = 1024**3

_PROBLEMS: Final = {
    status: ResponseSpec(
        data_container=Problem, description=what, media_type=MEDIA_TYPE, generate_examples=False
    )
    for status, what in (
        (400, "The body is not JSON."),
        (413, "The body or the decoded image is too large."),
        (415, "The body is not declared as JSON."),
        (422, "A field is missing, of the wrong type, or breaks a limit."),
        (500, "Something unforeseen; the server's log has it under the request id."),
        (503, "No model loaded, starting, shutting down, or too busy; see `Retry-After`."),
    )
}


def _question(path: str, answer: type[Struct]) -> Callable[[Callable[..., Any]], HTTPRouteHandler]:
    """A POST that answers 200 and documents its errors and an example."""
    success = ResponseSpec(
        data_container=answer,
        description="The answer.",
        examples=[examples.ANSWERS[path]],
        generate_examples=False,
    )
    return post(path, status_code=200, responses={200: success, **_PROBLEMS}, tags=["questions"])


class _Stopwatch:
    """Milliseconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def milliseconds(self) -> float:
        return round((time.perf_counter() - self._start) * 1000, 3)


@_question("/embed", EmbedAnswer)
async def embed(
    request: JsonRequest,
    data: Annotated[EmbedRequest, Body(examples=[examples.EMBED])],
    embed_image: NamedDependency[EmbedImage],
) -> EmbedAnswer:
    """The image as a unit vector, to be stored and compared."""
    watch = _Stopwatch()
    embedding = await unless_gone(request, embed_image(data.image))
    return EmbedAnswer(embedding.vector.tolist(), watch.milliseconds)


@_question("/anomaly-score", AnomalyScoreAnswer)
async def anomaly_score(
    request: JsonRequest,
    data: Annotated[AnomalyScoreRequest, Body(examples=[examples.ANOMALY_SCORE])],
    score_anomaly: NamedDependency[ScoreAnomaly],
) -> AnomalyScoreAnswer:
    """How far the image has moved from a baseline embedding."""
    watch = _Stopwatch()
    anomaly = await unless_gone(request, score_anomaly(data.image, data.baseline_embedding))
    return AnomalyScoreAnswer(anomaly.score, anomaly.similarity, watch.milliseconds)


@_question("/classify", ClassifyAnswer)
async def classify(
    request: JsonRequest,
    data: Annotated[ClassifyRequest, Body(examples=[examples.CLASSIFY])],
    classify_image: NamedDependency[ClassifyImage],
) -> ClassifyAnswer:
    """Which of the labels fits the image, as probabilities."""
    watch = _Stopwatch()
    camera_type = CameraType.named(data.camera_type)
    asked = camera_type if data.use_ensemble else None
    result = await unless_gone(request, classify_image(data.image, data.labels, camera_type=asked))
    return ClassifyAnswer(
        scores=result.classification.scores,
        top_label=result.classification.top_label,
        inference_time_ms=watch.milliseconds,
        ensemble_metadata=_ensemble_metadata(result.ensemble),
    )


@_question("/similarity", SimilarityAnswer)
async def similarity(
    request: JsonRequest,
    data: Annotated[SimilarityRequest, Body(examples=[examples.SIMILARITY])],
    compare_texts: NamedDependency[CompareTexts],
) -> SimilarityAnswer:
    """How well a text describes the image."""
    watch = _Stopwatch()
    cosine = await unless_gone(request, compare_texts.one(data.image, data.text))
    return SimilarityAnswer(cosine, watch.milliseconds)


@_question("/batch-similarity", BatchSimilarityAnswer)
async def batch_similarity(
    request: JsonRequest,
    data: Annotated[BatchSimilarityRequest, Body(examples=[examples.BATCH_SIMILARITY])],
    compare_texts: NamedDependency[CompareTexts],
) -> BatchSimilarityAnswer:
    """How well each of several texts describes the image."""
    watch = _Stopwatch()
    cosines = await unless_gone(request, compare_texts.many(data.image, data.texts))
    return BatchSimilarityAnswer(cosines, watch.milliseconds)


@get("/health", sync_to_thread=False, tags=["health"])
def health(report_health: NamedDependency[ReportHealth]) -> HealthAnswer:
    """What is loaded and on what. 200 whether healthy or degraded."""
    return _health_answer(report_health())


@get("/health/live", sync_to_thread=False, tags=["health"])
def live() -> LivenessAnswer:
    """200 as long as the process answers."""
    return LivenessAnswer(status="alive")


@get(
    "/health/ready",
    sync_to_thread=False,
    tags=["health"],
    responses={
        503: ResponseSpec(ReadinessAnswer, description="Not ready.", generate_examples=False)
    },
)
def ready(report_health: NamedDependency[ReportHealth]) -> Response[ReadinessAnswer]:
    """200 if a request sent now would be taken, else 503."""
    now = report_health()
    return Response(
        ReadinessAnswer(ready=now.ready, reason=now.reason), status_code=200 if now.ready else 503
    )


ROUTES: Final[Sequence[HTTPRouteHandler]] = (
    embed,
    anomaly_score,
    classify,
    similarity,
    batch_similarity,
    health,
    live,
    ready,
)


def _ensemble_metadata(ensemble: Ensemble | None) -> EnsembleMetadata | None:
    if ensemble is None:
        return None
    return EnsembleMetadata(
        templates_used=list(ensemble.templates),
        num_templates=len(ensemble.templates),
        camera_type=str(ensemble.camera_type),
        ensemble_method=ensemble.method,
    )


def _health_answer(now: Health) -> HealthAnswer:
    encoder = now.encoder
    used = now.device_memory_used
    return HealthAnswer(
        status="degraded" if encoder is None else "healthy",
        model=None if encoder is None else encoder.model,
        model_loaded=encoder is not None,
        device=None if now.device is None else now.device.name,
        cuda_available=now.device is not None and now.device.cuda_available,
        vram_used_gb=None if used is None else round(used / _BYTES_PER_GIB, 3),
        embedding_dimension=now.embedding_dimension,
        backend=None if encoder is None else encoder.backend,
        tensorrt_engine_path=None if encoder is None else encoder.engine_path,
        precision=None if encoder is None else encoder.precision,
        model_fingerprint=None if encoder is None else encoder.fingerprint,
        reason=now.reason,
    )
