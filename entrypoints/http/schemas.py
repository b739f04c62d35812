"""The bodies of requests and answers, exactly as the contract names their fields."""

from typing import Annotated, Any

from msgspec import Meta, Struct

from domain.limits import EMBEDDING_DIMENSION, IMAGE_FORMATS, MAX_IMAGE_SIDE, MAX_LABELS
from domain.prompts import CameraType


def _documented(description: str, **schema: Any) -> Meta:
    """A field's description and further OpenAPI keywords; limits are enforced by the domain."""
    return Meta(extra_json_schema={"description": description, "extra": schema})


Image = Annotated[
    bytes,
    _documented(
        f"An image file as base64; white space is ignored. {', '.join(IMAGE_FORMATS)}; at most "
        f"10 MiB decoded and {MAX_IMAGE_SIDE} x {MAX_IMAGE_SIDE} pixels.",
        content_encoding="base64",
    ),
]
InferenceTime = Annotated[
    float,
    _documented("Milliseconds from the parsed request to its result, waiting in queue included."),
]


class EmbedRequest(Struct):
    """One image."""

    image: Image


class EmbedAnswer(Struct):
    """The image's embedding."""

    embedding: Annotated[
        list[float], _documented(f"Unit vector; {EMBEDDING_DIMENSION} numbers unless configured.")
    ]
    inference_time_ms: InferenceTime


class AnomalyScoreRequest(Struct):
    """One image and what the scene usually looks like."""

    image: Image
    baseline_embedding: Annotated[
        list[float],
        _documented(
            f"{EMBEDDING_DIMENSION} finite numbers unless configured, of any length; "
            "all zeros are similar to nothing."
        ),
    ]


class AnomalyScoreAnswer(Struct):
    """How far the scene has moved from its baseline."""

    anomaly_score: Annotated[
        float, _documented("clamp(1 - cosine, 0, 1): 0 as always, 1 nothing in common.")
    ]
    similarity_to_baseline: Annotated[float, _documented("Cosine in [-1, 1].")]
    inference_time_ms: InferenceTime


class ClassifyRequest(Struct):
    """One image and the labels to choose from."""

    image: Image
    labels: Annotated[
        list[str],
        _documented(
            f"1 to {MAX_LABELS} different labels, none blank.", min_items=1, max_items=MAX_LABELS
        ),
    ]
    use_ensemble: Annotated[
        bool, _documented("Put each label through five prompt templates and average them.")
    ] = False
    camera_type: Annotated[
        str,
        _documented(
            "Which templates `use_ensemble` takes.", enum=[str(kind) for kind in CameraType]
        ),
    ] = CameraType.STANDARD.value


class EnsembleMetadata(Struct):
    """How the ensemble was formed."""

    templates_used: list[str]
    num_templates: int
    camera_type: str
    ensemble_method: str


class ClassifyAnswer(Struct):
    """How well each label fits."""

    scores: Annotated[
        dict[str, float], _documented("Label → softmax of logit scale x cosine; they sum to 1.")
    ]
    top_label: str
    inference_time_ms: InferenceTime
    ensemble_metadata: EnsembleMetadata | None = None


class SimilarityRequest(Struct):
    """One image and one text."""

    image: Image
    text: Annotated[str, _documented("Not blank; cut at CLIP's 77 tokens.", min_length=1)]


class SimilarityAnswer(Struct):
    """How well the text describes the image."""

    similarity: Annotated[float, _documented("Cosine in [-1, 1].")]
    inference_time_ms: InferenceTime


class BatchSimilarityRequest(Struct):
    """One image and several texts."""

    image: Image
    texts: Annotated[
        list[str],
        _documented(
            "1 to CLIP_MAX_BATCH_TEXTS_SIZE (100 unless configured) different texts, none blank.",
            min_items=1,
        ),
    ]


class BatchSimilarityAnswer(Struct):
    """How well each text describes the image."""

    similarities: Annotated[dict[str, float], _documented("Text → cosine in [-1, 1].")]
    inference_time_ms: InferenceTime


class HealthAnswer(Struct):
    """The service at this moment."""

    status: Annotated[str, _documented("`healthy`, or `degraded` while no model is loaded.")]
    model: Annotated[str | None, _documented("The model really loaded.")]
    model_loaded: bool
    device: Annotated[str | None, _documented("`cuda:0` or `cpu`; null until it was looked at.")]
    cuda_available: bool
    vram_used_gb: Annotated[float | None, _documented("GiB; null without CUDA.")]
    embedding_dimension: int
    backend: Annotated[str | None, _documented("`torch`, …; null while no model is loaded.")]
    tensorrt_engine_path: str | None
    precision: Annotated[str | None, _documented("What the towers compute in, such as `fp32`.")]
    model_fingerprint: Annotated[
        str | None,
        _documented("Embeddings with different fingerprints must never be compared."),
    ]
    reason: Annotated[str | None, _documented("Why the service is degraded.")]


class LivenessAnswer(Struct):
    """The process answers."""

    status: str


class ReadinessAnswer(Struct):
    """Whether a request sent now would be taken."""

    ready: bool
    reason: str | None


class Problem(Struct):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: Annotated[str, _documented("For people: names the value and the limit it broke.")]
    code: Annotated[str, _documented("For programs: stable.")]
    request_id: Annotated[str, _documented("Finds the request in the server's log.")]
