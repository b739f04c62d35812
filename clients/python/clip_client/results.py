"""What the server returns, with its own field names."""

from msgspec import Struct

from clip_client.vectors import Embedding


class AnomalyScore(Struct, frozen=True):
    """How far a scene has moved from its baseline.

    Attributes:
        anomaly_score: clamp(1 - cosine, 0, 1): 0 as always, 1 nothing in common.
        similarity_to_baseline: cosine in [-1, 1].
        inference_time_ms: from the parsed request to its result, queueing included.
        is_anomaly: whether the score is above the threshold that was given; None without one.
    """

    anomaly_score: float
    similarity_to_baseline: float
    inference_time_ms: float
    is_anomaly: bool | None = None


class EnsembleMetadata(Struct, frozen=True):
    """How the prompts of a classification were formed."""

    templates_used: list[str]
    num_templates: int
    camera_type: str
    ensemble_method: str


class Classification(Struct, frozen=True):
    """Which label fits an image.

    Attributes:
        scores: label → probability; they sum to 1.
        top_label: the label with the highest score.
        inference_time_ms: from the parsed request to its result, queueing included.
        ensemble_metadata: how the prompts were formed; None unless an ensemble was asked for.
    """

    scores: dict[str, float]
    top_label: str
    inference_time_ms: float
    ensemble_metadata: EnsembleMetadata | None = None


class Comparison(Struct, frozen=True):
    """Whether two images show the same person or vehicle.

    Attributes:
        similarity: cosine in [-1, 1].
        same_entity: whether the similarity reaches the threshold.
        threshold: the one that counted.
        inference_time_ms: from the parsed request to its result, queueing included.
    """

    similarity: float
    same_entity: bool
    threshold: float
    inference_time_ms: float


class Spread(Struct, frozen=True):
    """Cosines of the frames and their average.

    Attributes:
        mean_similarity: 1 if all frames are the same.
        std_similarity: sample standard deviation; None for a single frame.
        min_similarity: the frame farthest off.
        max_similarity: the frame closest.
    """

    mean_similarity: float
    std_similarity: float | None
    min_similarity: float
    max_similarity: float


class Baseline(Struct, frozen=True):
    """What a scene usually looks like.

    Attributes:
        embedding: the frames' average, a unit vector.
        count: frames and embeddings that went into it.
        spread: how the frames lie around it.
        suggested_threshold: an anomaly score above it is unlike the frames; None where they are
            too few to tell.
        inference_time_ms: from the parsed request to its result, queueing included.
    """

    embedding: Embedding
    count: int
    spread: Spread
    suggested_threshold: float | None
    inference_time_ms: float


class Health(Struct, frozen=True):
    """The server at this moment.

    Attributes:
        status: ``healthy``, or ``degraded`` while no model is loaded.
        model: the model really loaded; None while there is none.
        model_loaded: whether there is one.
        device: ``cuda:0`` or ``cpu``.
        cuda_available: whether CUDA can be used there.
        vram_used_gb: GiB; None without CUDA.
        embedding_dimension: numbers per embedding; None until a model is loaded.
        backend: ``torch``, ``openvino``, …
        tensorrt_engine_path: the engine in use, if one is.
        precision: what the towers compute in, such as ``fp32``.
        model_fingerprint: identifies the checkpoint.
        reason: why the server is degraded.
        unloaded_while_idle: whether the next call will wait for the model to be loaded again.
        backend_reason: why TensorRT is not used although it was requested.
        gpu_reason: why the server's NVIDIA GPU is not used.
    """

    status: str
    model: str | None
    model_loaded: bool
    device: str | None
    cuda_available: bool
    vram_used_gb: float | None
    embedding_dimension: int | None
    backend: str | None
    tensorrt_engine_path: str | None
    precision: str | None = None
    model_fingerprint: str | None = None
    reason: str | None = None
    unloaded_while_idle: bool = False
    backend_reason: str | None = None
    gpu_reason: str | None = None
