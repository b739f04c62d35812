"""Bodies of the health endpoints."""

from typing import Annotated

from msgspec import Struct

from entrypoints.http.schemas.fields import documented


class HealthResponse(Struct):
    """The state of the service now."""

    status: Annotated[str, documented("`healthy`, or `degraded` while there is no model.")]
    model: Annotated[
        str, documented("The loaded model's name; while none is loaded, the configured name.")
    ]
    model_loaded: bool
    unloaded_while_idle: Annotated[
        bool,
        documented("The model was unloaded to free memory; the next request waits for its reload."),
    ]
    device: Annotated[str | None, documented("`cuda:0` or `cpu`; null until it is known.")]
    cuda_available: bool
    gpu_reason: Annotated[
        str | None,
        documented(
            "Why this machine's NVIDIA GPU is not used; null if it is used, if there is none, or "
            "if `CLIP_ENCODER` names another device."
        ),
    ]
    vram_used_gb: Annotated[float | None, documented("GiB; null without CUDA.")]
    embedding_dimension: Annotated[
        int | None,
        documented(
            "Numbers in an embedding; null until a model is loaded, unless "
            "CLIP_EMBEDDING_DIMENSION promises it."
        ),
    ]
    backend: Annotated[
        str,
        documented("`torch`, …; while no model is loaded, `CLIP_ENCODER`'s value, such as `auto`."),
    ]
    tensorrt_engine_path: str | None
    precision: Annotated[
        str | None, documented("The type that the towers compute in, such as `fp32`.")
    ]
    model_fingerprint: Annotated[
        str | None,
        documented("Embeddings with different fingerprints must never be compared."),
    ]
    reason: Annotated[str | None, documented("Why the service is degraded.")]
    backend_reason: Annotated[
        str | None,
        documented("Why TensorRT is not in use although it was requested; otherwise null."),
    ]


class LivenessResponse(Struct):
    """Whether the process works or must be restarted."""

    status: Annotated[
        str,
        documented(
            "`alive`; `hanging` if a call to the encoder does not return; `lost` if its device "
            "has failed."
        ),
    ]


class ReadinessResponse(Struct):
    """Whether a request sent now would be accepted."""

    ready: bool
    reason: str | None
