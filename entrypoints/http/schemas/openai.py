"""OpenAI's embeddings API, with images as NVIDIA's NV-CLIP and infinity take them."""

from typing import Annotated

from msgspec import Struct

from domain.limits import MAX_IMAGES, MAX_INPUTS
from entrypoints.http.schemas.fields import documented


class EmbeddingsRequest(Struct):
    """Texts and images; fields that are not listed are ignored."""

    input: Annotated[
        str | list[str | int | list[int]],
        documented(
            f"A text or an image, or a list of 1 to {MAX_INPUTS} of them, at most {MAX_IMAGES} "
            "of which are images. An image is a data URI (`data:image/jpeg;base64,...`). "
            "Token numbers are refused: they belong to another vocabulary than CLIP's."
        ),
    ]
    model: Annotated[
        str | None,
        documented(
            "The loaded model's name, with or without what precedes its last slash, or `clip` for "
            "whichever is loaded; any other is an error."
        ),
    ] = None
    encoding_format: Annotated[
        str | None,
        documented("`float`, or `base64` of little-endian float32.", enum=["float", "base64"]),
    ] = None
    dimensions: Annotated[
        int | None, documented("Only the model's own number: CLIP's vectors cannot be shortened.")
    ] = None
    modality: Annotated[
        str | None,
        documented(
            "As infinity has it: `text` takes every input as text; `image` every input as an "
            "image, a data URI or bare base64. Without it, data URIs are images.",
            enum=["text", "image"],
        ),
    ] = None
    user: Annotated[str | None, documented("Ignored.")] = None


class EmbeddingObject(Struct):
    """One input's embedding."""

    index: int
    embedding: Annotated[list[float] | str, documented("Unit vector, as numbers or as base64.")]
    object: str = "embedding"


class Usage(Struct):
    """What was read."""

    prompt_tokens: Annotated[
        int, documented("Tokens of the texts, start and end included, at most 77 each.")
    ]
    total_tokens: int
    num_images: Annotated[int, documented("Images, which have no tokens.")]


class EmbeddingsResponse(Struct):
    """The inputs' embeddings."""

    data: Annotated[list[EmbeddingObject], documented("One for each input, in its order.")]
    model: Annotated[str, documented("The model really loaded.")]
    usage: Usage
    object: str = "list"


class ModelObject(Struct):
    """A model that can be asked for."""

    id: str
    created: Annotated[int, documented("Unix time at which this server started.")]
    owned_by: str
    object: str = "model"


class ModelsResponse(Struct):
    """The one model that is loaded, or none."""

    data: list[ModelObject]
    object: str = "list"
