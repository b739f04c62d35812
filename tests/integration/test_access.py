"""Who may come in: keys, browsers from elsewhere, what is closed, and what every response says."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import pytest_asyncio

from entrypoints.http.middleware.auth import ApiKeys
from tests.support.app import composed, serving
from tests.support.photos import as_base64, photo
from tests.support.responses import Client

KEY = "a-camera's-own-key"
OTHER_KEY = "0123456789abcdef0123456789abcdef"
OPEN = ["/", "/page/main.js", "/docs", "/docs/openapi.json", "/docs-assets/start.js",
        "/health/live", "/health/ready"]  # fmt: skip
CLOSED = ["/health", "/metrics", "/v1/models", "/v1/models/clip"]
ENDPOINTS = ["/embed", "/anomaly-score", "/classify", "/similarity", "/batch-similarity",
             "/embed/batch", "/embed/text", "/compare", "/baseline", "/v1/embeddings"]  # fmt: skip
EMBED = {"image": as_base64(photo("cat"))}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def keyed() -> AsyncIterator[Client]:
    async with serving(composed(CLIP_API_KEYS=f"{KEY}, {OTHER_KEY}")) as client:
        yield client


@pytest.fixture
def client(shared_client: Client) -> Client:
    return shared_client


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": KEY},
        {"x-api-key": f" {OTHER_KEY} "},
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"bearer  {OTHER_KEY}"},
        # Two things that each add what they have: one that is right is enough.
        {"Authorization": "Bearer unused", "X-API-Key": KEY},
        {"Authorization": "Basic dXNlcjpwYXNz", "X-API-Key": KEY},
    ],
)
async def test_a_key_lets_in(keyed: Client, headers: dict[str, str]) -> None:
    assert (await keyed.post("/embed", json=EMBED, headers=headers)).status_code == 200
    assert (await keyed.get("/health", headers=headers)).json()["status"] == "healthy"
    assert b"clip_ready" in (await keyed.get("/metrics", headers=headers)).content


@pytest.mark.parametrize("path", [*CLOSED, *ENDPOINTS])
@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "missing_api_key"),
        ({"Authorization": "Basic dXNlcjpwYXNz"}, "missing_api_key"),
        ({"Authorization": f"Bearer {KEY}x"}, "wrong_api_key"),
        ({"Authorization": f"Bearer {KEY[:-1]}"}, "wrong_api_key"),
        ({"Authorization": "Bearer"}, "wrong_api_key"),
        ({"X-API-Key": ""}, "wrong_api_key"),
        ({"X-API-Key": f"{KEY}, {OTHER_KEY}"}, "wrong_api_key"),
    ],
)
async def test_without_a_key_nothing_is_told(
    keyed: Client, path: str, headers: dict[str, str], code: str
) -> None:
    if path in ENDPOINTS:
        # Not even looked at: this would be 415.
        response = await keyed.post(path, content=b"{", headers={"Content-Type": "x/y", **headers})
    else:
        response = await keyed.get(path, headers=headers)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    body = response.json()
    if path.startswith("/v1/"):
        assert (body["error"]["code"], body["error"]["type"]) == (code, "invalid_request_error")
    else:
        assert response.headers["content-type"] == "application/problem+json"
        assert (body["code"], body["status"], body["title"]) == (code, 401, "Unauthorized")
    assert KEY not in response.text


@pytest.mark.parametrize("path", OPEN)
async def test_what_says_nothing_stays_open(keyed: Client, path: str) -> None:
    assert (await keyed.get(path)).status_code == 200


async def test_without_keys_a_key_is_ignored(client: Client) -> None:
    headers = {"Authorization": "Bearer unused"}
    assert (await client.post("/embed", json=EMBED, headers=headers)).status_code == 200


@pytest.mark.parametrize("keys", [None, KEY])
async def test_the_schema_asks_for_a_key_where_there_are_keys(keys: str | None) -> None:
    async with serving(composed(**{} if keys is None else {"CLIP_API_KEYS": keys})) as client:
        schema = (await client.get("/docs/openapi.json")).json()
    assert "401" in schema["paths"]["/embed"]["post"]["responses"]
    if keys is None:
        assert "security" not in schema
        assert "securitySchemes" not in schema.get("components", {})
    else:
        assert schema["security"] == [{"bearer": []}, {"header": []}]
        schemes = schema["components"]["securitySchemes"]
        assert schemes["bearer"] == {"type": "http", "scheme": "bearer"}
        assert schemes["header"] == {"type": "apiKey", "name": "X-API-Key", "in": "header"}
        assert schema["paths"]["/health/live"]["get"]["security"] == [{}]


def test_every_key_is_compared_and_none_is_kept() -> None:
    keys = ApiKeys([KEY, OTHER_KEY])
    assert keys.let_in(KEY.encode())
    assert keys.let_in(OTHER_KEY.encode())
    assert not keys.let_in(b"")
    assert not keys.let_in("clé-de-caméra-1234".encode("latin-1"))
    assert repr(keys) == "ApiKeys(2)"
    assert KEY.encode() not in b"".join(keys.__dict__["_digests"])


OWN = "testserver.local"  # what Litestar's client calls the server


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://behind-a-proxy"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": f"http://{OWN}"}, 200),
        ({"Origin": f"http://{OWN}:80"}, 200),
        ({"Sec-Fetch-Site": "same-site", "Origin": f"http://{OWN}"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": f"http://{OWN}"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Origin": f"http://other.{OWN}"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": f"http://{OWN}.evil.example"}, 403),
        ({"Origin": f"http://{OWN}:8080"}, 403),
        ({"Origin": f"http://{OWN}:eighty"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
    ],
)
async def test_other_websites_cannot_send_their_visitors(
    client: Client, headers: dict[str, str], status: int
) -> None:
    headers = {"Host": OWN, **headers}
    response = await client.post("/embed", json=EMBED, headers=headers)
    assert response.status_code == status, response.text
    if status == 403:
        assert response.json()["code"] == "cross_site"
        refused = await client.post("/v1/embeddings", json={}, headers=headers)
        assert refused.json()["error"]["code"] == "cross_site"
    # A link to the page is one of the things that the web is for.
    assert (await client.get("/", headers=headers)).status_code == 200


async def test_cors_is_off_unless_asked_for(client: Client) -> None:
    origin = {"Origin": "https://cameras.example"}
    preflight = await client.options(
        "/embed", headers={**origin, "Access-Control-Request-Method": "POST"}
    )
    for response in (preflight, await client.get("/health", headers=origin)):
        assert not [name for name in response.headers if name.startswith("access-control")]
        assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"


@pytest.mark.parametrize(
    ("origins", "origin", "allowed"),
    [
        ("https://cameras.example, http://localhost:3000", "https://cameras.example", True),
        ("https://cameras.example, http://localhost:3000", "http://localhost:3000", True),
        ("https://cameras.example", "https://cameras.example.evil", False),
        ("https://cameras.example", "http://cameras.example", False),
        ("https://cameras.example", "null", False),
        ("*", "https://anything.example", True),
    ],
)
async def test_cors_for_those_who_are_listed(origins: str, origin: str, allowed: bool) -> None:
    async with serving(composed(CLIP_CORS_ORIGINS=origins, CLIP_API_KEYS=KEY)) as client:
        preflight = await client.options(
            "/embed",
            headers={
                "Origin": origin,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization,content-type,x-api-key",
            },
        )
        refused = await client.get("/health", headers={"Origin": origin})
        headers = {
            "Origin": origin,
            "Sec-Fetch-Site": "cross-site",
            "Authorization": f"Bearer {KEY}",
        }
        response = await client.post("/embed", json=EMBED, headers=headers)
    # Without a key, a website's requests are refused, but it can read why.
    assert refused.status_code == 401
    assert preflight.status_code == (204 if allowed else 400)
    assert response.status_code == (200 if allowed else 403)
    for told in (preflight, refused, response):
        permitted = told.headers.get("Access-Control-Allow-Origin")
        assert permitted == (("*" if origins == "*" else origin) if allowed else None)
    exposed = response.headers["Access-Control-Expose-Headers"].lower().split(", ")
    assert set(exposed) == {
        "x-request-id",
        "x-model-fingerprint",
        "x-unknown-field",
        "x-tokens-cut",
        "retry-after",
    }
    assert "Access-Control-Allow-Credentials" not in response.headers
    assert "Cross-Origin-Resource-Policy" not in response.headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("GET", "/page/main.js", 200),
        ("GET", "/docs", 200),
        ("GET", "/docs/nowhere", 404),
        ("GET", "/docs/openapi.json", 200),
        ("GET", "/docs-assets/swagger-ui.css", 200),
        ("GET", "/docs-assets/nothing.js", 404),
        ("GET", "/health", 200),
        ("GET", "/metrics", 200),
        ("GET", "/nowhere", 404),
        ("GET", "/embed", 405),
        ("POST", "/embed", 400),
        ("POST", "/v1/embeddings", 400),
    ],
)
async def test_every_answer_tells_browsers_to_be_careful(
    client: Client, method: str, path: str, status: int
) -> None:
    response = await client.request(method, path)
    assert response.status_code == status
    headers = response.headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "Strict-Transport-Security" not in headers
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "frame-ancestors 'none'" in policy
    own = path == "/" or path.startswith(("/page/", "/docs"))
    assert ("script-src" in policy) is (own and not path.startswith("/docs-assets"))
    kept = {"/": "no-cache", "/page/main.js": "no-cache"}
    if path.startswith("/docs-assets") and status == 200:
        assert headers["Cache-Control"] == "max-age=3600"
    else:
        assert headers["Cache-Control"] == kept.get(path, "no-store")
    for name in ("X-Content-Type-Options", "Content-Security-Policy", "Cache-Control"):
        assert len(headers.get_list(name)) == 1


@pytest.mark.parametrize(
    ("variable", "paths"),
    [
        ("CLIP_METRICS_ENABLED", ["/metrics"]),
        ("CLIP_DOCS_ENABLED", ["/docs", "/docs/openapi.json", "/docs-assets/start.js", "/schema"]),
        ("CLIP_PAGE_ENABLED", ["/", "/page/main.js"]),
    ],
)
async def test_what_is_closed_is_not_there(variable: str, paths: list[str]) -> None:
    everything = {"/metrics", "/docs", "/"}
    closed: Mapping[str, Any] = {variable: "false"}
    async with serving(composed(**closed)) as client:
        for path in paths:
            response = await client.get(path)
            assert (response.status_code, response.json()["code"]) == (404, "not_found")
        for path in everything - set(paths):
            assert (await client.get(path)).status_code == 200
        page = (await client.get("/")).text
        assert ('href="docs"' in page) is (variable == "CLIP_METRICS_ENABLED")
        assert (await client.post("/embed", json=EMBED)).status_code == 200
