"""Nothing in the corpus makes the server lie, leak, hang or die."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np
import pytest

from checks.endurance.vitals import memory_mib
from domain.limits import IMAGE_FORMATS
from tests.support import hostile_files as files
from tests.support.hostile_corpus import Hostile, corpus, image
from tests.support.hostile_measuring import (
    Answer,
    Prober,
    every_endpoint_works,
    known_embedding,
    measured,
    send,
)
from tests.support.servers import Server

MAX_MEBIBYTES: Final = 600
"""What a request may take for a moment: the worst image's 500, and room for how memory is freed."""

MAX_MEBIBYTES_KEPT: Final = 300
"""What may stay after all requests: the encoder's and the allocators' room for the next ones."""


@pytest.fixture(scope="module", autouse=True)
def unharmed(server: Server) -> Iterator[None]:
    """Afterwards the same photo has the same embedding, in about the same memory."""
    before = known_embedding(server)
    resident = memory_mib(server.process.pid)
    yield
    assert memory_mib(server.process.pid) - resident < MAX_MEBIBYTES_KEPT
    np.testing.assert_allclose(known_embedding(server), before, atol=1e-6)
    every_endpoint_works(server)
    assert "Traceback" not in server.log
    assert "Warning: " not in server.log


@pytest.mark.parametrize("hostile", corpus(), ids=lambda hostile: hostile.name)
def test_it_gets_its_documented_answer(server: Server, prober: Prober, hostile: Hostile) -> None:
    response, cost = measured(server, prober, hostile)
    check(hostile, response)
    assert cost.mebibytes < MAX_MEBIBYTES


@pytest.mark.parametrize("file_format", IMAGE_FORMATS)
def test_damaged_files_are_refused_or_seen(server: Server, file_format: str) -> None:
    statuses = set()
    for data in files.damaged(file_format, 60):
        request = image("damaged", lambda data=data: data)  # type: ignore[misc]
        response = send(server, request)
        statuses.add(response.status)
        if response.status == 200:
            assert np.isfinite(response.json["embedding"]).all()
        else:
            assert (response.status, response.json["status"]) == (422, 422), response
            assert response.content_type == "application/problem+json"
    assert 422 in statuses


def check(hostile: Hostile, response: Answer) -> None:
    """The status, the code and the shape of a response."""
    if hostile.costly and b'"image_too_expensive"' in response.body:
        hostile = replace(hostile, status=422, code="image_too_expensive")
    assert response.status == hostile.status, response.body[:500]
    if hostile.item:
        assert response.json["results"][0]["error"]["code"] == hostile.code
    elif hostile.code is None:
        assert response.content_type == "application/json"
    elif hostile.path.startswith("/v1/"):
        assert response.json["error"]["code"] == hostile.code
        assert response.json["error"]["message"]
    else:
        assert response.content_type == "application/problem+json"
        problem = response.json
        assert (problem["status"], problem["code"]) == (hostile.status, hostile.code)
        assert set(problem) == {"type", "title", "status", "detail", "code", "request_id"}
        # What was sent is named, never sent back whole.
        assert 0 < len(problem["detail"]) < 2000
        assert "Traceback" not in problem["detail"]
