"""OpenAI's embeddings API, with images as in NVIDIA's NV-CLIP and in infinity."""

from typing import Annotated, Final

from msgspec import Struct

from domain.limits import MAX_IMAGES, MAX_INPUTS
from entrypoints.http.schemas.dialects import (
    InputObject,
    Message,
    ModelArchitecture,
    ModelMeta,
    PromptItem,
)
from entrypoints.http.schemas.fields import documented

ENCODINGS: Final = ("float", "base64")
"""What OpenAI has as ``encoding_format``."""

JINAS_ENCODINGS: Final = (*ENCODINGS, "binary", "ubinary")


class EmbeddingsRequest(Struct):
    """One of `input`, `messages` and `content`; fields that are not listed are ignored."""

    input: Annotated[
        str | list[str | int | list[int] | InputObject] | None,
        documented(
            f"A text or an image, or a list of 1 to {MAX_INPUTS} of them, with at most "
            f"{MAX_IMAGES} images. An image is a data URI (`data:image/jpeg;base64,...`). "
            "An entry may also be an object with `text`, `image`, `bytes` or `url`, as for Jina "
            "and SGLang. "
            "Token numbers are refused: they come from a vocabulary other than CLIP's."
        ),
    ] = None
    messages: Annotated[
        list[Message] | None,
        documented("Instead of `input`, as for vLLM: one user message with a text or an image."),
    ] = None
    content: Annotated[
        str | list[str | PromptItem] | None,
        documented(
            "Instead of `input`, as for llama.cpp's server: a text, or a list of 1 to "
            f"{MAX_INPUTS} texts and objects, at most {MAX_IMAGES} of them images."
        ),
    ] = None
    model: Annotated[
        str | None,
        documented(
            "The loaded model's name, with or without the part before its last slash, or `clip` "
            "for any model; another name is an error."
        ),
    ] = None
    encoding_format: Annotated[
        str | None,
        documented("`float`, or `base64` of little-endian float32.", enum=ENCODINGS),
    ] = None
    dimensions: Annotated[
        int | None, documented("Must be the model's own: CLIP's vectors cannot be shortened.")
    ] = None
    modality: Annotated[
        str | None,
        documented(
            "As in infinity: with `text` every input is a text; with `image` every input is an "
            "image, as a data URI or as bare base64. Without it, data URIs are images.",
            enum=["text", "image"],
        ),
    ] = None
    embedding_type: Annotated[
        str | None,
        documented(
            "Jina's name for `encoding_format`; it has `binary` and `ubinary` too.",
            enum=JINAS_ENCODINGS,
        ),
    ] = None
    encoding_type: Annotated[
        str | None,
        documented(
            "The name for `embedding_type` in LlamaIndex's Jina client.",
            enum=JINAS_ENCODINGS,
        ),
    ] = None
    user: Annotated[str | None, documented("Ignored.")] = None
    continue_final_message: Annotated[bool | None, documented("vLLM's; ignored.")] = None
    add_special_tokens: Annotated[bool | None, documented("vLLM's; ignored.")] = None


class EmbeddingObject(Struct):
    """One input's embedding."""

    index: int
    embedding: Annotated[
        list[float] | str,
        documented("Unit vector, as numbers or base64; or in the requested type."),
    ]
    object: str = "embedding"


class Usage(Struct):
    """How much was embedded."""

    prompt_tokens: Annotated[
        int, documented("Tokens of the texts, start and end included, at most 77 each.")
    ]
    total_tokens: int
    num_images: Annotated[int, documented("Number of images, which have no tokens.")]


class EmbeddingsResponse(Struct):
    """The inputs' embeddings."""

    data: Annotated[list[EmbeddingObject], documented("One for each input, in the same order.")]
    model: Annotated[str, documented("The loaded model's name.")]
    usage: Usage
    object: str = "list"


class ModelObject(Struct):
    """A model that requests can name."""

    id: str
    architecture: ModelArchitecture
    meta: ModelMeta
    aliases: Annotated[list[str], documented("Other names for it.")]
    created: Annotated[int, documented("Unix time at which this server started.")]
    owned_by: str
    object: str = "model"


class ModelsResponse(Struct):
    """The one model that is loaded, or none."""

    data: list[ModelObject]
    object: str = "list"
