"""What becomes of a result on the page: dimmed, taken away, kept over a reload, saved as a file."""

import base64
import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.support.browsers import (
    CAT,
    REMEMBERED,
    TAXI,
    TRUCK,
    choose,
    fill,
    opened,
    outcome,
)
from tests.support.servers import Server

CODE = re.compile(r"[a-z]+_[a-z]+|\bimage_[ab]\b|CLIP_")
"""What stands in a program and not in a sentence."""


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A file that begins like a PNG and is none."""
    file = tmp_path / "broken.png"
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    return file


def saved(page: Page, place: str, button: str) -> tuple[str, str]:
    """Press a button that saves; returns the file's name and text."""
    with page.expect_download() as download:
        page.locator(place).get_by_role("button", name=button, exact=True).click()
    return download.value.suggested_filename, Path(download.value.path()).read_text()


def test_a_refused_photo_leaves_nothing_of_the_one_before(page: Page, broken: Path) -> None:
    for panel in ("classify", "describe"):
        fill(page, panel)
    fill(page, "compare")
    page.click("#tab-classify")
    choose(page, "#classify", broken)
    for panel in ("classify", "describe"):
        page.click(f"#tab-{panel}")
        expect(outcome(page, panel)).to_have_attribute("data-state", "problem")
        assert not any(page.locator(f"#{panel} .value").all_inner_texts())
        expect(page.locator(f"#{panel} [data-best]")).to_have_count(0)
        expect(page.locator(f"#{panel} .request")).to_be_hidden()
        expect(page.locator(f"#{panel} .saving")).to_be_hidden()
        assert not CODE.search(outcome(page, panel).inner_text())
    page.click("#tab-compare")
    choose(page, "[data-finder=other]", broken)
    said = page.locator("#compare-outcome")
    expect(said).to_have_attribute("data-state", "problem")
    assert said.get_attribute("data-same") is None
    expect(page.locator("#dial-number")).to_have_text("–")
    expect(page.locator("#dial-value")).to_be_hidden()
    expect(page.locator("[data-request=compare] .request")).to_be_hidden()


def test_an_old_result_is_dimmed_while_a_new_one_is_awaited(page: Page) -> None:
    fill(page, "classify")
    stale = page.locator("#classify .rows[data-stale], #classify .request[data-stale]")
    expect(stale).to_have_count(0)
    held: list[Route] = []
    page.route("**/classify", lambda route: held.append(route), times=1)
    page.locator("#labels input").first.fill("a lorry")
    expect(stale).to_have_count(2)
    while not held:
        page.wait_for_timeout(20)
    opacity = "e => getComputedStyle(e).opacity"
    assert float(page.locator("#labels .row-bar").first.evaluate(opacity)) < 1
    held[0].continue_()
    expect(stale).to_have_count(0)
    expect(outcome(page, "classify")).to_contain_text("Most likely")


def test_a_bad_frame_is_named_and_left_out(page: Page, broken: Path) -> None:
    page.click("#tab-watch")
    choose(page, "[data-strip=usual]", TRUCK, broken, TAXI)
    expect(page.locator("#usual-outcome")).to_contain_text("broken.png was left out: ")
    expect(page.locator("#figure-count")).to_have_text("2")
    expect(page.locator("[data-strip=usual] [data-left-out]")).to_have_count(1)
    choose(page, "[data-strip=now]", broken, CAT)
    expect(page.locator("#now-outcome")).to_contain_text("of 1 unusual. broken.png was left out: ")
    verdicts = page.locator("[data-strip=now] .score-verdict")
    expect(verdicts.nth(0)).to_contain_text("left out")
    expect(verdicts.nth(1)).to_contain_text("usual")
    assert not CODE.search(page.locator("#now-outcome").inner_text())
    page.get_by_role("button", name="Remove all usual frames").click()
    choose(page, "[data-strip=usual]", broken)
    expect(page.locator("#usual-outcome")).to_contain_text("broken.png cannot be used: ")
    expect(page.locator("#figures")).to_be_hidden()
    expect(page.locator("[data-strip=now] .score:visible")).to_have_count(0)


def test_a_photo_is_cleared(page: Page) -> None:
    fill(page, "classify")
    page.locator("#classify").get_by_role("button", name="Clear").click()
    expect(outcome(page, "classify")).to_have_text("A photo is needed.")
    expect(page.locator("#classify .finder-caption")).to_have_text("")
    expect(page.locator("#classify .request")).to_be_hidden()
    assert not any(page.locator("#labels .value").all_inner_texts())
    page.reload()
    expect(outcome(page, "classify")).to_have_text("A photo is needed.")


def test_everything_survives_a_reload(page: Page) -> None:
    page.locator("#labels input").nth(1).fill("a snowman")
    for panel in REMEMBERED:
        fill(page, panel)
    page.click("#tab-compare")
    page.fill("#same-threshold", "0.99")
    expect(page.locator("[data-stale]")).to_have_count(0)
    sentences = page.locator(".outcome, .verdict").all_text_contents()
    numbers = page.locator(".value, .figures dd, #dial-number").all_text_contents()
    page.wait_for_timeout(500)  # it writes what it remembers a moment after the last change
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.method))
    page.reload()
    expect(page.locator("#figure-count")).to_have_text("6")
    expect(page.locator("#model-name")).to_have_text("Demo model")
    assert page.locator(".outcome, .verdict").all_text_contents() == sentences
    assert page.locator(".value, .figures dd, #dial-number").all_text_contents() == numbers
    assert "POST" not in sent
    expect(page.locator("#same-from")).to_have_text("0.99")
    # And it goes on from there.
    page.click("#tab-classify")
    page.locator("#labels input").first.fill("a lorry")
    expect(outcome(page, "classify")).to_contain_text("Most likely")
    assert page.locator("#labels input").nth(1).input_value() == "a snowman"


def test_another_tab_knows_nothing_of_it(browser: Browser, server: Server) -> None:
    with opened(browser, server.url) as page:
        fill(page, "classify")
        page.wait_for_timeout(500)
        other = page.context.new_page()
        other.goto(server.url)
        expect(outcome(other, "classify")).to_have_text("A photo is needed.")


def test_scores_are_saved_as_csv_and_json(page: Page) -> None:
    nasty = 'a "delivery", truck'
    page.locator("#labels input").nth(1).fill(nasty)
    fill(page, "classify")
    name, text = saved(page, "#classify", "Save as CSV")
    assert name == "classify.csv"
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["label"] for row in rows][:2] == ["a delivery truck", nasty]
    assert sum(float(row["score"]) for row in rows) == pytest.approx(1)
    assert {row["photo"] for row in rows} == {TRUCK.name}
    name, text = saved(page, "#classify", "Save as JSON")
    kept = json.loads(text)
    assert name == "classify.json"
    assert kept["scores"] == {row["label"]: float(row["score"]) for row in rows}
    assert len(kept["model_fingerprint"]) > 8
    fill(page, "compare")
    _, text = saved(page, "#compare", "Save as CSV")
    [row] = csv.DictReader(io.StringIO(text))
    assert (row["photo_a"], row["photo_b"], row["same"]) == (TRUCK.name, TAXI.name, "false")


def test_a_saved_baseline_is_what_anomaly_score_takes(page: Page, server: Server) -> None:
    fill(page, "watch")
    name, text = saved(page, "[data-saving=baseline]", "Save the baseline")
    assert name == "baseline.json"
    baseline: list[float] = json.loads(text)
    image = base64.b64encode(TRUCK.read_bytes()).decode()
    body: dict[str, Any] = {"image": image, "baseline_embedding": baseline, "threshold": 0.1}
    scored = httpx.post(f"{server.url}/anomaly-score", json=body)
    assert scored.status_code == 200
    assert scored.json()["is_anomaly"]
    _, text = saved(page, "[data-saving=scores]", "Save as CSV")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["frame"] for row in rows] == ["now-quiet.png", "now-truck.png"]
    assert [row["unusual"] for row in rows] == ["false", "true"]
