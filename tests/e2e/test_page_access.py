"""The page's security policy, and screen readers, keyboards, themes and phones."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.support.browsers import (
    PANELS,
    TRUCK,
    UNTRUSTED_HOST,
    choose,
    fill,
    opened,
    outcome,
)
from tests.support.servers import Server

STALE = """(stale) =>
    document.querySelectorAll(".rows, [data-strip], .figures, .request, .dial *")
        .forEach((result) => result.toggleAttribute("data-stale", stale))"""
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
            _check(page, viewport["width"])
            # As it is while a slow server works on the next request.
            page.evaluate(STALE, True)
            _check(page, viewport["width"])
            page.evaluate(STALE, False)


def _check(page: Page, width: int) -> None:
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_documentation_is_accessible_too(browser: Browser, server: Server) -> None:
    with opened(browser, f"{server.url}/docs") as page:
        call = page.locator(".opblock-post").first
        call.click()
        call.get_by_role("button", name="Try it out").click()
        call.get_by_role("button", name="Execute").click()
        expect(call.locator(".live-responses-table")).to_contain_text("200")
        # A button that the pointer has left fades to its own colour.
        page.evaluate("""Promise.allSettled(document.getAnimations()
            .filter(each => each instanceof CSSTransition).map(each => each.finished))""")
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("location.hash").startswith("#/")  # an open call can be linked to


def test_one_live_region_announces_one_sentence(page: Page) -> None:
    regions = page.locator("[role=status], [role=alert], [aria-live], output")
    expect(regions).to_have_count(1)
    choose(page, "#classify", TRUCK)  # the hidden panel beside it asks too, and says nothing
    expect(regions).to_have_text(re.compile(r"^Most likely a delivery truck, \d+ %\.$"))
    page.click("#tab-compare")
    choose(page, "[data-finder=one]", TRUCK)
    choose(page, "[data-finder=other]", TRUCK)
    expect(regions).to_have_text("The same")


def test_on_plain_http_the_camera_says_why_it_is_absent(browser: Browser, server: Server) -> None:
    with opened(browser, server.url.replace("127.0.0.1", UNTRUSTED_HOST)) as page:
        assert page.evaluate("isSecureContext") is False
        expect(page.locator("#classify [data-action=camera]")).to_be_hidden()
        expect(page.locator("#classify .finder-hint")).to_have_text(
            "No camera: browsers offer it only over HTTPS, or on localhost."
        )
        choose(page, "#classify", TRUCK)
        expect(outcome(page, "classify")).to_contain_text("Most likely")
        page.click("[data-request=classify] .copy")
        expect(page.locator("[data-request=classify] .copy")).to_have_text("Copied")


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
    moved = "bar => getComputedStyle(bar).transitionProperty"
    with opened(browser, server.url, reduced_motion="reduce") as page:
        assert page.locator(".row-bar").first.evaluate(moved) == "none"
    with opened(browser, server.url) as page:
        assert page.locator(".row-bar").first.evaluate(moved) == "transform"


def test_tabs_are_moved_between_with_the_arrows(page: Page) -> None:
    page.focus("#tab-classify")
    for key, tab in (
        ("ArrowRight", "describe"),
        ("End", "find"),
        ("ArrowRight", "classify"),
        ("ArrowLeft", "find"),
        ("Home", "classify"),
    ):
        page.keyboard.press(key)
        expect(page.locator(f"#tab-{tab}")).to_be_focused()
        expect(page.locator(f"#{tab}")).to_be_visible()
        expect(page.locator("[role=tabpanel]:visible")).to_have_count(1)
    page.goto(page.url + "#compare")
    expect(page.locator("#compare")).to_be_visible()
