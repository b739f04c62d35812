"""One handler for each question of the contract: body in, use case, answer out."""

from typing import Annotated

from litestar.di import NamedDependency
from litestar.params import Body
from msgspec import UNSET

from application.use_cases.anomaly import ScoreAnomaly
from application.use_cases.classify import ClassifyImage, Ensemble
from application.use_cases.compare import CompareTexts
from application.use_cases.embed import EmbedImage
from domain.prompts import CameraType
from entrypoints.http.bodies.image_bodies import ImageOperation, ImageRequest
from entrypoints.http.bodies.json_bodies import JsonRequest
from entrypoints.http.middleware.disconnects import unless_gone
from entrypoints.http.routes.question import Stopwatch, question
from entrypoints.http.schemas import examples
from entrypoints.http.schemas.contract import (
    AnomalyScoreAnswer,
    AnomalyScoreRequest,
    BatchSimilarityAnswer,
    BatchSimilarityRequest,
    ClassifyAnswer,
    ClassifyRequest,
    EmbedAnswer,
    EmbedRequest,
    EnsembleMetadata,
    SimilarityAnswer,
    SimilarityRequest,
)


@question("/embed", EmbedAnswer, request_class=ImageRequest, operation_class=ImageOperation)
async def embed(
    request: ImageRequest,
    data: Annotated[EmbedRequest, Body(examples=[examples.EMBED])],
    embed_image: NamedDependency[EmbedImage],
) -> EmbedAnswer:
    """The image as a unit vector, to be stored and compared.

    It may also be sent as it is (`Content-Type: image/jpeg` and so on, or
    `application/octet-stream`), or as the file `image` or `file` of a form.
    """
    watch = Stopwatch()
    embedding = await unless_gone(request, embed_image(data.image))
    return EmbedAnswer(embedding.vector.tolist(), watch.milliseconds)


@question("/anomaly-score", AnomalyScoreAnswer)
async def anomaly_score(
    request: JsonRequest,
    data: Annotated[AnomalyScoreRequest, Body(examples=[examples.ANOMALY_SCORE])],
    score_anomaly: NamedDependency[ScoreAnomaly],
) -> AnomalyScoreAnswer:
    """How far the image has moved from a baseline embedding."""
    watch = Stopwatch()
    anomaly = await unless_gone(
        request, score_anomaly(data.image, data.baseline_embedding, threshold=data.threshold)
    )
    return AnomalyScoreAnswer(
        anomaly_score=anomaly.score,
        similarity_to_baseline=anomaly.similarity,
        inference_time_ms=watch.milliseconds,
        is_anomaly=UNSET if anomaly.over_threshold is None else anomaly.over_threshold,
    )


@question("/classify", ClassifyAnswer)
async def classify(
    request: JsonRequest,
    data: Annotated[ClassifyRequest, Body(examples=[examples.CLASSIFY])],
    classify_image: NamedDependency[ClassifyImage],
) -> ClassifyAnswer:
    """Which of the labels fits the image, as probabilities."""
    watch = Stopwatch()
    camera_type = CameraType.named(data.camera_type)
    asked = camera_type if data.use_ensemble else None
    result = await unless_gone(request, classify_image(data.image, data.labels, camera_type=asked))
    return ClassifyAnswer(
        scores=result.classification.scores,
        top_label=result.classification.top_label,
        inference_time_ms=watch.milliseconds,
        ensemble_metadata=_ensemble_metadata(result.ensemble),
    )


@question("/similarity", SimilarityAnswer)
async def similarity(
    request: JsonRequest,
    data: Annotated[SimilarityRequest, Body(examples=[examples.SIMILARITY])],
    compare_texts: NamedDependency[CompareTexts],
) -> SimilarityAnswer:
    """How well a text describes the image."""
    watch = Stopwatch()
    cosine = await unless_gone(request, compare_texts.one(data.image, data.text))
    return SimilarityAnswer(cosine, watch.milliseconds)


@question("/batch-similarity", BatchSimilarityAnswer)
async def batch_similarity(
    request: JsonRequest,
    data: Annotated[BatchSimilarityRequest, Body(examples=[examples.BATCH_SIMILARITY])],
    compare_texts: NamedDependency[CompareTexts],
) -> BatchSimilarityAnswer:
    """How well each of several texts describes the image."""
    watch = Stopwatch()
    cosines = await unless_gone(request, compare_texts.many(data.image, data.texts))
    return BatchSimilarityAnswer(cosines, watch.milliseconds)


def _ensemble_metadata(ensemble: Ensemble | None) -> EnsembleMetadata | None:
    if ensemble is None:
        return None
    return EnsembleMetadata(
        templates_used=list(ensemble.templates),
        num_templates=len(ensemble.templates),
        camera_type=str(ensemble.camera_type),
        ensemble_method=ensemble.method,
    )
