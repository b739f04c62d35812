"""What the page allows and whom it serves: policy, screen readers, keyboards, themes, phones."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.support.browsers import PANELS, fill, opened
from tests.support.servers import Server

PHONE = {"width": 390, "height": 844}


def test_everything_comes_from_this_server_under_a_strict_policy(
    browser: Browser, server: Server
) -> None:
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    answer = page.goto(server.url)
    assert answer is not None
    for panel in PANELS:
        fill(page, panel)
    hosts = {url.split("/")[2] for url in asked if not url.startswith("blob:")}
    assert hosts == {server.url.split("/")[2]}
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    # It is in force: neither a script nor a request elsewhere that sneaks in is obeyed.
    refused = page.evaluate(
        """async () => {
            const refused = [];
            try { document.body.innerHTML = "<p>"; } catch { refused.push("markup"); }
            try { await fetch("http://127.0.0.1:9/"); } catch { refused.push("request"); }
            document.body.setAttribute("style", "opacity: 0.5");
            if (getComputedStyle(document.body).opacity === "1") refused.push("style");
            return refused;
        }"""
    )
    assert refused == ["markup", "request", "style"]
    page.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(
    "viewport", [{"width": 1280, "height": 900}, PHONE], ids=["desktop", "phone"]
)
def test_accessible_and_never_wider_than_the_window(
    browser: Browser, server: Server, theme: str, viewport: dict[str, int]
) -> None:
    with opened(
        browser, server.url, color_scheme=theme, viewport=viewport, reduced_motion="reduce"
    ) as page:
        for panel in PANELS:
            fill(page, panel)
            found = Axe().run(page)
            assert found.violations_count == 0, found.generate_report()
            assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


def test_the_theme_follows_the_system_until_one_is_chosen(browser: Browser, server: Server) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    with opened(browser, server.url, color_scheme="light") as page:
        light = page.evaluate(background)
        page.emulate_media(color_scheme="dark")
        dark = page.evaluate(background)
        assert light != dark
        button = page.get_by_role("button", name="Dark colours")
        expect(button).to_have_attribute("aria-pressed", "true")
        button.click()
        assert page.evaluate(background) == light
        page.reload()
        assert page.evaluate(background) == light
        expect(button).to_have_attribute("aria-pressed", "false")


def test_those_who_want_no_motion_get_none(browser: Browser, server: Server) -> None:
    duration = "getComputedStyle(document.querySelector('.row-bar')).transitionProperty"
    with opened(browser, server.url, reduced_motion="reduce") as page:
        assert page.evaluate(duration) == "none"
    with opened(browser, server.url) as page:
        assert page.evaluate(duration) == "transform"


def test_tabs_are_moved_between_with_the_arrows(page: Page) -> None:
    page.focus("#tab-classify")
    for key, tab in (
        ("ArrowRight", "describe"),
        ("End", "watch"),
        ("ArrowRight", "classify"),
        ("ArrowLeft", "watch"),
        ("Home", "classify"),
    ):
        page.keyboard.press(key)
        expect(page.locator(f"#tab-{tab}")).to_be_focused()
        expect(page.locator(f"#{tab}")).to_be_visible()
        expect(page.locator("[role=tabpanel]:visible")).to_have_count(1)
    page.goto(page.url + "#compare")
    expect(page.locator("#compare")).to_be_visible()
