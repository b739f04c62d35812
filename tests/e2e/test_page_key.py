"""The page and the documentation of a server with keys, in a real browser."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.e2e.test_page_access import PHONE
from tests.support.browsers import TRUCK, choose, opened, outcome
from tests.support.servers import SERVE, Server, running, wait_for

KEY = "s3cr3t-key-of-the-porch-camera"


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("server") / "log"
    with running(SERVE, log, CLIP_ENCODER="fake", CLIP_API_KEYS=KEY) as server:
        wait_for(server, "/health/ready")
        yield server
        assert "s3cr3t" not in server.log


def give(page: Page, key: str) -> None:
    page.locator("#key").get_by_label("This server needs a key.").fill(key)
    page.get_by_role("button", name="Use it").click()


def test_the_page_asks_for_the_key_and_goes_on(
    browser: Browser, keyed: Server, tmp_path: Path
) -> None:
    permissions = ["clipboard-read", "clipboard-write"]
    with opened(browser, keyed.url, permissions=permissions) as page:
        form = page.locator("#key")
        expect(form).to_be_visible()
        expect(page.locator("#model-name")).to_have_text("Locked")
        choose(page, "#classify", TRUCK)
        expect(outcome(page, "classify")).to_contain_text("needs a key")
        give(page, "not-the-key-of-this-server")
        expect(page.locator("#key-says")).to_have_text("This key is wrong.")
        expect(form).to_be_visible()
        give(page, f" {KEY} ")
        expect(form).to_be_hidden()
        expect(page.locator("#model-name")).to_have_text("Fake encoder")
        expect(outcome(page, "classify")).to_contain_text("Most likely")
        # The command has the key by name only, and works.
        page.click("[data-request=classify] .copy")
        expect(page.locator("[data-request=classify] .copy")).to_have_text("Copied")
        command = str(page.evaluate("navigator.clipboard.readText()"))
        assert '-H "Authorization: Bearer $CLIP_API_KEY"' in command
        assert KEY not in page.content()
        (tmp_path / TRUCK.name).write_bytes(TRUCK.read_bytes())
        run = subprocess.run(
            ["sh", "-c", command],
            cwd=tmp_path,
            env={**os.environ, "CLIP_API_KEY": KEY},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert '"top_label"' in run.stdout
        # It is known until the tab is closed, and nowhere else.
        page.reload()
        expect(page.locator("#model-name")).to_have_text("Fake encoder")
        expect(form).to_be_hidden()
        assert page.evaluate("localStorage.length + document.cookie.length") == 0
        other = page.context.new_page()
        other.goto(keyed.url)
        expect(other.locator("#key")).to_be_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(
    "viewport", [{"width": 1280, "height": 900}, PHONE], ids=["desktop", "phone"]
)
def test_the_field_is_for_everybody(
    browser: Browser, keyed: Server, theme: str, viewport: dict[str, int]
) -> None:
    with opened(
        browser, keyed.url, color_scheme=theme, viewport=viewport, reduced_motion="reduce"
    ) as page:
        expect(page.locator("#key")).to_be_visible()
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        give(page, "not-the-key-of-this-server")
        expect(page.locator("#key-says")).to_have_text("This key is wrong.")
        if folder := os.environ.get("CLIP_TEST_SCREENSHOTS"):
            page.screenshot(path=f"{folder}/key-{theme}-{viewport['width']}.png")
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


def test_the_documentation_asks_with_a_key(browser: Browser, keyed: Server) -> None:
    """Swagger UI under its policy: the browser reports no violation, and a request succeeds."""
    with opened(browser, f"{keyed.url}/docs") as page:
        page.get_by_role("button", name="Authorize").first.click()
        page.get_by_label("auth-bearer-value").fill(KEY)
        page.locator(".auth-btn-wrapper .authorize").first.click()
        page.locator(".auth-btn-wrapper .btn-done").first.click()
        call = page.locator("#operations-health-HealthHealth")
        call.click()
        call.get_by_role("button", name="Try it out").click()
        call.get_by_role("button", name="Execute").click()
        expect(call.locator(".live-responses-table")).to_contain_text('"healthy"')
        if folder := os.environ.get("CLIP_TEST_SCREENSHOTS"):
            page.screenshot(path=f"{folder}/docs.png")
