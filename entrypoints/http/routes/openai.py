"""OpenAI's embeddings API, with the extensions of other servers."""

import re
import time
from collections.abc import Sequence
from typing import Final

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from application.ports import EncoderDescription
from application.use_cases.embed import ANY_MODEL, is_called
from domain.counts import check_input_count
from domain.errors import InvalidInputs, UnknownModel
from entrypoints.http.bodies.base64_images import decode_image, is_data_uri, refuse_address
from entrypoints.http.dialects import Dialect
from entrypoints.http.errors.table import Shape, WrongShape, name_inputs_after
from entrypoints.http.middleware.envelope import note_tokens_cut
from entrypoints.http.routes.dialects import jina, llama_cpp, vllm
from entrypoints.http.routes.dialects.quantisation import QUANTISED
from entrypoints.http.routes.endpoint import TAGS, Call, Endpoint, UseCases, error_responses
from entrypoints.http.schemas.dialects import InputObject, ModelArchitecture, ModelMeta
from entrypoints.http.schemas.openai import (
    ENCODINGS,
    JINAS_ENCODINGS,
    EmbeddingObject,
    EmbeddingsRequest,
    EmbeddingsResponse,
    ModelObject,
    ModelsResponse,
    Usage,
)

_STARTED: Final = int(time.time())
_TAG: Final = TAGS[Shape.OPENAI]

_TYPES: Final = {
    "encoding_format": ENCODINGS,
    "embedding_type": JINAS_ENCODINGS,
    "encoding_type": JINAS_ENCODINGS,
}
"""Allowed values of each field that selects the embeddings' type."""

_IMAGE_AS_BASE64: Final = (
    ("JPEG", re.compile(r"\s*/9j/[A-Za-z0-9+/]{12}")),
    ("PNG", re.compile(r"\s*iVBORw0KGgo[A-Za-z0-9+/]{12}")),
    ("GIF", re.compile(r"\s*R0lGOD[dl]h[A-Za-z0-9+/]{12}")),
    ("WebP", re.compile(r"\s*UklGR[A-Za-z0-9+/]{6}XRUJQ")),
    ("BMP", re.compile(r"\s*Qk[0-9A-Za-z+/]{6}AAAA[A-Za-z0-9+/]{12}")),
)
"""How each image format begins in base64; BMP has four zero bytes after its size."""


async def create_embeddings(call: Call[EmbeddingsRequest]) -> EmbeddingsResponse:
    """Texts and images, mixed, as unit vectors."""
    sent = call.data
    written = QUANTISED[_type_of(sent)]
    field = _input_field(sent)
    name_inputs_after(call.scope, field)
    embedded = await call.use.embed_inputs(
        _inputs(sent, field, call.use),
        model=sent.model,
        dimensions=sent.dimensions or None,
        name_of=(f"{field}[{{}}]").format,
    )
    if embedded.tokens.cut:
        note_tokens_cut(call.scope, embedded.tokens.cut)
    return EmbeddingsResponse(
        data=[
            EmbeddingObject(index, written(embedding))
            for index, embedding in enumerate(embedded.embeddings)
        ],
        model=embedded.model,
        usage=Usage(
            prompt_tokens=embedded.tokens.read,
            total_tokens=embedded.tokens.read,
            num_images=embedded.images,
        ),
    )


ENDPOINTS: Final = (
    Endpoint("/v1/embeddings", EmbeddingsRequest, create_embeddings, EmbeddingsResponse),
    # The same, at the path that clients of llama.cpp's server use.
    Endpoint(
        "/embeddings",
        EmbeddingsRequest,
        create_embeddings,
        EmbeddingsResponse,
        dialect=Dialect.LLAMA_CPP,
    ),
)


def model_routes(use: UseCases) -> Sequence[HTTPRouteHandler]:
    """``GET /v1/models`` and ``GET /v1/models/{id}``."""
    errors = error_responses(Shape.OPENAI)

    @get("/v1/models", sync_to_thread=False, tags=[_TAG], responses={401: errors[401]})
    def list_models() -> ModelsResponse:
        """The loaded model; an empty list if there is none."""
        return ModelsResponse([_model(encoder) for encoder in _loaded(use)])

    @get(
        "/v1/models/{model_id:path}",
        sync_to_thread=False,
        tags=[_TAG],
        responses={status: errors[status] for status in (401, 404)},
    )
    def retrieve_model(model_id: FromPath[str]) -> ModelObject:
        """The loaded model, by its name."""
        asked = model_id.removeprefix("/")
        for encoder in _loaded(use):
            if is_called(encoder.model, asked):
                return _model(encoder)
        raise UnknownModel(
            f"the model {asked[:100]!r} is not loaded here; /v1/models lists the one that is, and "
            f"{ANY_MODEL!r} means whichever model is loaded."
        )

    return (list_models, retrieve_model)


def _input_field(sent: EmbeddingsRequest) -> str:
    """The field that holds the inputs.

    Raises:
        WrongShape: none of them, or several.
    """
    given = [
        name
        for name, value in (
            ("input", sent.input),
            ("messages", sent.messages),
            ("content", sent.content),
        )
        if value is not None
    ]
    if not given:
        raise WrongShape(
            "the body has no field `input`, nor `messages` or `content` in its place.",
            code="missing_field",
            field="input",
        )
    if len(given) > 1:
        raise WrongShape(
            f"the body holds {' and '.join(f'`{name}`' for name in given)}; send one of them.",
            code="several_inputs",
            field=given[-1],
        )
    return given[0]


def _inputs(sent: EmbeddingsRequest, field: str, use: UseCases) -> list[bytes | str]:
    """The request's inputs, in any of the protocols."""
    if sent.messages is not None:
        _check_open(Dialect.VLLM, field, use)
        return [vllm.input_of(sent.messages)]
    if sent.content is not None:
        _check_open(Dialect.LLAMA_CPP, field, use)
        return llama_cpp.inputs_of(sent.content)
    if isinstance(sent.input, list) and any(isinstance(item, InputObject) for item in sent.input):
        _check_open(Dialect.JINA, "an object in input", use)
    assert sent.input is not None  # checked by `_input_field`
    return inputs_of(sent.input, sent.modality, check_texts=use.checks_openai_texts)


def _check_open(dialect: Dialect, what: str, use: UseCases) -> None:
    if dialect not in use.dialects:
        raise InvalidInputs(
            f"{what} is not accepted here: the server's CLIP_DIALECTS leaves out {dialect.value}. "
            "Send texts and data URIs as `input`.",
            code="closed_dialect",
        )


def inputs_of(
    sent: str | Sequence[str | int | list[int] | InputObject],
    modality: str | None,
    *,
    check_texts: bool,
) -> list[bytes | str]:
    """Each input as an image file's bytes or as a text."""
    if modality not in {None, "text", "image"}:
        raise InvalidInputs(
            f"modality is {modality[:100]!r}; it must be 'text' or 'image'.",
            code="unknown_modality",
        )
    inputs: list[bytes | str] = []
    items = [sent] if isinstance(sent, str) else sent
    check_input_count(len(items))  # before looking at perhaps a million of them
    for place, item in enumerate(items):
        if isinstance(item, InputObject):
            inputs.append(jina.input_of(item, name=f"input[{place}]"))
            continue
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
    refuse_address(
        item,
        name=f"input[{place}]",
        hint=' To embed an address as a text, send "modality": "text".',
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


def _type_of(sent: EmbeddingsRequest) -> str:
    """The embeddings' encoding. OpenAI's field takes precedence.

    Raises:
        WrongShape: it is not known.
    """
    for name, known in _TYPES.items():
        asked: str | None = getattr(sent, name)
        if asked is None:
            continue
        if asked not in known:
            raise WrongShape(
                f"{name} is {asked[:100]!r}; it must be {' or '.join(map(repr, known))}.",
                code="unknown_encoding_format",
                field=name,
            )
        return asked
    return "float"


def _loaded(use: UseCases) -> list[EncoderDescription]:
    encoder = use.report_health().encoder
    return [] if encoder is None else [encoder]


def _model(encoder: EncoderDescription) -> ModelObject:
    name = encoder.model
    aliases = {ANY_MODEL, name.rpartition("/")[2]} - {name}
    return ModelObject(
        id=name,
        architecture=ModelArchitecture(["text", "image"], ["embedding"]),
        meta=ModelMeta(n_ctx=encoder.context_length, n_embd=encoder.embedding_dimension),
        aliases=sorted(aliases),
        created=_STARTED,
        owned_by="clip-embedding-server",
    )
