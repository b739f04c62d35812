"""Bodies of `/compare` and `/baseline`."""

from typing import Annotated

from msgspec import Struct

from domain.limits import FEWEST_FRAMES_FOR_A_THRESHOLD, MAX_FRAMES, MAX_IMAGES
from domain.reidentification import SAME_ENTITY_THRESHOLD
from entrypoints.http.schemas.fields import Image, InferenceTime, SentVector, Vector, documented


class CompareRequest(Struct):
    """Two sightings, each as an image or as an embedding from this model."""

    image_a: Image | None = None
    embedding_a: SentVector | None = None
    image_b: Image | None = None
    embedding_b: SentVector | None = None
    threshold: Annotated[
        float,
        documented(
            "Smallest cosine at which the two count as the same.", minimum=-1.0, maximum=1.0
        ),
    ] = SAME_ENTITY_THRESHOLD


class CompareResponse(Struct):
    """Whether both show the same person or vehicle."""

    similarity: Annotated[float, documented("Cosine in [-1, 1].")]
    same_entity: Annotated[bool, documented("`similarity` >= `threshold`.")]
    threshold: float
    inference_time_ms: InferenceTime


class BaselineRequest(Struct):
    """Frames of one scene as it usually looks, as images, embeddings or both."""

    images: Annotated[
        list[Image], documented(f"At most {MAX_IMAGES} frames.", max_items=MAX_IMAGES)
    ] = []
    embeddings: Annotated[
        list[SentVector],
        documented(
            f"Frames that were embedded before; 1 to {MAX_FRAMES} in all, images included.",
            max_items=MAX_FRAMES,
        ),
    ] = []


class Spread(Struct):
    """How much the frames differ from the baseline."""

    mean_similarity: Annotated[
        float,
        documented("Mean of the frames' cosines with the baseline; 1 if all frames are the same."),
    ]
    std_similarity: Annotated[
        float | None,
        documented("Sample standard deviation of these cosines; null for a single frame."),
    ]
    min_similarity: Annotated[float, documented("Cosine of the frame least like the baseline.")]
    max_similarity: Annotated[float, documented("Cosine of the frame most like the baseline.")]


class BaselineResponse(Struct):
    """The baseline that `/anomaly-score` takes, and how much its frames vary."""

    baseline_embedding: Vector
    count: Annotated[int, documented("Number of frames in the baseline.")]
    spread: Spread
    suggested_threshold: Annotated[
        float | None,
        documented(
            "Anomaly score above which a frame is unusual for this scene; null for fewer than "
            f"{FEWEST_FRAMES_FOR_A_THRESHOLD} frames, which are too few to tell."
        ),
    ]
    inference_time_ms: InferenceTime
