"""Errors in OpenAI's shape, which its clients turn into their own exceptions."""

from typing import Final

from domain.errors import InvalidInput
from entrypoints.http.bodies.json_bodies import MalformedBody, WrongContentType, WrongShape
from entrypoints.http.schemas.openai import ErrorAnswer, ErrorObject

PREFIX: Final = "/v1/"
"""The paths that answer as OpenAI's do."""

_STATUSES: Final = {422: 400}
"""What OpenAI answers another status to: a request that breaks a rule is a bad request there."""


_FIELDS: Final = {
    "model_not_found": "model",
    "unsupported_dimensions": "dimensions",
    "unknown_encoding_format": "encoding_format",
    "unknown_modality": "modality",
}
"""Which field is wrong, by an error's code, where it is not the input."""


def speaks_openai(path: str) -> bool:
    """Whether errors at this path are told in OpenAI's shape."""
    return path.startswith(PREFIX)


def field_of(error: InvalidInput) -> str | None:
    """The request's field that is wrong; None where the body as a whole is."""
    if isinstance(error, MalformedBody | WrongContentType):
        return None
    if isinstance(error, WrongShape):
        return error.field
    return _FIELDS.get(error.code, "input")


def status_for_openai(status: int) -> int:
    """What OpenAI answers where another path answers ``status``."""
    return _STATUSES.get(status, status)


def as_openai(status: int, detail: str, code: str, *, field: str | None) -> ErrorAnswer:
    """An error as OpenAI answers it.

    Args:
        status: the HTTP status that it has elsewhere.
        detail: what is wrong, for people.
        code: what is wrong, for programs.
        field: which of the request's fields is wrong, if it is one.
    """
    return ErrorAnswer(
        ErrorObject(
            message=detail,
            type="invalid_request_error" if status < 500 else "server_error",
            param=field,
            code=code,
        )
    )
