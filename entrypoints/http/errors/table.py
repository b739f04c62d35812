"""Every error that a client may get, declared once for all of our APIs.

`TABLE` says which HTTP status each kind of error has. Most endpoints send it as RFC 9457 problem
details. Endpoints of other protocols send the same error in that protocol's format.
"""

import http
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from domain.errors import (
    ClipError,
    ImageTooLarge,
    InvalidInput,
    OutOfMemory,
    ServiceUnavailable,
    UnknownModel,
)
from entrypoints.http.schemas.problem import (
    CohereError,
    Problem,
    RoboflowError,
    WeaviateError,
    WrappedLlamaCppError,
    WrappedOpenAIError,
    llama_cpp_error,
    openai_error,
)

if TYPE_CHECKING:  # the settings need some of these errors before the framework loads
    from litestar.types import Scope, Send

logger = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"


class Shape(Enum):
    """The format of an error; the value is its struct."""

    PROBLEM = Problem
    OPENAI = WrappedOpenAIError
    LLAMA_CPP = WrappedLlamaCppError
    COHERE = CohereError
    WEAVIATE = WeaviateError
    ROBOFLOW = RoboflowError


_SHAPES: Final = {
    "/v1/": Shape.OPENAI,
    "/embeddings": Shape.LLAMA_CPP,
    "/props": Shape.LLAMA_CPP,
    "/v2/": Shape.COHERE,
    "/vectorize": Shape.WEAVIATE,
    "/meta": Shape.WEAVIATE,
    "/.well-known/": Shape.WEAVIATE,
    "/clip/": Shape.ROBOFLOW,
}
"""By path, or by path prefix if the key ends in a slash. All others: problem details."""

REQUEST_ID_KEY: Final = "clip_request_id"
OUTCOME_KEY: Final = "clip_outcome"
_INPUT_FIELD_KEY: Final = "clip_input_field"
"""Keys of the ASGI scope's ``state``; the last is set by `name_inputs_after`."""

INTERNAL: Final = (
    "something went wrong in the server; its log has the reason under this request's id."
)

_SHOWN_CHARACTERS: Final = 200


class MalformedBody(InvalidInput):
    """The body does not match its declared type."""

    code = "malformed_body"


class NotJson(MalformedBody):
    """The body is not well-formed JSON."""

    code = "invalid_json"


class MalformedForm(MalformedBody):
    """The body is declared as a form and is not one."""

    code = "invalid_form"


class InvalidHost(MalformedBody):
    """The Host header is not the name of a host."""

    code = "bad_request"


class WrongContentType(InvalidInput):
    """The body has a content type that this endpoint does not accept."""

    code = "unsupported_media_type"


class WrongContentEncoding(WrongContentType):
    """The body is compressed."""

    code = "unsupported_content_encoding"


class WrongShape(InvalidInput):
    """A field is missing or has another type.

    Attributes:
        field: the outermost field that is wrong, if known.
    """

    code = "invalid_field"

    def __init__(self, detail: str, *, code: str | None = None, field: str | None = None) -> None:
        super().__init__(detail, code=code)
        self.field = field


class KeyRefused(ClipError):
    """The request has no key (``missing_api_key``), or an unknown one (``wrong_api_key``)."""

    code = "wrong_api_key"


class CrossSite(ClipError):
    """Another website made a browser send the request, and is not allowed to."""

    code = "cross_site"


class PreflightRefused(ClipError):
    """A browser's preflight request for another website, which is not allowed."""

    code = "cross_site"


class NotFound(ClipError):
    """There is no endpoint at this path."""

    code = "not_found"

    @classmethod
    def at(cls, path: str) -> "NotFound":
        """The error for a request to ``path``."""
        return cls(f"there is nothing at {path[:_SHOWN_CHARACTERS]!r}.")


class MethodNotAllowed(ClipError):
    """The endpoint does not accept this method.

    Attributes:
        allow: the value of the ``Allow`` header, or an empty text.
    """

    code = "method_not_allowed"

    def __init__(self, method: str, path: str, allow: str) -> None:
        super().__init__(f"{method} is not allowed at {path[:_SHOWN_CHARACTERS]!r}.")
        self.allow = allow


class BodyTooLarge(ClipError):
    """The body has more bytes than a request may have."""

    code = "body_too_large"


class BodyTooSlow(ClipError):
    """The body arrived more slowly than the minimum rate."""

    code = "body_too_slow"


class BodyLost(ServiceUnavailable):
    """No byte of the body reached the process that serves the request."""

    code = "body_lost"


class BodiesTooLarge(ServiceUnavailable):
    """The bodies of all requests together would take more memory than allowed."""

    code = "too_many_bytes"


class ClientGone(ClipError):
    """The client closed the connection before the response; nobody will read it."""

    code = "client_gone"


@dataclass(frozen=True, slots=True)
class Row:
    """How a kind of error appears to a client.

    Attributes:
        kind: the errors.
        status: their HTTP status.
        meaning: a sentence for the documentation.
        elsewhere: their status in other protocols, if it differs.
        documented: whether every endpoint that takes a body documents it.
    """

    kind: type[ClipError]
    status: int
    meaning: str
    elsewhere: int | None = None
    documented: bool = True


TABLE: Final = (
    Row(
        MalformedBody,
        400,
        "The body is not what it is declared to be: not JSON, or not a form.",
    ),
    Row(PreflightRefused, 400, "Another website may not send this.", documented=False),
    Row(KeyRefused, 401, "The server needs a key (`CLIP_API_KEYS`); it is missing or wrong."),
    Row(CrossSite, 403, "Another website made a browser send this, and is not allowed to."),
    Row(UnknownModel, 404, "Another model is loaded.", documented=False),
    Row(NotFound, 404, "There is no such endpoint.", documented=False),
    Row(MethodNotAllowed, 405, "The endpoint does not accept this method.", documented=False),
    Row(BodyTooSlow, 408, "The body arrives too slowly."),
    Row(ImageTooLarge, 413, "The body or the decoded image is too large."),
    Row(BodyTooLarge, 413, "The body is too large.", documented=False),
    Row(WrongContentType, 415, "The body has a content type or encoding that is not accepted."),
    Row(
        InvalidInput,
        422,
        "A field is missing, has the wrong type, or breaks a limit.",
        elsewhere=400,
    ),
    Row(ClientGone, 499, "The client has gone.", documented=False),
    Row(
        ServiceUnavailable,
        503,
        "No model is loaded, or the server is starting, shutting down or too busy; "
        "see `Retry-After`.",
    ),
)
"""The first row that matches an error is used. An error without a row is a 500."""

UNFORESEEN: Final = "An unexpected error; the server's log has the reason under the request id."

_OPENAI_FIELDS: Final = {
    "model_not_found": "model",
    "unsupported_dimensions": "dimensions",
    "unknown_modality": "modality",
}
"""The wrong field, by the error's code, if it is not ``input``."""

ErrorBody: TypeAlias = (
    Problem
    | WrappedOpenAIError
    | WrappedLlamaCppError
    | CohereError
    | WeaviateError
    | RoboflowError
)


@dataclass(frozen=True, slots=True)
class Rendered:
    """An error as the client receives it.

    Attributes:
        status: the HTTP status.
        code: for programs.
        body: in the endpoint's format.
        media_type: the body's.
        headers: further headers of the response.
    """

    status: int
    code: str
    body: ErrorBody
    media_type: str
    headers: Mapping[str, str] = field(default_factory=dict)


def status_of(error: Exception) -> int | None:
    """The HTTP status of an expected error; None for an unexpected one."""
    row = _row_of(error)
    return None if row is None else row.status


def shape_at(path: str) -> Shape:
    """The format of errors at a path."""
    for place, shape in _SHAPES.items():
        if path == place or (place.endswith("/") and path.startswith(place)):
            return shape
    return Shape.PROBLEM


def name_inputs_after(scope: "Scope", field: str) -> None:
    """Say which field of a request holds its inputs, for errors that name a field."""
    scope["state"][_INPUT_FIELD_KEY] = field


def documented_errors(shape: Shape = Shape.PROBLEM) -> dict[int, str]:
    """The documentation's text for each status that an endpoint with a body may send."""
    foreign = shape is not Shape.PROBLEM
    meanings: dict[int, str] = {}
    for row in TABLE:
        if row.documented or (foreign and row.kind is UnknownModel):
            status = row.elsewhere if foreign and row.elsewhere else row.status
            also = meanings.get(status)
            meanings[status] = row.meaning if also is None else f"{also} {row.meaning}"
    return {**meanings, 500: UNFORESEEN}


def rendered(scope: "Scope", error: Exception) -> Rendered:
    """An error in the format of the endpoint; unexpected errors are logged here.

    Args:
        scope: of the request.
        error: any exception. If `TABLE` has no row for it, the client learns nothing about it.
    """
    if isinstance(error, MemoryError):
        # One line and no traceback: many of these come at once, and each takes memory.
        logger.error("request %s: no memory left for %s", _id(scope), _endpoint(scope))
        error = OutOfMemory("there is no memory left for this request now.", retry_after_s=5)
    row = _row_of(error)
    if row is None or not isinstance(error, ClipError):
        logger.error(
            "request %s: %s %s failed",
            _id(scope),
            scope.get("method"),
            _endpoint(scope),
            exc_info=error,
        )
        return _shaped(scope, 500, 500, INTERNAL, "internal_error", field=None, headers={})
    return _shaped(
        scope,
        row.status,
        row.elsewhere or row.status,
        error.detail,
        error.code,
        field=_field_of(scope, error),
        headers=_headers_of(error),
    )


async def send_error(scope: "Scope", send: "Send", error: Exception) -> Rendered:
    """Send an error from outside the framework; returns the error that was sent."""
    told = rendered(scope, error)
    content = msgspec.json.encode(told.body)
    headers = [
        (b"content-type", told.media_type.encode("ascii")),
        (b"content-length", str(len(content)).encode("ascii")),
    ]
    headers += [
        (name.lower().encode("ascii"), value.encode("latin-1"))
        for name, value in told.headers.items()
    ]
    await send({"type": "http.response.start", "status": told.status, "headers": headers})
    await send({"type": "http.response.body", "body": content, "more_body": False})
    return told


def problem(status: int, detail: str, code: str, request_id: str) -> Problem:
    """Problem details."""
    return Problem(
        type="about:blank",
        title=_title(status),
        status=status,
        detail=detail,
        code=code,
        request_id=request_id,
    )


def _shaped(
    scope: "Scope",
    status: int,
    status_elsewhere: int,
    detail: str,
    code: str,
    *,
    field: str | None,
    headers: Mapping[str, str],
) -> Rendered:
    scope["state"][OUTCOME_KEY] = code
    body: ErrorBody
    match shape_at(scope["path"]):
        case Shape.PROBLEM:
            told = problem(status, detail, code, _id(scope))
            return Rendered(status, code, told, MEDIA_TYPE, headers)
        case Shape.OPENAI:
            body = openai_error(status_elsewhere, detail, code, field=field)
        case Shape.LLAMA_CPP:
            body = llama_cpp_error(status_elsewhere, detail)
        case Shape.COHERE:
            body = CohereError(id=_id(scope), message=detail)
        case Shape.WEAVIATE:
            body = WeaviateError(error=detail)
        case Shape.ROBOFLOW:
            body = RoboflowError(message=detail)
    return Rendered(status_elsewhere, code, body, "application/json", headers)


def _row_of(error: Exception) -> Row | None:
    return next((row for row in TABLE if isinstance(error, row.kind)), None)


def _field_of(scope: "Scope", error: ClipError) -> str | None:
    """The request's wrong field; None if it is not a single field."""
    if isinstance(error, WrongShape):
        return error.field
    if isinstance(error, MalformedBody | WrongContentType) or not isinstance(error, InvalidInput):
        return None
    return _OPENAI_FIELDS.get(error.code) or scope["state"].get(_INPUT_FIELD_KEY, "input")


def _headers_of(error: ClipError) -> dict[str, str]:
    match error:
        case ServiceUnavailable():
            return {"Retry-After": str(error.retry_after_s)}
        case KeyRefused():
            return {"WWW-Authenticate": "Bearer"}
        case BodyTooSlow():
            return {"Connection": "close"}  # nobody will read the rest of the body
        case WrongContentEncoding():
            return {"Accept-Encoding": "identity"}  # RFC 9110, section 15.5.16
        case MethodNotAllowed(allow=allow) if allow:
            return {"Allow": allow}
        case _:
            return {}


def _id(scope: "Scope") -> str:
    return str(scope["state"].get(REQUEST_ID_KEY, ""))


def _endpoint(scope: "Scope") -> Any:
    """The endpoint's template, which clients cannot influence; else the path, quoted."""
    return scope.get("path_template") or repr(scope["path"][:_SHOWN_CHARACTERS])


def _title(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:  # 499, for a client that has gone
        return "Client Closed Request"
