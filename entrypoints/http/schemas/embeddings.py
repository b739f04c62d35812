"""Many images or texts in one request."""

from typing import Annotated

from msgspec import Struct

from domain.limits import MAX_IMAGES
from entrypoints.http.schemas.fields import IMAGE_RULES, InferenceTime, Vector, documented


class EmbedBatchRequest(Struct):
    """Several images; each succeeds or fails on its own."""

    images: Annotated[
        list[str],
        documented(
            f"1 to {MAX_IMAGES} image files as base64; {IMAGE_RULES}",
            min_items=1,
            max_items=MAX_IMAGES,
        ),
    ]


class ItemError(Struct):
    """Why one image has no embedding: the error that it would have got in its own request."""

    status: Annotated[int, documented("The HTTP status that it would have got in its own request.")]
    code: Annotated[str, documented("For programs: stable.")]
    detail: Annotated[str, documented("For people: names the value and the limit it broke.")]


class EmbedBatchItem(Struct):
    """The result for one image: an embedding or an error; the other is null."""

    embedding: Vector | None
    error: ItemError | None


class EmbedBatchResponse(Struct):
    """The result for each image."""

    results: Annotated[list[EmbedBatchItem], documented("One for each image, in the same order.")]
    inference_time_ms: InferenceTime


class EmbedBatchLine(EmbedBatchItem):
    """One line of a response in JSON lines: the result for one image."""

    index: Annotated[int, documented("The image's place among those of the request, from 0 on.")]


class EmbedTextRequest(Struct):
    """Several texts."""

    texts: Annotated[
        list[str],
        documented(
            "1 to CLIP_MAX_BATCH_TEXTS_SIZE (100 by default) texts, none blank; "
            "cut off after CLIP's 77 tokens.",
            min_items=1,
        ),
    ]


class EmbedTextResponse(Struct):
    """The texts' embeddings."""

    embeddings: Annotated[list[Vector], documented("One for each text, in the same order.")]
    inference_time_ms: InferenceTime
