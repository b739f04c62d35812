"""What tests of the HTTP surface look at in every response."""

from typing import Any

from litestar.testing import AsyncTestClient

Client = AsyncTestClient[Any]


def problem(response: Any, status: int) -> dict[str, Any]:
    """The body of an error, checked to be problem details with that status."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    assert body["detail"]
    assert body["title"]
    assert body["request_id"] == response.headers["X-Request-ID"]
    return body


def succeeded(response: Any) -> dict[str, Any]:
    """The body of a response."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    body: dict[str, Any] = response.json()
    assert isinstance(body["inference_time_ms"], float)
    return body
