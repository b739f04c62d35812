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
            "An entry may also be an object with `text`, `image`, `bytes` or `url`, as Jina "
            "and SGLang have it. "
            "Token numbers are refused: they come from a vocabulary other than CLIP's."
        ),
    ] = None
    messages: Annotated[
        list[Message] | None,
        documented("In place of `input`, as vLLM has it: one user's turn, a text or an image."),
    ] = None
    content: Annotated[
        str | list[str | PromptItem] | None,
        documented(
            "In place of `input`, as llama.cpp's server has it: a text, or a list of texts and of "
            f"objects, 1 to {MAX_INPUTS}, at most {MAX_IMAGES} of them images."
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
            "What Jina calls `encoding_format`; it has `binary` and `ubinary` too.",
            enum=JINAS_ENCODINGS,
        ),
    ] = None
    encoding_type: Annotated[
        str | None,
        documented(
            "What LlamaIndex's client of Jina calls `embedding_type`.",
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
        list[float] | str, documented("Unit vector, as numbers or as base64; else as asked for.")
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
    aliases: Annotated[list[str], documented("What it may be called too.")]
    created: Annotated[int, documented("Unix time at which this server started.")]
    owned_by: str
    object: str = "model"


class ModelsResponse(Struct):
    """The one model that is loaded, or none."""

    data: list[ModelObject]
    object: str = "list"
