"""Every snippet of the documentation, run against the real server."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.footage import drawing, scene, sighting
from tests.support.photos import photos
from tests.support.servers import Server
from tests.support.snippets import Reader, snippets_of

ROOT = Path(__file__).parents[2]
PAGES = [
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "recipes").glob("*.md")),
    ROOT / "clients" / "python" / "README.md",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that the pages speak of."""
    for name, thing in (("truck", "delivery_truck"), ("cat", "cat")):
        drawing(thing).save(tmp_path / f"{name}.png")
    sighting("delivery_truck", ground="#c9cdd1").save(tmp_path / "photo.jpg", quality=95)
    crops, frames = tmp_path / "crops", tmp_path / "frames"
    crops.mkdir()
    frames.mkdir()
    for file, thing, ground, size, light in (
        ("gate_0800_a", "person_walking", "#d9d4c7", 190, 1.0),
        ("gate_0802_a", "person_walking", "#d9d4c7", 200, 0.97),
        ("gate_0805_b", "police_officer", "#d9d4c7", 190, 1.0),
        ("yard_0810_a", "person_walking", "#b8c4b0", 170, 0.75),
        ("yard_0815_b", "police_officer", "#b8c4b0", 170, 0.75),
        ("yard_0820_c", "taxi", "#b8c4b0", 180, 0.8),
        ("door_0830_d", "dog", "#9aa5ad", 200, 0.9),
    ):
        sighting(thing, ground=ground, size=size, light=light).save(crops / f"{file}.png")
    sighting("person_walking", ground="#9aa5ad", size=200, mirrored=True).save(
        tmp_path / "query.png"
    )
    for place, (light, sway) in enumerate(
        [(1.0, 0), (0.95, 2), (0.9, -2), (0.85, 1), (0.8, 3), (0.75, 0), (1.05, -1)]
    ):
        scene(light=light, sway=sway).save(frames / f"{place}.png")
    scene(light=0.88, sway=1).save(tmp_path / "new_quiet.png")
    scene(light=0.88, sway=1, visitor="delivery_truck").save(tmp_path / "new_truck.png")
    return tmp_path


def store_old_embeddings(folder: Path, checkpoint: Path) -> None:
    """Embeddings by the old server's PyTorch backend; one of the photos lies on its side."""
    import torch
    from transformers import CLIPImageProcessorPil, CLIPModel

    model = CLIPModel.from_pretrained(checkpoint).eval()
    prepare: Any = CLIPImageProcessorPil()
    stored = {}
    for name, photo in photos().items():
        exif = Image.Exif()
        if name == "china":
            exif[0x0112] = 6
        photo.save(folder / f"{name}.png", exif=exif)
        pixels = prepare(images=photo, return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            features = model.get_image_features(pixel_values=pixels)
        vector = np.asarray(getattr(features, "pooler_output", features)[0], np.float64)
        stored[f"{name}.png"] = (vector / np.linalg.norm(vector)).tolist()
    (folder / "stored.json").write_text(json.dumps(stored))


def found_again(variables: dict[str, Any]) -> None:
    files = {sighting.payload["file"] for sighting in variables["found"]}
    assert files == {"gate_0800_a.png", "gate_0802_a.png", "yard_0810_a.png"}
    assert variables["indexed"] == 7


def noticed(variables: dict[str, Any]) -> None:
    assert variables["result"].is_anomaly
    assert variables["usual"].count == 7
    assert 0 < variables["threshold"] < 0.1
    assert variables["drift"] < variables["kept"]["threshold"]


def still_good(variables: dict[str, Any]) -> None:
    cosines = variables["cosines"]
    assert min(cosine for name, cosine in cosines.items() if name != "china.png") > 0.999
    assert cosines["china.png"] < 0.999


EXPECTED: dict[str, Callable[[dict[str, Any]], None]] = {
    "re-identification": found_again,
    "anomaly-baselines": noticed,
    "moving-from-fastapi": still_good,
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_snippets(
    page: Path,
    server: Server,
    folder: Path,
    hugging_face_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    if page.stem == "moving-from-fastapi":
        store_old_embeddings(folder, hugging_face_directory)
    with Reader(folder, hugging_face_directory, server).reading() as reader:
        for snippet in snippets_of(page):
            assert snippet.language in {"sh", "python", "json"}, f"{page.name}:{snippet.line}"
            if snippet.excused:
                continue
            reader.run(page, snippet)
        if page.stem in EXPECTED:
            EXPECTED[page.stem](reader.variables)


def test_pages_link_to_what_exists() -> None:
    for page in (*PAGES, ROOT / "README.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_cell_of_the_comparison_cites_a_source_that_is_listed() -> None:
    sourced = (ROOT / "docs" / "comparison.md").read_text()
    cited = {int(n) for group in re.findall(r"\[([\d, ]+)\]", sourced) for n in group.split(",")}
    assert cited == {int(number) for number in re.findall(r"^(\d+)\. ", sourced, re.MULTILINE)}
    for line in sourced.splitlines():
        for cell in line.split("|")[3:-1] if line.startswith("| ") else ():
            bare = cell.strip() in {"not documented", "not looked up"} or cell.strip().startswith(
                ("[", "---")
            )
            assert bare or re.search(r"\[[\d, ]+\]", cell), line


def test_the_readme_s_example(server: Server, hugging_face_directory: Path) -> None:
    [example] = snippets_of(ROOT / "README.md")
    with Reader(ROOT, hugging_face_directory, server).reading() as reader:
        reader.run(ROOT / "README.md", example)
        assert json.loads(reader.printed)["top_label"] == "a delivery truck"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


def test_every_page_is_found_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for page in PAGES:
        assert f"({page.relative_to(ROOT)})" in readme
