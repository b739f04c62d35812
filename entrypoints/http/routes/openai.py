"""OpenAI's embeddings API."""

import base64
import time
from collections.abc import Mapping
from typing import Annotated, Final

from litestar import get
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import Body, FromPath

from application.use_cases.embed import ANY_MODEL, EmbedInputs, is_called
from application.use_cases.health import ReportHealth
from domain.counts import check_input_count
from domain.embedding import Embedding
from domain.errors import InvalidInputs, UnknownModel
from entrypoints.http.bodies.base64_images import decode_image, is_data_uri
from entrypoints.http.bodies.json_bodies import JsonRequest
from entrypoints.http.middleware.disconnects import unless_gone
from entrypoints.http.routes.question import question
from entrypoints.http.schemas import examples
from entrypoints.http.schemas.openai import (
    EmbeddingObject,
    EmbeddingsAnswer,
    EmbeddingsRequest,
    ErrorAnswer,
    ModelObject,
    ModelsAnswer,
    Usage,
)

_STARTED: Final = int(time.time())
_TAG: Final = "OpenAI"

_ERRORS: Final[Mapping[int, ResponseSpec]] = {
    status: ResponseSpec(ErrorAnswer, description=what, generate_examples=False)
    for status, what in (
        (400, "The body is not JSON, or a field is missing, of the wrong type or breaks a limit."),
        (401, "The server has keys (`CLIP_API_KEYS`), and the request has none of them."),
        (403, "A browser was made to send this by a website that may not."),
        (404, "Another model is loaded."),
        (408, "The body arrives too slowly."),
        (413, "The body or a decoded image is too large."),
        (415, "The body is not declared as JSON."),
        (500, "Something unforeseen; the server's log has it under the request id."),
        (503, "No model loaded, starting, shutting down, or too busy; see `Retry-After`."),
    )
}


@question("/v1/embeddings", EmbeddingsAnswer, errors=_ERRORS, tag=_TAG)
async def create_embeddings(
    request: JsonRequest,
    data: Annotated[EmbeddingsRequest, Body(examples=[examples.OPENAI_EMBEDDINGS])],
    embed_inputs: NamedDependency[EmbedInputs],
) -> EmbeddingsAnswer:
    """Texts and images, mixed, as unit vectors."""
    as_base64 = _wants_base64(data.encoding_format)
    inputs = _inputs(data.input, data.modality)
    embedded = await unless_gone(
        request, embed_inputs(inputs, model=data.model, dimensions=data.dimensions or None)
    )
    return EmbeddingsAnswer(
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


@get("/v1/models", sync_to_thread=False, tags=[_TAG], responses={401: _ERRORS[401]})
def list_models(report_health: NamedDependency[ReportHealth]) -> ModelsAnswer:
    """The model that is loaded; none while there is none."""
    return ModelsAnswer([_model(name) for name in _loaded(report_health)])


@get(
    "/v1/models/{model_id:path}",
    sync_to_thread=False,
    tags=[_TAG],
    responses={status: _ERRORS[status] for status in (401, 404)},
)
def retrieve_model(
    model_id: FromPath[str], report_health: NamedDependency[ReportHealth]
) -> ModelObject:
    """The model that is loaded, by its name."""
    asked = model_id.removeprefix("/")
    for name in _loaded(report_health):
        if is_called(name, asked):
            return _model(name)
    raise UnknownModel(
        f"the model {asked[:100]!r} is not loaded here; /v1/models lists what is, and "
        f"{ANY_MODEL!r} is whatever is loaded."
    )


def _inputs(sent: str | list[str | int | list[int]], modality: str | None) -> list[bytes | str]:
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
                f"input[{place}] holds token numbers, which are another vocabulary's than CLIP's; "
                "send texts (LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False)).",
                code="token_input",
            )
        if modality == "text" or (modality is None and not is_data_uri(item)):
            inputs.append(item)
        elif item.startswith(("http://", "https://")):
            raise InvalidInputs(
                f"input[{place}] is an address, and this server fetches nothing; send the image "
                "itself as a data URI (data:image/jpeg;base64,...).",
                code="address_input",
            )
        else:
            inputs.append(decode_image(item, name=f"input[{place}]"))
    return inputs


def _wants_base64(encoding_format: str | None) -> bool:
    if encoding_format not in {None, "float", "base64"}:
        raise InvalidInputs(
            f"encoding_format is {encoding_format[:100]!r}; it must be 'float' or 'base64'.",
            code="unknown_encoding_format",
        )
    return encoding_format == "base64"


def _base64(embedding: Embedding) -> str:
    return base64.b64encode(embedding.vector.astype("<f4").tobytes()).decode("ascii")


def _loaded(report_health: ReportHealth) -> list[str]:
    encoder = report_health().encoder
    return [] if encoder is None else [encoder.model]


def _model(name: str) -> ModelObject:
    return ModelObject(id=name, created=_STARTED, owned_by="clip-embedding-server")
