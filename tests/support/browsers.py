"""A real browser for the tests of the page, and what visitors do there."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

_DRAWINGS = Path(__file__).parents[2] / "adapters" / "models" / "demo" / "held_out"
TRUCK, TAXI, CAT = (_DRAWINGS / f"{name}.png" for name in ("delivery_truck", "taxi", "cat"))
REMEMBERED = ("classify", "describe", "compare", "watch")
PANELS = (*REMEMBERED, "live", "find")
PATIENCE_MS = 20_000
UNTRUSTED_HOST = "cameras.test"

expect.set_options(timeout=PATIENCE_MS)

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # A name that is not localhost, whose pages browsers do not trust without HTTPS.
    f"--host-resolver-rules=MAP {UNTRUSTED_HOST} 127.0.0.1",
    # A camera that shows a moving test picture, and permission to use it.
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """The Chromium that is installed; skips the test, saying so, where there is none."""
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(_NAMES)} is on PATH")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, url: str, **context: Any) -> Iterator[Page]:
    """A page in a fresh profile; fails afterwards if the browser logged a complaint."""
    profile = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
    page = profile.new_page()
    page.set_default_timeout(PATIENCE_MS)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    page.goto(url)
    try:
        yield page
    finally:
        profile.close()
    # The browser itself reports every response of 400 and more; those are not the page's fault.
    assert [line for line in complaints if "Failed to load resource" not in line] == []


def choose(page: Page, panel: str, *files: Path) -> None:
    """Choose files in a part of the page."""
    page.set_input_files(f"{panel} input[type=file]", list(files))


def outcome(page: Page, panel: str) -> Locator:
    """Where a panel shows the outcome of its request."""
    return page.locator(f"#{panel} .outcome")


def fill(page: Page, panel: str) -> None:
    """Fill a panel completely."""
    page.click(f"#tab-{panel}")
    if panel in {"classify", "describe"}:
        choose(page, f"#{panel}", TRUCK)
        expect(outcome(page, panel)).to_contain_text("truck")
    elif panel == "compare":
        choose(page, "[data-finder=one]", TRUCK)
        choose(page, "[data-finder=other]", TAXI)
        expect(page.locator("#compare-outcome")).to_have_text("Not the same")
    elif panel == "watch":
        page.click("#watch-samples")
        expect(page.locator("#now-outcome")).to_contain_text("of 2 unusual")
    elif panel == "live":
        page.fill("#live-every", "0.1")
        page.click("#live-camera")
        expect(page.locator("#live-frames")).not_to_have_text("0")
        page.click("#live-stop")
        expect(outcome(page, panel)).to_contain_text("Stopped after")
    else:
        page.click("#find-samples")
        expect(page.locator("#find-progress")).to_contain_text("6 photos can be searched")
        page.fill("#find-words", "a dog")
        expect(page.locator("#find-outcome")).to_contain_text("Nearest: dog.png")
    expect(page.locator("[data-stale]")).to_have_count(0)
