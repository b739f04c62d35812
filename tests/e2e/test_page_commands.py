"""The curl commands that the page shows, copied and run."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.support.browsers import CAT, TAXI, TRUCK, choose, fill, outcome


def copied(page: Page, place: str) -> str:
    page.click(f"[data-request={place}] .copy")
    expect(page.locator(f"[data-request={place}] .copy")).to_have_text("Copied")
    return str(page.evaluate("navigator.clipboard.readText()"))


def run(command: str, folder: Path) -> dict[str, Any]:
    result = subprocess.run(
        ["sh", "-c", command], cwd=folder, capture_output=True, text=True, check=True, timeout=60
    )
    response: dict[str, Any] = json.loads(result.stdout)
    return response


@pytest.mark.parametrize("name", ["truck.png", 'it\'s a $5 "truck".png'])
def test_the_curl_command_gets_the_same_answer(page: Page, tmp_path: Path, name: str) -> None:
    nasty = 'it\'s "a" $HOME `truck` \\ $(id) \\n'
    file = tmp_path / name
    file.write_bytes(TRUCK.read_bytes())
    page.locator("#labels input").nth(1).fill(nasty)
    choose(page, "#classify", file)
    expect(outcome(page, "classify")).to_contain_text("Most likely")
    response = run(copied(page, "classify"), tmp_path)
    assert list(response["scores"])[:2] == ["a delivery truck", nasty]
    expect(outcome(page, "classify")).to_contain_text(response["top_label"])


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
    shown = float(page.inner_text("[data-strip=now] .value"))
    assert scored == pytest.approx(shown, abs=6e-4)
    assert "765 more" in page.inner_text("[data-request=anomaly] code")
