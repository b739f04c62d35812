"""The common parts of all endpoints that take a body: reading, work and documentation."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, TypeVar
from urllib.parse import parse_qs

import msgspec
import multipart
import numpy as np
from litestar import MediaType, Request, post
from litestar.datastructures.headers import Accept
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import (
    Example,
    OpenAPIMediaType,
    OpenAPIResponse,
    Operation,
    RequestBody,
    Schema,
)
from litestar.types import ASGIApp, Receive, Scope, Send

from application.use_cases.anomaly import ScoreAnomaly
from application.use_cases.baseline import BuildBaseline
from application.use_cases.classify import ClassifyImage
from application.use_cases.compare import CompareSightings, CompareTexts
from application.use_cases.embed import EmbedImage, EmbedImages, EmbedInputs, EmbedTexts
from application.use_cases.health import Health
from domain.errors import Draining
from entrypoints.http.bodies.form import decode_form, image_fields
from entrypoints.http.bodies.json import Decoded, decode_json
from entrypoints.http.bodies.raw_image import IMAGE_TYPES, decode_raw_image
from entrypoints.http.dialects import Dialect
from entrypoints.http.errors.table import (
    MEDIA_TYPE,
    ClientGone,
    Shape,
    WrongContentEncoding,
    WrongContentType,
    WrongShape,
    documented_errors,
    shape_at,
)
from entrypoints.http.middleware.envelope import note_unknown_field
from entrypoints.http.middleware.limits import whole_body
from entrypoints.http.routes.lines import JSON_LINES, streamed
from entrypoints.http.schemas import examples
from entrypoints.http.schemas.fields import json_schema

_Sent = TypeVar("_Sent", bound=msgspec.Struct)
_Result = TypeVar("_Result")

_JSON: Final = "application/json"
_FORM: Final = "multipart/form-data"
_BARE: Final = "application/octet-stream"
_MAX_QUERY_FIELDS: Final = 200

_FIRST_BYTES: Final = (
    b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"BM", b"RIFF"
)  # fmt: skip
"""The first bytes of each allowed image format. No JSON text begins with these."""


@dataclass(frozen=True, slots=True)
class UseCases:
    """Everything that the endpoints need, made by the container.

    Attributes:
        ensemble_by_default: whether `/classify` uses prompt ensembles if a request doesn't say.
        checks_openai_texts: whether `/v1/embeddings` refuses texts that look like images.
        dialects: other protocols that are spoken.
        configured_model: name of the model that should be loaded.
        configured_backend: name of the encoder that should be loaded.
    """

    embed_image: EmbedImage
    score_anomaly: ScoreAnomaly
    classify_image: ClassifyImage
    compare_texts: CompareTexts
    embed_images: EmbedImages
    embed_texts: EmbedTexts
    embed_inputs: EmbedInputs
    compare_sightings: CompareSightings
    build_baseline: BuildBaseline
    report_health: Callable[[], Health]
    ensemble_by_default: bool
    checks_openai_texts: bool
    dialects: frozenset[Dialect]
    configured_model: str
    configured_backend: str


@dataclass(frozen=True, slots=True)
class Call(Generic[_Sent]):
    """One request to an endpoint.

    Attributes:
        data: its decoded body.
        use: the use cases.
        scope: ASGI's.
        started_s: time at which its body was decoded, by `time.perf_counter`.
    """

    data: _Sent
    use: UseCases
    scope: Any
    started_s: float

    @property
    def milliseconds(self) -> float:
        """Time since its body was decoded, with three decimals."""
        return round((time.perf_counter() - self.started_s) * 1000, 3)


@dataclass(frozen=True, slots=True)
class Endpoint(Generic[_Sent]):
    """A POST that returns 200. Its body is JSON; if it takes images, also a form or a raw image.

    Attributes:
        path: where it is.
        takes: the struct of its body.
        work: makes the response of a request.
        responds: the struct of its response.
        dialect: the other protocol that it belongs to; None: always enabled.
        vectors: the embeddings in its response, which a client may request as bare float32; None if
            it has none.
        lines: makes the response as JSON lines, if a client requests it; None if unsupported.
    """

    path: str
    takes: type[_Sent]
    work: Callable[[Call[_Sent]], Awaitable[msgspec.Struct]]
    responds: type[msgspec.Struct]
    dialect: Dialect | None = None
    vectors: Callable[[Any], Sequence[Any]] | None = None
    lines: Callable[[Call[_Sent]], AsyncGenerator[msgspec.Struct, None]] | None = None

    def handler(self, use_for: Callable[[Any], UseCases]) -> HTTPRouteHandler:
        """The framework's handler; ``use_for`` has the use cases for a request's scope."""
        takes, work, vectors, lines = self.takes, self.work, self.vectors, self.lines
        others = [
            *([_BARE] if vectors is not None else []),
            *([JSON_LINES] if lines is not None else []),
        ]
        takes_images = bool(image_fields(takes))

        async def handle(request: Request[Any, Any, Any]) -> ASGIApp:
            scope = request.scope
            decoded = await _read(scope, request.receive, takes, takes_images=takes_images)
            if decoded.unknown_field is not None:
                note_unknown_field(scope, decoded.unknown_field)
            call = Call(decoded.data, use_for(scope), scope, time.perf_counter())
            wanted = _preferred(scope, others) if others else _JSON
            if lines is not None and wanted == JSON_LINES:
                streaming = await streamed(lines(call), partial(_unless_gone, request))
                return streaming.to_asgi_response(None, request)
            made = await _unless_gone(request, work(call))
            if vectors is not None and wanted == _BARE:
                return _sending(np.asarray(vectors(made), "<f4").tobytes(), _BARE)
            return _sending(msgspec.json.encode(made), _JSON)

        handle.__name__ = work.__name__
        handle.__doc__ = work.__doc__
        shape = shape_at(self.path)
        success = ResponseSpec(
            data_container=self.responds,
            description="The response.",
            examples=[examples.RESPONSES[self.path]],
            generate_examples=False,
        )
        return post(
            self.path,
            status_code=200,
            responses={200: success, **error_responses(shape)},
            tags=[TAGS[shape]],
            operation_class=_operation(
                _request_body(
                    takes, examples.REQUESTS[self.path], *examples.MORE_REQUESTS.get(self.path, ())
                ),
                others,
            ),
        )(handle)


TAGS: Final = {
    Shape.PROBLEM: "endpoints",
    Shape.OPENAI: "OpenAI",
    Shape.LLAMA_CPP: "llama.cpp",
    Shape.COHERE: "Cohere",
    Shape.WEAVIATE: "Weaviate",
    Shape.ROBOFLOW: "Roboflow",
}
"""The endpoints' section in the documentation, by the format of their errors."""


def error_responses(shape: Shape = Shape.PROBLEM) -> Mapping[int, ResponseSpec]:
    """The documentation of each error that an endpoint with a body may send."""
    body: type[msgspec.Struct] = shape.value
    media_type = MEDIA_TYPE if shape is Shape.PROBLEM else MediaType.JSON
    return {
        status: ResponseSpec(
            body, description=meaning, media_type=media_type, generate_examples=False
        )
        for status, meaning in documented_errors(shape).items()
    }


async def _read(
    scope: Any, receive: Any, kind: type[_Sent], *, takes_images: bool
) -> Decoded[_Sent]:
    """Read and decode a request's body.

    Raises:
        WrongContentType: the endpoint does not take it; the body is not read.
        Others: as the decoders in `bodies` and `BodyLimits` say.
    """
    media_type, boundary = content_type_of(scope)
    is_json = media_type == _JSON or media_type.endswith("+json")
    if not (
        not media_type
        or is_json
        or (takes_images and (media_type == _FORM or media_type in IMAGE_TYPES))
    ):
        others = f", '{_FORM}', or the image itself as one of {', '.join(IMAGE_TYPES)}"
        raise WrongContentType(
            f"the body is declared as {media_type[:100]!r}; send '{_JSON}'"
            f"{others if takes_images else ''}."
        )
    body = await whole_body(receive)
    if media_type == _FORM:
        return decode_form(body, kind, boundary)
    if media_type in IMAGE_TYPES or (
        not media_type and takes_images and body.startswith(_FIRST_BYTES)
    ):
        return decode_raw_image(body, kind, query_fields(scope["query_string"]))
    return decode_json(body, kind)


def _preferred(scope: Any, others: Sequence[str]) -> str:
    """JSON, or the other media type that the client prefers (RFC 9110, section 12.5.1)."""
    accepted = b",".join(value for name, value in scope["headers"] if name == b"accept")
    if not any(other.encode() in accepted for other in others):
        return _JSON
    return Accept(accepted.decode("latin-1")).best_match([_JSON, *others]) or _JSON


def content_type_of(scope: Any) -> tuple[str, str]:
    """The body's media type, and a form's boundary; empty if nothing is declared.

    Raises:
        WrongContentEncoding: the body is compressed.
    """
    declared = ""
    for name, value in scope["headers"]:
        if name == b"content-type":
            declared = value.decode("latin-1")
        elif name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            shown = value.decode("latin-1")[:100]
            raise WrongContentEncoding(
                f"the body has the content encoding {shown!r}; send it uncompressed, without "
                "'Content-Encoding'."
            )
    media_type = declared.partition(";")[0].strip().lower()
    if media_type != _FORM:
        return media_type, ""
    return media_type, multipart.parse_options_header(declared)[1].get("boundary", "")


def query_fields(query: bytes) -> Mapping[str, list[str]]:
    """The values of each field of a query.

    Raises:
        WrongShape: it is not UTF-8, or has too many fields.
    """
    try:
        return parse_qs(
            query.decode("latin-1"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MAX_QUERY_FIELDS,
        )
    except ValueError:
        raise WrongShape(
            f"the query is not UTF-8, or has more than {_MAX_QUERY_FIELDS} fields."
        ) from None


def _sending(body: bytes, media_type: str) -> ASGIApp:
    """A response with status 200. The framework's classes take as long as encoding the JSON."""
    headers = [
        (b"content-type", media_type.encode("ascii")),
        (b"content-length", b"%d" % len(body)),
    ]

    async def send_all(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    return send_all


async def _unless_gone(request: Request[Any, Any, Any], work: Awaitable[_Result]) -> _Result:
    """Await ``work``, but cancel it when the client hangs up.

    Args:
        request: its body must have been read completely.
        work: the request's work.

    Raises:
        ClientGone: the client hung up first.
        Draining: the server ends, and the grace for accepted requests is over.
    """
    working = asyncio.current_task()
    assert working is not None
    watching = asyncio.create_task(_cancel_if_gone(request, working))
    try:
        return await work
    except asyncio.CancelledError:
        if not watching.done():  # by the server, whose grace period is over
            raise Draining(
                "the server shut down before it could finish this request.", code="not_finished"
            ) from None
        working.uncancel()
        raise ClientGone("the client hung up.") from None
    finally:
        watching.cancel()


async def _cancel_if_gone(request: Request[Any, Any, Any], working: asyncio.Task[Any]) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    working.cancel()


@dataclass
class _Documented(Schema):
    """A finished JSON Schema."""

    ready: Mapping[str, Any] | None = None

    def to_schema(self) -> dict[str, Any]:
        """The schema itself."""
        return dict(self.ready or {})


def _request_body(kind: type[msgspec.Struct], *shown: Example) -> RequestBody:
    schema = json_schema(kind)
    values = [example.value for example in shown]
    content = {_JSON: OpenAPIMediaType(schema=_Documented(ready={**schema, "examples": values}))}
    if images := image_fields(kind):
        properties = dict(schema["properties"])
        for name in images:
            file = {"type": "string", "format": "binary"}
            several = "items" in properties[name]
            properties[name] = {"type": "array", "items": file} if several else file
        form = {**schema, "properties": properties}
        content[_FORM] = OpenAPIMediaType(schema=_Documented(ready=form))
        binary = _Documented(ready={"type": "string", "format": "binary"})
        for media_type in ("image/jpeg", "image/png", "application/octet-stream"):
            content[media_type] = OpenAPIMediaType(schema=binary)
    return RequestBody(content=content, required=True)


def _operation(body: RequestBody, others: Sequence[str]) -> type[Operation]:
    """An operation with this body; its response may have further media types."""

    @dataclass
    class WithBody(Operation):
        def __post_init__(self) -> None:
            self.request_body = body
            success = (self.responses or {}).get("200")
            if isinstance(success, OpenAPIResponse) and success.content is not None:
                for other in others:
                    binary = _Documented(ready={"type": "string", "format": "binary"})
                    success.content[other] = OpenAPIMediaType(schema=binary)

    return WithBody
