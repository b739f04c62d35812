"""The two shapes of an error: RFC 9457 problem details, and OpenAI's."""

from typing import Annotated

from msgspec import Struct

from entrypoints.http.schemas.fields import documented


class Problem(Struct):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: Annotated[str, documented("For people: names the value and the limit it broke.")]
    code: Annotated[str, documented("For programs: stable.")]
    request_id: Annotated[str, documented("Finds the request in the server's log.")]


class OpenAIError(Struct):
    """An error in OpenAI's format."""

    message: Annotated[str, documented("For people: names the value and the limit it broke.")]
    type: Annotated[str, documented("`invalid_request_error` or `server_error`.")]
    param: Annotated[str | None, documented("The request's field that is wrong.")]
    code: Annotated[str | None, documented("For programs: stable.")]


class WrappedOpenAIError(Struct):
    """An error under `/v1`."""

    error: OpenAIError


def openai_error(status: int, detail: str, code: str, *, field: str | None) -> WrappedOpenAIError:
    """An error in OpenAI's shape.

    Args:
        status: of HTTP.
        detail: for people.
        code: for programs.
        field: the request's field that is wrong; None if no single field is.
    """
    kind = "invalid_request_error" if status < 500 else "server_error"
    return WrappedOpenAIError(OpenAIError(message=detail, type=kind, param=field, code=code))
