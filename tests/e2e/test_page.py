"""The page at ``/`` in a real browser, against the real server."""

import base64
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect

from tests.e2e.browsers import chromium, opened
from tests.e2e.servers import SERVE, Server, running, wait_for

HELD_OUT = Path("adapters/demo_model/held_out").absolute()
TRUCK, TAXI, CAT = (HELD_OUT / f"{name}.png" for name in ("delivery_truck", "taxi", "cat"))
PHONE = {"width": 390, "height": 844}
expect.set_options(timeout=20_000)
PANELS = ("classify", "describe", "compare", "watch")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("server") / "log"
    with running(SERVE, log, CLIP_MODEL_PATH="builtin:demo", CLIP_ENCODER="openvino") as server:
        wait_for(server, "/health/ready")
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    with opened(browser, server.url, permissions=["clipboard-read", "clipboard-write"]) as page:
        yield page


def choose(page: Page, panel: str, *files: Path) -> None:
    page.set_input_files(f"{panel} input[type=file]", list(files))


def labels(page: Page) -> list[str]:
    return [row.input_value() for row in page.locator("#labels input").all()]


def outcome(page: Page, panel: str) -> Any:
    return page.locator(f"#{panel} .outcome")


def transfer(page: Page, file: Path) -> Any:
    """What a browser hands over when a file is dropped or pasted."""
    return page.evaluate_handle(
        """([name, text]) => {
            const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, { type: "image/png" }));
            return transfer;
        }""",
        [file.name, base64.b64encode(file.read_bytes()).decode()],
    )


def fill(page: Page, panel: str) -> None:
    """Bring a panel to its fullest."""
    page.click(f"#tab-{panel}")
    if panel in {"classify", "describe"}:
        choose(page, f"#{panel}", TRUCK)
        expect(outcome(page, panel)).to_contain_text("truck")
    elif panel == "compare":
        choose(page, "[data-finder=one]", TRUCK)
        choose(page, "[data-finder=other]", TAXI)
        expect(page.locator("#compare-outcome")).to_have_text("Not the same")
    else:
        page.click("#watch-samples")
        expect(page.locator("#now-outcome")).to_contain_text("of 2 unusual")


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


def test_labels_update_as_one_types(page: Page) -> None:
    choose(page, "#classify", TRUCK)
    expect(outcome(page, "classify")).to_contain_text("Most likely a delivery truck")
    best = page.locator("#labels [data-best]")
    expect(best.locator("input")).to_have_value("a delivery truck")
    width = "e => e.querySelector('.row-bar').getBoundingClientRect().width / e.clientWidth"
    page.wait_for_function(f"e => ({width})(e) > 0.5", arg=best.element_handle())
    first = page.locator("#labels input").first
    first.fill("a banana")
    expect(outcome(page, "classify")).not_to_contain_text("delivery truck")
    expect(outcome(page, "classify")).to_contain_text("Most likely")
    scores = page.locator("#labels output").all_inner_texts()
    assert sum(float(score.removesuffix("%")) for score in scores) == pytest.approx(100, abs=1)


def test_prompts_for_cameras_are_asked_for(page: Page) -> None:
    choose(page, "#classify", TRUCK)
    with page.expect_request("**/classify") as sent:
        page.select_option("#prompts", "doorbell")
    body = sent.value.post_data_json or {}
    assert (body["use_ensemble"], body["camera_type"]) == (True, "doorbell")
    expect(outcome(page, "classify")).to_contain_text("a delivery truck")


def test_rows_are_edited_with_the_keyboard_alone(page: Page) -> None:
    page.locator("#labels input").last.focus()
    page.keyboard.press("Enter")
    page.keyboard.type("a bicycle")
    assert labels(page)[-1] == "a bicycle"
    page.keyboard.press("Enter")
    page.keyboard.press("Backspace")
    assert labels(page)[-1] == "a bicycle"
    assert page.evaluate("document.activeElement.value") == "a bicycle"


def test_blank_and_repeated_labels_are_not_asked_for(page: Page) -> None:
    page.locator("#labels input").nth(1).fill("a delivery truck ")
    page.locator("#labels input").nth(2).fill("  ")
    with page.expect_request("**/classify") as sent:
        choose(page, "#classify", TRUCK)
    assert (sent.value.post_data_json or {})["labels"] == ["a delivery truck", "an empty driveway"]
    expect(page.locator("#labels [data-repeated]")).to_have_count(1)


def test_a_superseded_request_is_aborted_and_never_shown(page: Page) -> None:
    held: list[Route] = []
    aborted: list[str] = []
    page.on("requestfailed", lambda request: aborted.append(request.url))
    page.route("**/classify", lambda route: held.append(route), times=1)
    choose(page, "#classify", TRUCK)
    expect(outcome(page, "classify")).to_have_text("Asking…")
    while not held:
        page.wait_for_timeout(20)
    page.locator("#labels input").first.fill("a lorry")
    expect(outcome(page, "classify")).to_contain_text("Most likely")
    assert [url.rsplit("/", 1)[1] for url in aborted] == ["classify"]


def test_a_photo_is_dropped_anywhere(page: Page) -> None:
    page.dispatch_event("h1", "drop", {"dataTransfer": transfer(page, TRUCK)})
    expect(outcome(page, "classify")).to_contain_text("a delivery truck")
    expect(page.locator("#classify .finder-caption")).to_contain_text(
        "delivery_truck.png · 144 × 144"
    )
    page.click("#tab-describe")  # the same photo is asked about
    expect(outcome(page, "describe")).to_contain_text("Fits best: a delivery truck")


def test_a_photo_is_pasted(page: Page) -> None:
    page.click("#tab-compare")
    for file in (TAXI, TAXI):
        page.evaluate(
            "clipboardData => document.body.dispatchEvent("
            "new ClipboardEvent('paste', { clipboardData, bubbles: true }))",
            transfer(page, file),
        )
    expect(page.locator("#compare-outcome")).to_have_text("The same")


def test_a_photo_is_taken_by_the_camera(page: Page) -> None:
    page.click("#classify [data-action=camera]")
    page.click("#camera-take")
    expect(page.locator("#camera")).to_be_hidden()
    expect(page.locator("#classify .finder-caption")).to_contain_text("camera-")
    expect(outcome(page, "classify")).to_contain_text("Most likely")
    page.click("#classify [data-action=camera]")
    page.keyboard.press("Escape")
    expect(page.locator("#camera")).to_be_hidden()


def test_two_sightings_are_compared(page: Page) -> None:
    fill(page, "compare")
    number = float(page.inner_text("#dial-number").replace("−", "-"))
    assert -1 <= number < 0.85
    page.fill("#same-threshold", "0")
    expect(page.locator("#compare-outcome")).to_have_text(
        "The same" if number >= 0 else "Not the same"
    )
    choose(page, "[data-finder=other]", TRUCK)
    expect(page.locator("#dial-number")).to_have_text("1.000")


def test_new_frames_are_scored_against_a_baseline(page: Page) -> None:
    fill(page, "watch")
    expect(page.locator("#figure-count")).to_have_text("6")
    suggested = float(page.inner_text("#figure-threshold"))
    assert float(page.input_value("#anomaly-threshold")) == suggested
    frames = page.locator("[data-strip=now] .frame")
    expect(frames.nth(0).locator(".score-verdict")).to_contain_text("as usual")
    expect(frames.nth(1).locator(".score-verdict")).to_contain_text("unusual")
    page.fill("#anomaly-threshold", "1")
    expect(page.locator("#now-outcome")).to_have_text("0 of 2 unusual.")
    page.fill("#anomaly-threshold", "2")
    expect(page.locator("#now-outcome")).to_contain_text("from 0 to 1")
    page.get_by_role("button", name="Remove usual-1.png").click()
    page.get_by_role("button", name="Remove usual-2.png").click()
    expect(page.locator("#figure-count")).to_have_text("4")
    expect(page.locator("#usual-outcome")).to_contain_text("With more frames")


def test_what_the_server_refuses_is_said_in_its_words(page: Page, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n")
    choose(page, "#classify", broken)
    expect(outcome(page, "classify")).to_have_attribute("data-state", "problem")
    expect(outcome(page, "classify")).to_contain_text(
        re.compile(r"image.*\((damaged|not_an)_image\)")
    )


def copied(page: Page, place: str) -> str:
    page.click(f"[data-request={place}] .copy")
    expect(page.locator(f"[data-request={place}] .copy")).to_have_text("Copied")
    return str(page.evaluate("navigator.clipboard.readText()"))


def run(command: str, folder: Path) -> dict[str, Any]:
    result = subprocess.run(
        ["sh", "-c", command], cwd=folder, capture_output=True, text=True, check=True, timeout=60
    )
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


@pytest.mark.parametrize("name", ["truck.png", 'it\'s a $5 "truck".png'])
def test_the_curl_command_gets_the_same_answer(page: Page, tmp_path: Path, name: str) -> None:
    nasty = 'it\'s "a" $HOME `truck` \\ $(id) \\n'
    file = tmp_path / name
    file.write_bytes(TRUCK.read_bytes())
    page.locator("#labels input").nth(1).fill(nasty)
    choose(page, "#classify", file)
    expect(outcome(page, "classify")).to_contain_text("Most likely")
    answer = run(copied(page, "classify"), tmp_path)
    assert list(answer["scores"])[:2] == ["a delivery truck", nasty]
    expect(outcome(page, "classify")).to_contain_text(answer["top_label"])


def test_the_other_curl_commands_work_too(page: Page, tmp_path: Path) -> None:
    for file in (TRUCK, TAXI, CAT):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    fill(page, "describe")
    assert len(run(copied(page, "describe"), tmp_path)["similarities"]) == 3
    fill(page, "compare")
    shown = float(page.inner_text("#dial-number").replace("−", "-"))
    assert run(copied(page, "compare"), tmp_path)["similarity"] == pytest.approx(shown, abs=6e-4)
    page.click("#tab-watch")
    choose(page, "[data-strip=usual]", TRUCK, TAXI)
    choose(page, "[data-strip=now]", CAT)
    expect(page.locator("#now-outcome")).to_contain_text("of 1 unusual")
    assert run(copied(page, "baseline"), tmp_path)["count"] == 2
    scored = run(copied(page, "anomaly"), tmp_path)["anomaly_score"]
    shown = float(page.inner_text("[data-strip=now] output"))
    assert scored == pytest.approx(shown, abs=6e-4)
    assert "765 more" in page.inner_text("[data-request=anomaly] code")


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


def test_which_model_it_is(page: Page) -> None:
    expect(page.locator("#model")).to_contain_text("builtin:demo")
    expect(page.locator("#model")).to_have_attribute("data-state", "healthy")
    expect(page.locator("#banner")).to_contain_text("This is the demo model.")


def test_a_real_checkpoint_has_no_banner(
    browser: Browser, hugging_face_directory: Path, tmp_path: Path
) -> None:
    checkpoint = {"CLIP_MODEL_PATH": str(hugging_face_directory), "CLIP_CACHE_DIR": str(tmp_path)}
    with running(SERVE, tmp_path / "log", **checkpoint) as server:
        wait_for(server, "/health/ready")
        with opened(browser, server.url) as page:
            expect(page.locator("#model")).to_have_attribute("data-state", "healthy")
            expect(page.locator("#banner")).to_be_hidden()


def test_a_degraded_server_says_why(browser: Browser, tmp_path: Path) -> None:
    missing = str(tmp_path / "nothing-here")
    with (
        running(SERVE, tmp_path / "log", CLIP_MODEL_PATH=missing) as server,
        opened(browser, server.url) as page,
    ):
        expect(page.locator("#banner")).to_contain_text(missing)
        expect(page.locator("#model")).to_have_attribute("data-state", "degraded")
        choose(page, "#classify", TRUCK)
        expect(outcome(page, "classify")).to_contain_text("model_not_loaded")
        server.stop()
        expect(page.locator("#model")).to_have_attribute("data-state", "unreachable")
        expect(page.locator("#banner")).to_contain_text("does not answer")
