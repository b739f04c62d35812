"""Requests made from the server's own OpenAPI schema, right ones and wrong ones.

`FUZZ_EXAMPLES` says how many for each operation; `make fuzz` takes many.
"""

import os
from collections.abc import Iterator
from typing import Any, Final

import hypothesis
import pytest
import requests
import schemathesis
from hypothesis.strategies import SearchStrategy
from schemathesis import GenerationMode
from schemathesis.checks import (
    CheckFunction,
    content_type_conformance,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.core.result import Ok

from tests.support.servers import SERVE, Server, running, wait_for

EXAMPLES: Final = int(os.environ.get("FUZZ_EXAMPLES", "30"))

CHECKS: Final[list[CheckFunction]] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real server on an encoder that takes no time."""
    with running(SERVE, tmp_path_factory.mktemp("server") / "log", CLIP_ENCODER="fake") as server:
        wait_for(server, "/health/ready")
        yield server
        assert "Traceback" not in server.log


def test_answers_are_what_the_live_schema_says(server: Server) -> None:
    schema = schemathesis.openapi.from_url(server.url + "/docs/openapi.json")
    found = list(schema.get_all_operations())
    operations = [operation.ok() for operation in found if isinstance(operation, Ok)]
    assert len(operations) == len(found) >= 15
    with requests.Session() as session:
        for operation in operations:
            for mode in GenerationMode:
                try:
                    ask(session, operation.as_strategy(generation_mode=mode))
                except hypothesis.errors.Unsatisfiable:
                    # Where nothing is sent, nothing can be wrong.
                    assert (operation.method, mode) == ("get", GenerationMode.NEGATIVE)
            examples = operation.get_strategies_from_examples()
            assert bool(examples) == (operation.method == "post")
            for example in examples:
                assert ask(session, example) == {200}


def ask(session: requests.Session, cases: SearchStrategy[schemathesis.Case[Any]]) -> set[int]:
    """Send requests, check their responses, and return the statuses that were met."""
    statuses = set()

    @hypothesis.settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=cases)
    def check(case: schemathesis.Case[Any]) -> None:
        response = case.call_and_validate(checks=CHECKS, session=session, timeout=60)
        statuses.add(response.status_code)

    check()
    return statuses
