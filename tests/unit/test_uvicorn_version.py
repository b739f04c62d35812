"""The connection uses names that uvicorn does not document: another version needs a look."""

import tomllib
from importlib.metadata import version
from pathlib import Path

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from entrypoints.server.connection import UVICORN


def test_it_is_the_one_that_the_connection_was_tested_with() -> None:
    assert version("uvicorn") == UVICORN


def test_an_installation_takes_no_other() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    assert f"uvicorn[standard]=={UVICORN}" in project["dependencies"]


def test_the_names_are_there() -> None:
    for name in (
        "_start_asgi_task",
        "_unset_keepalive_if_required",
        "on_response_complete",
        "timeout_keep_alive_handler",
        "shutdown",
    ):
        assert callable(getattr(HttpToolsProtocol, name)), name
    assert {"disconnected", "keep_alive", "response_started", "response_complete"} <= set(
        RequestResponseCycle.__init__.__code__.co_names
    )
