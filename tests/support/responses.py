"""What tests of the HTTP surface look at in every answer."""

from typing import Any

from litestar.testing import AsyncTestClient

Client = AsyncTestClient[Any]


def problem(answer: Any, status: int) -> dict[str, Any]:
    """The body of an error, checked to be problem details with that status."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert body["detail"]
    assert body["title"]
    assert body["request_id"] == answer.headers["X-Request-ID"]
    return body


def answered(answer: Any) -> dict[str, Any]:
    """The body of a question's answer."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    body: dict[str, Any] = answer.json()
    assert isinstance(body["inference_time_ms"], float)
    return body
