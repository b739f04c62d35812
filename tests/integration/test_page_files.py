"""How the page's files are served."""

import re
from pathlib import Path

import pytest

from tests.support.responses import Client

FOLDER = Path("entrypoints/web/page")
FILES = sorted(path.name for path in FOLDER.iterdir() if path.suffix in {".js", ".css", ".svg"})


@pytest.fixture
def client(shared_client: Client) -> Client:
    return shared_client


@pytest.mark.parametrize("path", ["/", *(f"/page/{name}" for name in FILES)])
async def test_files_are_cached_and_asked_about(client: Client, path: str) -> None:
    first = await client.get(path)
    assert first.status_code == 200
    assert first.headers["cache-control"] == "no-cache"
    assert first.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in first.headers["content-security-policy"]
    tag = first.headers["etag"]
    for held in (tag, f'W/{tag}, "other"', "*"):
        again = await client.get(path, headers={"If-None-Match": held})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == tag
    assert (await client.get(path, headers={"If-None-Match": '"other"'})).content == first.content


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/page/page.css", "text/css; charset=utf-8"),
        ("/page/main.js", "text/javascript; charset=utf-8"),
        ("/page/icon.svg", "image/svg+xml"),
        ("/page/samples/taxi.png", "image/png"),
    ],
)
async def test_media_types(client: Client, path: str, kind: str) -> None:
    assert (await client.get(path)).headers["content-type"] == kind


@pytest.mark.parametrize(
    "path",
    [
        "/page/nothing.js",
        "/page/",
        "/page/samples",
        "/page/samples/LICENSE",
        "/page/../page_files.py",
        "/page/%2e%2e/page_files.py",
        "/page/..%2fpage_files.py",
        "/page//etc/passwd",
    ],
)
async def test_nothing_else_is_served(client: Client, path: str) -> None:
    response = await client.get(path)
    assert response.status_code == 404
    assert response.json()["code"] == "not_found"


def test_nothing_is_inline_and_nothing_comes_from_elsewhere() -> None:
    markup = (FOLDER / "index.html").read_text()
    assert not re.search(r"\sstyle=|\son\w+=|<style|javascript:", markup)
    for tag in re.findall(r"<(?:script|link|img)[^>]*>", markup):
        assert "//" not in tag
    for script in FOLDER.glob("*.js"):
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|eval\(|https?://", script.read_text()
        )
