"""What every question has in common: a POST that answers 200 and documents its errors."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from litestar import post
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from msgspec import Struct

from entrypoints.http.errors.problems import MEDIA_TYPE
from entrypoints.http.schemas import examples
from entrypoints.http.schemas.problem import Problem

PROBLEMS: Final[Mapping[int, ResponseSpec]] = {
    status: ResponseSpec(
        data_container=Problem, description=what, media_type=MEDIA_TYPE, generate_examples=False
    )
    for status, what in (
        (400, "The body is not what it is declared to be: no JSON, or no form."),
        (401, "The server has keys (`CLIP_API_KEYS`), and the request has none of them."),
        (403, "A browser was made to send this by a website that may not."),
        (408, "The body arrives too slowly."),
        (413, "The body or the decoded image is too large."),
        (415, "The body is not declared as something that is taken here."),
        (422, "A field is missing, of the wrong type, or breaks a limit."),
        (500, "Something unforeseen; the server's log has it under the request id."),
        (503, "No model loaded, starting, shutting down, or too busy; see `Retry-After`."),
    )
}


def question(
    path: str,
    answer: type[Struct],
    *,
    errors: Mapping[int, ResponseSpec] = PROBLEMS,
    tag: str = "questions",
    **options: Any,
) -> Callable[[Callable[..., Any]], HTTPRouteHandler]:
    """A POST that answers 200 and documents its errors and an example.

    Args:
        path: where it is; `examples.ANSWERS` has its example.
        answer: what it answers.
        errors: what it answers otherwise.
        tag: its group in the documentation.
        options: whatever else Litestar's ``post`` takes.
    """
    success = ResponseSpec(
        data_container=answer,
        description="The answer.",
        examples=[examples.ANSWERS[path]],
        generate_examples=False,
    )
    return post(path, status_code=200, responses={200: success, **errors}, tags=[tag], **options)


class Stopwatch:
    """Milliseconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def milliseconds(self) -> float:
        """Milliseconds with three decimals."""
        return round((time.perf_counter() - self._start) * 1000, 3)
