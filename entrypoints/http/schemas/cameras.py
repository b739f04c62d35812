"""The questions that cameras ask: the same one again, and what a scene usually looks like."""

from typing import Annotated

from msgspec import Struct

from domain.baseline import FEWEST_FRAMES_FOR_A_THRESHOLD
from domain.limits import MAX_FRAMES, MAX_IMAGES
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
        documented("Cosine from which on the two count as the same.", minimum=-1.0, maximum=1.0),
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
            f"Frames that were embedded before; with the images 1 to {MAX_FRAMES} in all.",
            max_items=MAX_FRAMES,
        ),
    ] = []


class Spread(Struct):
    """How the frames lie around the baseline."""

    mean_similarity: Annotated[
        float,
        documented("Mean cosine of a frame and the baseline; 1 if all frames are the same."),
    ]
    std_similarity: Annotated[
        float | None, documented("Its sample standard deviation; null for a single frame.")
    ]
    min_similarity: Annotated[float, documented("Cosine of the frame farthest off.")]
    max_similarity: Annotated[float, documented("Cosine of the frame closest.")]


class BaselineResponse(Struct):
    """What `/anomaly-score` takes, and how sure one can be of it."""

    baseline_embedding: Vector
    count: Annotated[int, documented("Frames that it was made of.")]
    spread: Spread
    suggested_threshold: Annotated[
        float | None,
        documented(
            "Anomaly score above which a frame is unlike these; null for fewer than "
            f"{FEWEST_FRAMES_FOR_A_THRESHOLD} frames, which say too little."
        ),
    ]
    inference_time_ms: InferenceTime
