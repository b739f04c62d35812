"""Requests about one image and their responses, with the field names that clients rely on."""

from typing import Annotated

from msgspec import UNSET, Struct, UnsetType

from domain.classification import Score
from domain.limits import EMBEDDING_DIMENSION, MAX_LABELS
from domain.prompts import CameraType
from entrypoints.http.schemas.fields import Image, InferenceTime, Vector, documented


class EmbedRequest(Struct):
    """One image."""

    image: Image


class EmbedResponse(Struct):
    """The image's embedding."""

    embedding: Vector
    inference_time_ms: InferenceTime


class AnomalyScoreRequest(Struct):
    """One image and what the scene usually looks like."""

    image: Image
    baseline_embedding: Annotated[
        list[float],
        documented(
            f"{EMBEDDING_DIMENSION} finite numbers by default; the vector may have any length. "
            "If all are zero, every cosine is 0."
        ),
    ]
    threshold: Annotated[
        float | None,
        documented(
            "Anomaly score above which `is_anomaly` is true; without it, the field is absent.",
            minimum=0.0,
            maximum=1.0,
        ),
    ] = None


class AnomalyScoreResponse(Struct):
    """How much the image differs from its baseline."""

    anomaly_score: Annotated[
        float, documented("clamp(1 - cosine, 0, 1): 0 is as usual, 1 is nothing in common.")
    ]
    similarity_to_baseline: Annotated[float, documented("Cosine in [-1, 1].")]
    inference_time_ms: InferenceTime
    is_anomaly: Annotated[
        bool | UnsetType,
        documented("`anomaly_score` > `threshold`; absent unless a threshold was sent."),
    ] = UNSET


class ClassifyRequest(Struct):
    """One image and the labels to choose from."""

    image: Image
    labels: Annotated[
        list[str],
        documented(
            f"1 to {MAX_LABELS} different labels, none blank.", min_items=1, max_items=MAX_LABELS
        ),
    ]
    use_ensemble: Annotated[
        bool | UnsetType,
        documented(
            "Put each label into five prompt templates and average their embeddings. By default "
            "true if `camera_type` is sent, else CLIP_USE_ENSEMBLE (false)."
        ),
    ] = UNSET
    camera_type: (
        Annotated[
            str,
            documented(
                "The templates that the ensemble uses; `standard` by default.",
                enum=[str(kind) for kind in CameraType],
            ),
        ]
        | UnsetType
    ) = UNSET
    score: (
        Annotated[
            str,
            documented(
                "`softmax`, the default: which of the labels it is. `sigmoid`: whether each label "
                "fits, independently of the others; only if the model has a logit bias (SigLIP).",
                enum=[str(kind) for kind in Score],
            ),
        ]
        | UnsetType
    ) = UNSET


class EnsembleMetadata(Struct):
    """How the ensemble was formed."""

    templates_used: list[str]
    num_templates: int
    camera_type: str
    ensemble_method: str


class ClassifyResponse(Struct):
    """How well each label fits."""

    scores: Annotated[
        dict[str, float],
        documented(
            "Label → softmax of logit scale x cosine; they sum to 1. With `sigmoid`: label → "
            "sigmoid of logit scale x cosine + logit bias; each is independent."
        ),
    ]
    top_label: str
    inference_time_ms: InferenceTime
    ensemble_metadata: EnsembleMetadata | None = None


class SimilarityRequest(Struct):
    """One image and one text."""

    image: Image
    text: Annotated[
        str,
        documented("Not blank; cut off after as many tokens as the model reads.", min_length=1),
    ]


class SimilarityResponse(Struct):
    """How well the text describes the image."""

    similarity: Annotated[float, documented("Cosine in [-1, 1].")]
    inference_time_ms: InferenceTime


class BatchSimilarityRequest(Struct):
    """One image and several texts."""

    image: Image
    texts: Annotated[
        list[str],
        documented(
            "1 to CLIP_MAX_BATCH_TEXTS_SIZE (100 by default) different texts, none blank.",
            min_items=1,
        ),
    ]


class BatchSimilarityResponse(Struct):
    """How well each text describes the image."""

    similarities: Annotated[dict[str, float], documented("Text → cosine in [-1, 1].")]
    inference_time_ms: InferenceTime
