"""One table from the domain's errors to HTTP, told as RFC 9457 problem details.

Under `openai_errors.PREFIX` the same errors are told as OpenAI tells them.
"""

import http
import logging
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from litestar import MediaType, Request, Response
from litestar.exceptions import HTTPException
from litestar.types import ExceptionHandlersMap, Scope

from domain.errors import (
    ClipError,
    ImageTooLarge,
    InvalidInput,
    OutOfMemory,
    ServiceUnavailable,
    UnknownModel,
)
from domain.limits import MAX_BODY_BYTES
from entrypoints.http.bodies.json_bodies import MalformedBody, WrongContentType
from entrypoints.http.errors.openai_errors import (
    as_openai,
    field_of,
    speaks_openai,
    status_for_openai,
)
from entrypoints.http.middleware.auth import CrossSite, KeyRefused
from entrypoints.http.middleware.body_limits import BodyTooSlow
from entrypoints.http.middleware.request_log import note_outcome
from entrypoints.http.middleware.response_headers import request_id
from entrypoints.http.schemas.openai import ErrorAnswer
from entrypoints.http.schemas.problem import Problem

logger = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"

_STATUSES: Final[tuple[tuple[type[ClipError], int], ...]] = (
    (MalformedBody, 400),
    (KeyRefused, 401),
    (CrossSite, 403),
    (BodyTooSlow, 408),
    (UnknownModel, 404),
    (ImageTooLarge, 413),
    (WrongContentType, 415),
    (InvalidInput, 422),
    (ServiceUnavailable, 503),
)
"""Status by kind of error; the first that fits counts. What is not here is a 500."""

_HTTP_CODES: Final = {
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    499: "client_gone",
}

INTERNAL: Final = (
    "something went wrong in the server; its log has the reason under this request's id."
)


_Answer: TypeAlias = Response[Problem | ErrorAnswer]


def status_of(error: ClipError) -> int | None:
    """The HTTP status of an error that is a client's to know; None for the unforeseen."""
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), None)


def _clip_error(request: Request[Any, Any, Any], error: ClipError) -> _Answer:
    status = status_of(error)
    if status is None:
        return _unforeseen(request, error)
    headers = {}
    if isinstance(error, ServiceUnavailable):
        headers["Retry-After"] = str(error.retry_after_s)
    elif isinstance(error, KeyRefused):
        headers["WWW-Authenticate"] = "Bearer"
    elif isinstance(error, BodyTooSlow):
        headers["Connection"] = "close"  # nobody waits for the rest of it
    field = field_of(error) if isinstance(error, InvalidInput) else None
    return _answer(request, status, error.detail, error.code, headers, field=field)


def _http_error(request: Request[Any, Any, Any], error: HTTPException) -> _Answer:
    """What Litestar itself refuses: unknown paths, methods, bodies over the limit."""
    status = error.status_code
    if status >= 500:
        return _unforeseen(request, error)
    detail = error.detail
    if status == 413:
        detail = (
            f"the body has more than {MAX_BODY_BYTES} bytes, the limit for a request; "
            f"it declares {request.headers.get('content-length', 'no length')}."
        )
    elif status == 404:
        detail = f"there is nothing at {request.url.path[:200]!r}."
    elif status == 405:
        detail = f"{request.method} is not possible at {request.url.path[:200]!r}."
    code = _HTTP_CODES.get(status, "bad_request")
    return _answer(request, status, detail, code, dict(error.headers or {}))


def _unforeseen(request: Request[Any, Any, Any], error: Exception) -> _Answer:
    logger.error(
        "request %s: %s %s failed",
        request_id(request.scope),
        request.method,
        request.url.path,
        exc_info=error,
    )
    return _answer(request, 500, INTERNAL, "internal_error", {})


def _out_of_memory(request: Request[Any, Any, Any], _: MemoryError) -> _Answer:
    # A line and no traceback: there will be many of these at once, and each costs memory too.
    logger.error("request %s: no memory left for %s", request_id(request.scope), request.url.path)
    return _clip_error(
        request, OutOfMemory("there is no memory left to answer this now.", retry_after_s=5)
    )


@dataclass(frozen=True, slots=True)
class Told:
    """An error as it is told at the path that was asked.

    Attributes:
        status: the HTTP status.
        content: the body.
        media_type: its type.
    """

    status: int
    content: Problem | ErrorAnswer
    media_type: str


def told(scope: Scope, status: int, detail: str, code: str, *, field: str | None = None) -> Told:
    """Put an error into words and numbers.

    Args:
        scope: of the request.
        status: the HTTP status that it has everywhere but at OpenAI's paths.
        detail: what is wrong, for people.
        code: what is wrong, for programs.
        field: which of the request's fields is wrong, if it is one; only OpenAI's way tells it.
    """
    if speaks_openai(scope["path"]):
        error = as_openai(status, detail, code, field=field)
        return Told(status_for_openai(status), error, MediaType.JSON)
    return Told(status, problem(status, detail, code, request_id(scope)), MEDIA_TYPE)


def problem(status: int, detail: str, code: str, identity: str) -> Problem:
    """An error as problem details; ``identity`` is the request's id."""
    return Problem(
        type="about:blank",
        title=_title(status),
        status=status,
        detail=detail,
        code=code,
        request_id=identity,
    )


def _answer(
    request: Request[Any, Any, Any],
    status: int,
    detail: str,
    code: str,
    headers: dict[str, str],
    *,
    field: str | None = None,
) -> _Answer:
    note_outcome(request.scope, code)
    error = told(request.scope, status, detail, code, field=field)
    return Response(
        error.content, status_code=error.status, media_type=error.media_type, headers=headers
    )


def _title(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:  # 499, for a client that has gone
        return "Client Closed Request"


EXCEPTION_HANDLERS: Final[ExceptionHandlersMap] = {
    ClipError: _clip_error,
    HTTPException: _http_error,
    MemoryError: _out_of_memory,
    Exception: _unforeseen,
}
