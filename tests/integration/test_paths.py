"""Paths that no well-behaved client sends, HEAD, and where the schema is."""

import logging
from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from entrypoints.container import Container, http_service
from entrypoints.logs import LogFormat, LogLevel, configure_logging
from entrypoints.settings import read_settings
from tests.support.app import composed, serving
from tests.support.photos import as_base64, photo
from tests.support.responses import Client, problem

IMAGE = {"image": as_base64(photo("cat"))}


@pytest.fixture
def client(shared_client: Client) -> Client:
    return shared_client


@pytest.mark.parametrize("beside", ["/docs-assets/", "/page/", "/v1/models/", "/"])
@pytest.mark.parametrize(
    "name", ["%00", "x" * 5000, "start.js/../x", "start.js/x", "..%2f..%2fpyproject.toml", "%0a"]
)
async def test_strange_names_do_not_exist(client: Client, beside: str, name: str) -> None:
    response = await client.get(beside + name)
    assert response.status_code == 404
    assert "X-Request-ID" in response.headers
    if not beside.startswith("/v1/"):
        assert problem(response, 404)["code"] == "not_found"


async def test_a_path_cannot_forge_a_line_of_the_log(
    client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    root, httpx_log = logging.getLogger(), logging.getLogger("httpx")
    handlers, level = root.handlers[:], root.level
    httpx_log.setLevel(logging.WARNING)  # the test's own client
    try:
        configure_logging(LogFormat.TEXT, LogLevel.DEBUG)
        await client.get("/v1/models/%0a2026-01-01%20forged")
        await client.get("/%0a2026-01-01%20forged")
        logging.getLogger("any").error("a name: %s", "x\n2026-01-01 forged\x1b[2J\u2028")
        lines = capsys.readouterr().err.splitlines()
    finally:
        httpx_log.setLevel(logging.NOTSET)
        root.handlers[:], root.level = handlers, level
    assert any("forged" in line for line in lines)
    assert not any(line.startswith("2026-01-01") for line in lines)
    assert "\x1b[2J" not in "".join(lines)


SERVER = "http://testserver.local"
OTHER_FORMS = ["/embed/", "//embed", "/embed//", "/%65mbed", "/%2Fembed"]


@pytest.mark.parametrize("path", OTHER_FORMS)
async def test_other_forms_of_a_path_are_the_same_endpoint(client: Client, path: str) -> None:
    assert (await client.post(SERVER + path, json=IMAGE)).status_code == 200
    wrong = await client.post(SERVER + "//v1//embeddings/", json={"input": []})
    assert wrong.json()["error"]["code"] == "no_inputs"


@pytest.mark.parametrize("path", ["/embed", *OTHER_FORMS, "/v1/embeddings/", "/v1//embeddings"])
async def test_no_form_of_a_path_goes_round_load_shedding(path: str) -> None:
    container = composed(CLIP_MAX_REQUESTS="1")
    async with serving(container) as client:
        with container.admission().admit(client="testclient"):
            # Refused before its body is looked at: this would be 415.
            response = await client.post(
                SERVER + path, content=b"x", headers={"content-type": "x/y"}
            )
        assert response.status_code == 503
        code = response.json().get("code") or response.json()["error"]["code"]
        assert code == "queue_full"
        assert response.headers["Retry-After"] == "1"


@pytest.mark.parametrize(
    "path",
    ["/", "/page/main.js", "/docs", "/docs/openapi.json", "/docs-assets/start.js", "/openapi.json",
     "/health", "/health/live", "/health/ready", "/metrics", "/v1/models", "/v1/models/clip",
     "/nowhere"],
)  # fmt: skip
async def test_head_is_get_without_the_body(client: Client, path: str) -> None:
    head, get = await client.head(path), await client.get(path)
    assert head.status_code == get.status_code
    assert head.content == b""
    for name in ("content-type", "cache-control", "content-security-policy"):
        assert head.headers.get(name) == get.headers.get(name)
    if path not in {"/metrics", "/nowhere"}:
        assert head.headers["content-length"] == str(len(get.content))


async def test_head_is_no_way_to_post(client: Client) -> None:
    assert (await client.head("/embed")).status_code == 405


async def test_the_schema_is_where_other_servers_have_it(client: Client) -> None:
    schema: dict[str, Any] = (await client.get("/openapi.json")).json()
    assert schema == (await client.get("/docs/openapi.json")).json()
    form = schema["paths"]["/classify"]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert form["schema"]["properties"]["image"] == {"type": "string", "format": "binary"}
    assert form["schema"]["required"] == ["image", "labels"]
    documented = schema["paths"]["/embed"]["post"]["requestBody"]["content"]["application/json"]
    assert documented["schema"]["properties"]["image"]["contentEncoding"] == "base64"


async def test_health_names_what_is_configured_while_it_is_degraded() -> None:
    settings = read_settings(
        {"CLIP_ENCODER": "openvino", "CLIP_MODEL_PATH": "/nowhere/clip-vit-l@main"}
    )
    service = http_service(Container(settings=settings))
    async with AsyncTestClient(service, raise_server_exceptions=False) as client:
        health = (await client.get("/health")).json()
    assert (health["status"], health["model_loaded"]) == ("degraded", False)
    assert (health["model"], health["backend"]) == ("clip-vit-l", "openvino")
