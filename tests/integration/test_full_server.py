"""What a full server returns: cheaply, before a body is read, and in each path's error shape."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from application.inference.admission import Admission
from entrypoints.container import Container
from tests.support.photos import as_base64, plain

Client = AsyncTestClient[Any]
QUESTION = {"image": as_base64(plain(1, 2, 3), "PNG")}


@pytest.fixture
def full(container: Container, client: Client) -> Iterator[Admission]:
    """The server of ``client``, full for the time being."""
    admission = container.admission()
    with admission.admit(admission.capacity, client="testclient"):
        yield admission


@pytest.mark.usefixtures("full")
async def test_requests_are_refused(client: Client) -> None:
    response = await client.post("/embed", json=QUESTION, headers={"x-request-id": "mine"})
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["retry-after"] == "1"
    # What every response carries.
    assert response.headers["x-request-id"] == "mine"
    assert response.headers["x-model-fingerprint"]
    problem = response.json()
    assert (problem["status"], problem["code"]) == (503, "queue_full")
    assert problem["request_id"] == "mine"
    assert "64 requests are already waiting or running; at most 64" in problem["detail"]


@pytest.mark.usefixtures("full")
async def test_openais_clients_are_refused_in_openais_words(client: Client) -> None:
    response = await client.post("/v1/embeddings", json={"input": "a dog", "model": "clip"})
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    error = response.json()["error"]
    assert (error["code"], error["type"]) == ("queue_full", "server_error")


@pytest.mark.usefixtures("full")
async def test_all_else_is_answered_as_ever(client: Client) -> None:
    for path, status in (("/health", 200), ("/metrics", 200), ("/embed", 405), ("/nothing", 404)):
        assert (await client.get(path)).status_code == status
    assert (await client.post("/nothing")).status_code == 404
    assert (await client.post("/health")).status_code == 405


async def test_refusals_count_and_are_logged_together(
    client: Client, full: Admission, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="entrypoints.http"):
        for _ in range(5):
            await client.post("/embed", json=QUESTION)
        counted = 'clip_requests_total{endpoint="/embed",outcome="queue_full",status="503"} 5.0'
        assert counted in (await client.get("/metrics")).text
        while not (lines := [r.message for r in caplog.records if "refused" in r.message]):
            await client.get("/health/live")
    assert lines == [
        f"refused 5 requests: {full.capacity} were already waiting or running, the limit"
    ]


@pytest.fixture
def emptied(full: Admission) -> Admission:
    """The same server, shutting down."""
    full.start_draining()
    return full


@pytest.mark.usefixtures("emptied")
async def test_one_that_shuts_down_says_that_instead(client: Client) -> None:
    response = await client.post("/embed", json=QUESTION)
    assert response.json()["code"] == "draining"
    assert response.headers["connection"] == "close"
