"""Bodies of other protocols: llama.cpp's server, vLLM, Jina, Cohere, Weaviate and Roboflow."""

from typing import Annotated

from msgspec import Struct, field

from domain.limits import MAX_IMAGES, MAX_INPUTS
from entrypoints.http.schemas.fields import IMAGE_RULES, documented


class ImageUrl(Struct):
    """An image in a part of a message."""

    url: Annotated[
        str, documented(f"A data URI; a web URL is refused, nothing is fetched. {IMAGE_RULES}")
    ]


class Part(Struct):
    """A part of a message."""

    type: Annotated[str, documented("`text` or `image_url`.")]
    text: str | None = None
    image_url: Annotated[
        ImageUrl | str | None, documented("An object with `url`, or the data URI itself.")
    ] = None


class Message(Struct):
    """A turn of a conversation."""

    role: Annotated[
        str,
        documented("`user` says what to embed; `system` and an empty `assistant` are ignored."),
    ]
    content: Annotated[list[Part] | str | None, documented("A text, or parts.")] = None


class InputObject(Struct):
    """A text or an image, in the format of Jina and SGLang."""

    text: str | None = None
    image: Annotated[str | None, documented("A data URI, or bare base64.")] = None
    bytes: Annotated[
        str | None, documented("An image as bare base64, as Jina's clients send it.")
    ] = None
    url: Annotated[
        str | None, documented("An image as a data URI; a web URL is refused, nothing is fetched.")
    ] = None


class PromptItem(Struct):
    """A text or an image, in the format of llama.cpp's server."""

    prompt_string: Annotated[
        str, documented("A text; for an image, only a marker such as `<__media__>`.")
    ] = ""
    multimodal_data: Annotated[
        list[str] | None, documented("One image as base64, for an item that is an image.")
    ] = None


class ModelArchitecture(Struct):
    """What a model reads and writes."""

    input_modalities: list[str]
    output_modalities: list[str]


class ModelMeta(Struct):
    """Sizes of a model."""

    n_ctx: Annotated[int, documented("Tokens of the longest text, start and end included.")]
    n_embd: Annotated[int, documented("Numbers in an embedding.")]


class GenerationSettings(Struct):
    """The one of llama.cpp's settings that has a meaning here."""

    n_ctx: Annotated[int, documented("Tokens of the longest text, start and end included.")]


class Modalities(Struct):
    """What the model reads beside text."""

    vision: bool
    audio: bool


class PropsResponse(Struct):
    """What llama.cpp's server says of itself."""

    default_generation_settings: GenerationSettings
    modalities: Modalities
    media_marker: Annotated[str, documented("Stands for the image in `prompt_string`.")]
    model_alias: str
    chat_template: Annotated[str, documented("Empty: nothing is generated here.")] = ""


class CohereInput(Struct):
    """A text or an image, as Cohere has it."""

    content: Annotated[list[Part], documented("Parts that are one text or one image together.")]


class CohereEmbedRequest(Struct):
    """Exactly one of `texts`, `images` and `inputs`; fields that are not listed are ignored."""

    texts: Annotated[list[str] | None, documented(f"1 to {MAX_INPUTS} texts.")] = None
    images: Annotated[list[str] | None, documented(f"1 to {MAX_IMAGES} data URIs of images.")] = (
        None
    )
    inputs: Annotated[
        list[CohereInput] | None,
        documented(f"1 to {MAX_INPUTS} texts and images, at most {MAX_IMAGES} of them images."),
    ] = None
    model: Annotated[
        str | None, documented("The loaded model's name, or `clip` for whichever is loaded.")
    ] = None
    input_type: Annotated[
        str | None, documented("Ignored: CLIP embeds queries and documents alike.")
    ] = None
    embedding_types: Annotated[
        list[str] | None,
        documented("`float`, `int8`, `uint8`, `binary`, `ubinary`, `base64`; `float` by default."),
    ] = None
    truncate: Annotated[
        str | None,
        documented(
            "`END` cuts long texts, `NONE` refuses them. `START` is refused for a long text.",
            enum=["NONE", "START", "END"],
        ),
    ] = None
    output_dimension: Annotated[
        int | None, documented("Only the model's own number: CLIP's vectors cannot be shortened.")
    ] = None


class CohereVersion(Struct):
    """The version of Cohere's API that is spoken."""

    version: str = "2"


class CohereBilledUnits(Struct):
    """What was read."""

    input_tokens: int
    images: int


class CohereMeta(Struct):
    """What is said of a response."""

    billed_units: CohereBilledUnits
    api_version: CohereVersion = field(default_factory=CohereVersion)
    warnings: Annotated[list[str], documented("Says how many tokens were cut, if any were.")] = (
        field(default_factory=list)
    )


class CohereEmbedResponse(Struct):
    """The inputs' embeddings."""

    id: str
    embeddings: Annotated[
        dict[str, list[list[float] | str]],
        documented(
            "By type, one for each input: numbers, or of `base64` a text of little-endian float32."
        ),
    ]
    texts: Annotated[list[str], documented("The texts that were sent.")]
    meta: CohereMeta
    response_type: str = "embeddings_by_type"


class VectorizeRequest(Struct):
    """Texts, images or both."""

    texts: Annotated[list[str] | None, documented("Texts.")] = None
    images: Annotated[
        list[str] | None, documented(f"At most {MAX_IMAGES} images as base64; {IMAGE_RULES}")
    ] = None


class VectorizeResponse(Struct, rename="camel"):
    """The vectors of the texts and of the images, in their order."""

    text_vectors: list[list[float]]
    image_vectors: list[list[float]]


class MetaResponse(Struct):
    """What the module's service says of itself."""

    model: Annotated[str, documented("The loaded model, or the one that should be.")]
    dimension: int | None
    fingerprint: str | None


class RoboflowImage(Struct):
    """An image, as Roboflow has it."""

    type: Annotated[str, documented("Only `base64`: nothing is fetched, and no pickle is read.")]
    value: Annotated[str, documented(f"An image as base64; {IMAGE_RULES}")]


_CLIP_VERSION = Annotated[
    str | None,
    documented(
        "The model that must be loaded, such as `ViT-L-14`; another one is an error. Without it, "
        "whichever is loaded."
    ),
]


_IGNORED_KEY = Annotated[
    str | None,
    documented("Ignored: a key is checked before the body is read, in a header or the query."),
]


class ClipImageRequest(Struct):
    """Images to embed."""

    image: Annotated[RoboflowImage | list[RoboflowImage], documented(f"One, or 1 to {MAX_IMAGES}.")]
    clip_version_id: _CLIP_VERSION = None
    api_key: _IGNORED_KEY = None


class ClipTextRequest(Struct):
    """Texts to embed."""

    text: Annotated[str | list[str], documented(f"One, or 1 to {MAX_INPUTS}.")]
    clip_version_id: _CLIP_VERSION = None
    api_key: _IGNORED_KEY = None


class ClipEmbedResponse(Struct):
    """The embeddings of the texts or images, in their order."""

    embeddings: list[list[float]]
    time: Annotated[float, documented("Seconds from the decoded request to its result.")]
    inference_id: Annotated[str, documented("Identifies the request in the server's log.")]
    frame_id: None = None
    parent_id: None = None


class ClipCompareRequest(Struct):
    """A subject, and the prompts to compare it with."""

    subject: Annotated[str | RoboflowImage, documented("An image, or a text.")]
    prompt: Annotated[
        str | list[str | RoboflowImage] | dict[str, str | RoboflowImage],
        documented("One text or image, a list of them, or an object of them by name."),
    ]
    subject_type: Annotated[str, documented("What the subject is.", enum=["image", "text"])] = (
        "image"
    )
    prompt_type: Annotated[str, documented("What the prompts are.", enum=["image", "text"])] = (
        "text"
    )
    clip_version_id: _CLIP_VERSION = None
    api_key: _IGNORED_KEY = None


class ClipCompareResponse(Struct):
    """How like the subject each prompt is."""

    similarity: Annotated[
        list[float] | dict[str, float],
        documented("Cosines in [-1, 1], in the order of the prompts, or by their names."),
    ]
    time: Annotated[float, documented("Seconds from the decoded request to its result.")]
    inference_id: Annotated[str, documented("Identifies the request in the server's log.")]
    frame_id: None = None
    parent_id: None = None
