"""An error's shapes: RFC 9457 problem details, and what other protocols have."""

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
    request_id: Annotated[str, documented("Identifies the request in the server's log.")]


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


class LlamaCppError(Struct):
    """An error in the format of llama.cpp's server."""

    code: Annotated[int, documented("The HTTP status.")]
    message: Annotated[str, documented("For people: names the value and the limit it broke.")]
    type: Annotated[str, documented("`invalid_request_error` or `server_error`.")]


class WrappedLlamaCppError(Struct):
    """An error of the endpoints for llama.cpp's clients."""

    error: LlamaCppError


class CohereError(Struct):
    """An error of the endpoint for Cohere's clients."""

    id: Annotated[str, documented("Identifies the request in the server's log.")]
    message: Annotated[str, documented("For people: names the value and the limit it broke.")]


class WeaviateError(Struct):
    """An error of the endpoints for Weaviate."""

    error: Annotated[str, documented("For people: names the value and the limit it broke.")]


class RoboflowError(Struct):
    """An error of the endpoints for Roboflow's clients."""

    message: Annotated[str, documented("For people: names the value and the limit it broke.")]


def llama_cpp_error(status: int, detail: str) -> WrappedLlamaCppError:
    """An error in llama.cpp's shape."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return WrappedLlamaCppError(LlamaCppError(code=status, message=detail, type=kind))
