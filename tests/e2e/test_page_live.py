"""The page's tabs that watch a camera or a video, and search a folder by words."""

import csv
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.support.browsers import CAT, TAXI, TRUCK, choose, outcome
from tests.support.videos import Weather, frames, write_video


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds of a quiet scene, three with a truck, two without."""
    weather = Weather()
    seen = frames(
        lambda s: weather.frame(visitor="delivery_truck" if 6 <= s < 9 else None), seconds=11
    )
    return write_video(tmp_path_factory.mktemp("live") / "scene.webm", seen, "-b:v", "2M")


@pytest.fixture
def live(page: Page) -> Page:
    page.click("#tab-live")
    page.fill("#live-every", "0.25")
    return page


def saved(page: Page, panel: str) -> list[dict[str, str]]:
    with page.expect_download() as download:
        page.click(f"#{panel} [data-saving] button")
    with Path(download.value.path()).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.long
def test_a_video_is_scored_as_it_plays(live: Page, video: Path) -> None:
    choose(live, "#live", video)
    expect(outcome(live, "live")).to_contain_text("Learning what is usual")
    expect(outcome(live, "live")).to_contain_text("As usual: score")
    expect(outcome(live, "live")).to_contain_text("Unusual for ")
    expect(live.locator(".live-stage")).to_have_attribute("data-unusual", "")
    expect(live.locator("#announcer")).to_contain_text("Unusual for 2 frames")
    expect(outcome(live, "live")).to_contain_text("The video has ended.")
    rows = saved(live, "live")
    unusual = [float(row["seconds"]) for row in rows if row["unusual"] == "true"]
    assert 5.7 < min(unusual) < max(unusual) < 9.5
    assert len(rows) == int(live.inner_text("#live-frames"))
    points = live.get_attribute(".curve-line", "points")
    assert points is not None
    assert len(points.split(" ")) == len(rows)
    assert float(live.inner_text("#live-highest")) > 0.5


def test_a_camera_is_watched_until_it_is_stopped(live: Page) -> None:
    live.click("#live-camera")
    expect(live.locator("#live-stop")).to_be_visible()
    expect(live.locator("#live-frames")).not_to_have_text("0")
    live.fill("#live-threshold", "2")
    expect(outcome(live, "live")).to_contain_text("from 0 to 1")
    live.fill("#live-threshold", "1")
    live.click("#live-again")
    expect(outcome(live, "live")).to_contain_text("Learning what is usual")
    expect(outcome(live, "live")).to_contain_text("As usual: score")
    live.click("#live-stop")
    expect(outcome(live, "live")).to_contain_text("Stopped after")
    assert live.evaluate("document.querySelector('#live-picture').srcObject === null")


def test_what_is_no_video_is_said(live: Page, tmp_path: Path) -> None:
    junk = tmp_path / "junk.mp4"
    junk.write_text("no video")
    choose(live, "#live", junk)
    expect(outcome(live, "live")).to_have_text(
        "junk.mp4 is not a video that this browser can play."
    )
    # And the next one works.
    live.click("#live-camera")
    expect(outcome(live, "live")).to_contain_text("Learning what is usual")


def test_frames_that_come_too_fast_are_left_out_and_counted(live: Page) -> None:
    def slowly(route: object) -> None:
        live.wait_for_timeout(500)
        route.continue_()  # type: ignore[attr-defined]

    live.route("**/embed", slowly)
    live.click("#live-camera")
    expect(outcome(live, "live")).to_contain_text("of 10 frames")
    expect(live.locator("#live-frames")).not_to_have_text("0")
    assert int(live.inner_text("#live-skipped")) > 5


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "cars").mkdir(parents=True)
    shutil.copy(CAT, folder)
    shutil.copy(TRUCK, folder / "cars")
    shutil.copy(TAXI, folder / "cars")
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_a_folder_is_searched_by_words(page: Page, folder: Path) -> None:
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff junk")
    page.click("#tab-find")
    expect(page.locator("#find-outcome")).to_have_text("Choose a folder first.")
    page.set_input_files("#find-folder-input", folder)
    progress = page.locator("#find-progress")
    expect(progress).to_contain_text("3 photos can be searched.")
    expect(progress).to_contain_text("photos/broken.jpg was left out: ")
    expect(page.locator("#find-outcome")).to_have_text("Now say what to look for.")
    page.fill("#find-words", "a cat")
    expect(page.locator("#find-outcome")).to_contain_text("Nearest: photos/cat.png, cosine 0.")
    names = page.locator(".found-name").all_inner_texts()
    assert names[0] == "photos/cat.png"
    assert len(names) == 3
    page.fill("#find-words", "a taxi")
    expect(page.locator("#find-outcome")).to_contain_text("Nearest: photos/cars/taxi.png")
    rows = saved(page, "find")
    assert rows[0]["path"] == "photos/cars/taxi.png"
    similarities = [float(row["similarity"]) for row in rows]
    assert similarities == sorted(similarities, reverse=True)
    page.click("#find-clear")
    expect(page.locator("#find-outcome")).to_have_text("Choose a folder first.")
    expect(page.locator(".found")).to_have_count(0)


def test_photos_are_embedded_once_and_search_asks_for_words_only(page: Page, folder: Path) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.rpartition("/")[2]))
    page.click("#tab-find")
    page.set_input_files("#find-photos-input", [CAT, TAXI])
    expect(page.locator("#find-progress")).to_contain_text("2 photos can be searched.")
    for words in ("a cat", "a taxi"):
        page.fill("#find-words", words)
        expect(page.locator("#find-outcome")).to_contain_text(f"Nearest: {words[2:]}.png")
    assert asked.count("embed") == 2
    assert asked.count("text") == 2
    page.set_input_files("#find-photos-input", [TRUCK])
    expect(page.locator("#find-progress")).to_contain_text("3 photos can be searched.")
    assert asked.count("embed") == 3


def test_embedding_can_be_stopped(page: Page) -> None:
    page.click("#tab-find")
    page.route("**/embed", lambda route: None)  # never a response
    page.set_input_files("#find-photos-input", [CAT, TAXI])
    expect(page.locator("#find-progress")).to_have_text("Embedding: 0 of 2.")
    page.click("#find-stop")
    expect(page.locator("#find-progress")).to_have_text("0 photos can be searched.")


def test_a_folder_without_pictures_says_so(page: Page, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    page.click("#tab-find")
    page.set_input_files("#find-folder-input", tmp_path)
    expect(page.locator("#find-progress")).to_have_text("There are no pictures in it.")
