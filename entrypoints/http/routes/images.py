"""Endpoints about one image: embedding, anomaly score, labels, and how well texts describe it."""

from typing import Final

from msgspec import UNSET

from application.use_cases.classify import Ensemble
from domain.classification import Score
from domain.prompts import CameraType
from entrypoints.http.routes.endpoint import Call, Endpoint
from entrypoints.http.schemas.images import (
    AnomalyScoreRequest,
    AnomalyScoreResponse,
    BatchSimilarityRequest,
    BatchSimilarityResponse,
    ClassifyRequest,
    ClassifyResponse,
    EmbedRequest,
    EmbedResponse,
    EnsembleMetadata,
    SimilarityRequest,
    SimilarityResponse,
)


async def embed(call: Call[EmbedRequest]) -> EmbedResponse:
    """The image as a unit vector, to be stored and compared.

    The image may also be the whole body (`Content-Type: image/jpeg` and so on, or
    `application/octet-stream`), or the file `image` or `file` of a form.

    With `Accept: application/octet-stream` the response is the bare vector: little-endian float32.
    """
    embedding = await call.use.embed_image(call.data.image)
    return EmbedResponse(embedding.vector.tolist(), call.milliseconds)


async def anomaly_score(call: Call[AnomalyScoreRequest]) -> AnomalyScoreResponse:
    """How far the image has moved from a baseline embedding.

    Form or raw image: as for `/embed`, the other fields in the form or the query.
    """
    sent = call.data
    anomaly = await call.use.score_anomaly(
        sent.image, sent.baseline_embedding, threshold=sent.threshold
    )
    return AnomalyScoreResponse(
        anomaly_score=anomaly.score,
        similarity_to_baseline=anomaly.similarity,
        inference_time_ms=call.milliseconds,
        is_anomaly=UNSET if anomaly.over_threshold is None else anomaly.over_threshold,
    )


async def classify(call: Call[ClassifyRequest]) -> ClassifyResponse:
    """Which of the labels fits the image, as probabilities.

    Form or raw image: as for `/embed`, the other fields in the form or the query, with one
    `labels` for each label or all of them as a JSON array.
    """
    sent = call.data
    standard = CameraType.STANDARD
    camera_type = standard if sent.camera_type is UNSET else CameraType.named(sent.camera_type)
    ensemble = sent.use_ensemble
    if ensemble is UNSET:
        ensemble = sent.camera_type is not UNSET or call.use.ensemble_by_default
    result = await call.use.classify_image(
        sent.image,
        sent.labels,
        camera_type=camera_type if ensemble else None,
        score=Score.SOFTMAX if sent.score is UNSET else Score.named(sent.score),
    )
    return ClassifyResponse(
        scores=result.classification.scores,
        top_label=result.classification.top_label,
        inference_time_ms=call.milliseconds,
        ensemble_metadata=_ensemble_metadata(result.ensemble),
    )


async def similarity(call: Call[SimilarityRequest]) -> SimilarityResponse:
    """How well a text describes the image.

    Form or raw image: as for `/embed`, `text` in the form or the query.
    """
    cosine = await call.use.compare_texts.one(call.data.image, call.data.text)
    return SimilarityResponse(cosine, call.milliseconds)


async def batch_similarity(call: Call[BatchSimilarityRequest]) -> BatchSimilarityResponse:
    """How well each of several texts describes the image.

    Form or raw image: as for `/embed`, one `texts` in the form or the query for each text, or all
    of them as a JSON array.
    """
    cosines = await call.use.compare_texts.many(call.data.image, call.data.texts)
    return BatchSimilarityResponse(cosines, call.milliseconds)


ENDPOINTS: Final = (
    Endpoint(
        "/embed", EmbedRequest, embed, EmbedResponse, vectors=lambda response: response.embedding
    ),
    Endpoint("/anomaly-score", AnomalyScoreRequest, anomaly_score, AnomalyScoreResponse),
    Endpoint("/classify", ClassifyRequest, classify, ClassifyResponse),
    Endpoint("/similarity", SimilarityRequest, similarity, SimilarityResponse),
    Endpoint(
        "/batch-similarity", BatchSimilarityRequest, batch_similarity, BatchSimilarityResponse
    ),
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
