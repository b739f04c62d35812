"""OpenAI's embeddings API."""

import base64
import re
import time
from collections.abc import Sequence
from typing import Final

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from application.use_cases.embed import ANY_MODEL, is_called
from domain.counts import check_input_count
from domain.embedding import Embedding
from domain.errors import InvalidInputs, UnknownModel
from entrypoints.http.bodies.base64_images import decode_image, is_data_uri
from entrypoints.http.routes.endpoint import Call, Endpoint, UseCases, error_responses
from entrypoints.http.schemas.openai import (
    EmbeddingObject,
    EmbeddingsRequest,
    EmbeddingsResponse,
    ModelObject,
    ModelsResponse,
    Usage,
)

_STARTED: Final = int(time.time())
_TAG: Final = "OpenAI"

_ADDRESS: Final = re.compile(r"\s*https?://\S+\s*", re.IGNORECASE)
"""A text that is nothing but an address."""

_IMAGE_AS_BASE64: Final = (
    ("JPEG", re.compile(r"\s*/9j/[A-Za-z0-9+/]{12}")),
    ("PNG", re.compile(r"\s*iVBORw0KGgo[A-Za-z0-9+/]{12}")),
    ("GIF", re.compile(r"\s*R0lGOD[dl]h[A-Za-z0-9+/]{12}")),
    ("WebP", re.compile(r"\s*UklGR[A-Za-z0-9+/]{6}XRUJQ")),
    ("BMP", re.compile(r"\s*Qk[0-9A-Za-z+/]{6}AAAA[A-Za-z0-9+/]{12}")),
)
"""How an image file of each format begins in base64; BMP has four bytes of zeros after its size."""


async def create_embeddings(call: Call[EmbeddingsRequest]) -> EmbeddingsResponse:
    """Texts and images, mixed, as unit vectors."""
    sent = call.data
    as_base64 = _wants_base64(sent.encoding_format)
    inputs = inputs_of(sent.input, sent.modality, check_texts=call.use.checks_openai_texts)
    embedded = await call.use.embed_inputs(
        inputs, model=sent.model, dimensions=sent.dimensions or None
    )
    return EmbeddingsResponse(
        data=[
            EmbeddingObject(index, _base64(embedding) if as_base64 else embedding.vector.tolist())
            for index, embedding in enumerate(embedded.embeddings)
        ],
        model=embedded.model,
        usage=Usage(
            prompt_tokens=embedded.tokens,
            total_tokens=embedded.tokens,
            num_images=embedded.images,
        ),
    )


ENDPOINTS: Final = (
    Endpoint(
        "/v1/embeddings", EmbeddingsRequest, create_embeddings, EmbeddingsResponse, openai=True
    ),
)


def model_routes(use: UseCases) -> Sequence[HTTPRouteHandler]:
    """``GET /v1/models`` and ``GET /v1/models/{id}``."""
    errors = error_responses(openai=True)

    @get("/v1/models", sync_to_thread=False, tags=[_TAG], responses={401: errors[401]})
    def list_models() -> ModelsResponse:
        """The model that is loaded; none while there is none."""
        return ModelsResponse([_model(name) for name in _loaded(use)])

    @get(
        "/v1/models/{model_id:path}",
        sync_to_thread=False,
        tags=[_TAG],
        responses={status: errors[status] for status in (401, 404)},
    )
    def retrieve_model(model_id: FromPath[str]) -> ModelObject:
        """The model that is loaded, by its name."""
        asked = model_id.removeprefix("/")
        for name in _loaded(use):
            if is_called(name, asked):
                return _model(name)
        raise UnknownModel(
            f"the model {asked[:100]!r} is not loaded here; /v1/models lists what is, and "
            f"{ANY_MODEL!r} is whatever is loaded."
        )

    return (list_models, retrieve_model)


def inputs_of(
    sent: str | list[str | int | list[int]], modality: str | None, *, check_texts: bool
) -> list[bytes | str]:
    """Each input as an image file's bytes or as a text."""
    if modality not in {None, "text", "image"}:
        raise InvalidInputs(
            f"modality is {modality[:100]!r}; it must be 'text' or 'image'.",
            code="unknown_modality",
        )
    inputs: list[bytes | str] = []
    items = [sent] if isinstance(sent, str) else sent
    check_input_count(len(items))  # before a million of them are looked at one by one
    for place, item in enumerate(items):
        if not isinstance(item, str):
            raise InvalidInputs(
                f"input[{place}] holds token numbers, which belong to another vocabulary than "
                "CLIP's; send texts (LangChain: OpenAIEmbeddings(check_embedding_ctx_length="
                "False)).",
                code="token_input",
            )
        if modality == "text":
            inputs.append(item)
        elif modality == "image" or is_data_uri(item):
            _refuse_address(item, place)
            inputs.append(decode_image(item, name=f"input[{place}]"))
        else:
            if check_texts:
                _refuse_address(item, place)
                _refuse_bare_image(item, place)
            inputs.append(item)
    return inputs


def _refuse_address(item: str, place: int) -> None:
    if _ADDRESS.fullmatch(item):
        raise InvalidInputs(
            f"input[{place}] is an address, and this server fetches nothing; send the image "
            "itself as a data URI (data:image/jpeg;base64,...). To embed an address as a text, "
            'send "modality": "text".',
            code="address_input",
        )


def _refuse_bare_image(item: str, place: int) -> None:
    for name, beginning in _IMAGE_AS_BASE64:
        if beginning.match(item):
            raise InvalidInputs(
                f"input[{place}] begins like a {name} file in base64, and would be embedded as a "
                f"text; send it as a data URI (data:image/{name.lower()};base64,...), or "
                '"modality": "image". To embed it as a text, send "modality": "text".',
                code="image_as_text",
            )


def _wants_base64(encoding_format: str | None) -> bool:
    if encoding_format not in {None, "float", "base64"}:
        raise InvalidInputs(
            f"encoding_format is {encoding_format[:100]!r}; it must be 'float' or 'base64'.",
            code="unknown_encoding_format",
        )
    return encoding_format == "base64"


def _base64(embedding: Embedding) -> str:
    return base64.b64encode(embedding.vector.astype("<f4").tobytes()).decode("ascii")


def _loaded(use: UseCases) -> list[str]:
    encoder = use.report_health().encoder
    return [] if encoder is None else [encoder.model]


def _model(name: str) -> ModelObject:
    return ModelObject(id=name, created=_STARTED, owned_by="clip-embedding-server")
