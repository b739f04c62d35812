"""The panels of the page at ``/`` in a real browser, against the real server."""

import base64
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.support.browsers import TAXI, TRUCK, choose, fill, opened, outcome
from tests.support.servers import SERVE, running, wait_for


def labels(page: Page) -> list[str]:
    return [row.input_value() for row in page.locator("#labels input").all()]


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
    scores = page.locator("#labels .value").all_inner_texts()
    assert sum(float(score.removesuffix("%")) for score in scores) == pytest.approx(100, abs=1)


def test_prompts_for_cameras_are_asked_for(page: Page) -> None:
    choose(page, "#classify", TRUCK)
    expect(outcome(page, "classify")).to_contain_text("Most likely")
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
    expect(outcome(page, "classify")).to_contain_text("A photo is needed.")  # it listens now
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
    expect(page.locator("#usual-outcome")).to_contain_text("With five frames or more")


def test_which_model_it_is(page: Page) -> None:
    expect(page.locator("#model-name")).to_have_text("Demo model")
    expect(page.locator("#model")).to_have_attribute("data-state", "healthy")
    expect(page.locator("#banner-title")).to_have_text("The demo model knows drawings, not photos.")


def test_a_real_checkpoint_has_no_banner(
    browser: Browser, hugging_face_directory: Path, tmp_path: Path
) -> None:
    checkpoint = {"CLIP_MODEL_PATH": str(hugging_face_directory), "CLIP_CACHE_DIR": str(tmp_path)}
    with running(SERVE, tmp_path / "log", **checkpoint) as server:
        wait_for(server, "/health/ready")
        with opened(browser, server.url) as page:
            expect(page.locator("#model")).to_have_attribute("data-state", "healthy")
            expect(page.locator("#banner")).to_be_hidden()


def test_a_sleeping_model_is_told(browser: Browser, tmp_path: Path) -> None:
    fake = {"CLIP_ENCODER": "fake", "CLIP_IDLE_UNLOAD_SECONDS": "0.2"}
    with running(SERVE, tmp_path / "log", **fake) as server:
        while not httpx.get(server.url + "/health").json()["unloaded_while_idle"]:
            assert server.process.poll() is None
        with opened(browser, server.url) as page:
            expect(page.locator("#model")).to_contain_text("unloaded; the next request loads it")
            expect(page.locator("#banner")).to_contain_text("No real model is loaded here.")


def test_a_degraded_server_says_why(browser: Browser, tmp_path: Path) -> None:
    missing = str(tmp_path / "nothing-here")
    with (
        running(SERVE, tmp_path / "log", CLIP_MODEL_PATH=missing) as server,
        opened(browser, server.url) as page,
    ):
        while missing not in httpx.get(server.url + "/health").json()["reason"]:
            assert server.process.poll() is None  # it looks for another encoder first
        expect(page.locator("#banner")).to_contain_text(missing)
        expect(page.locator("#model")).to_have_attribute("data-state", "degraded")
        choose(page, "#classify", TRUCK)
        expect(outcome(page, "classify")).to_have_text("No model is loaded.")
        server.stop()
        expect(page.locator("#model")).to_have_attribute("data-state", "unreachable")
        expect(page.locator("#banner")).to_contain_text("does not respond")
