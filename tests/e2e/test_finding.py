"""``clip-server search`` and ``calibrate`` as a person runs them, with the demo model."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

COMMAND = [sys.executable, "-m", "entrypoints.cli"]
DRAWINGS = Path(__file__).parents[2] / "adapters" / "models" / "demo" / "held_out"


def run(*arguments: str, encoding: str = "utf-8") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*COMMAND, *arguments],
        env={**os.environ, "CLIP_MODEL_PATH": "builtin:demo", "PYTHONIOENCODING": encoding},
        encoding=encoding,
        capture_output=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("index") / "drawings.npz"
    done = run("embed", str(DRAWINGS), "--output", str(path))
    assert done.returncode == 0, done.stderr
    return path


def test_words_find_drawings_and_a_page_shows_them(index: Path, tmp_path: Path) -> None:
    page = tmp_path / "found.html"
    done = run("search", str(index), "a dog", "--top", "3", "--html", str(page))
    assert done.returncode == 0, done.stderr
    names = [Path(line.split(maxsplit=1)[1]).name for line in done.stdout.splitlines()]
    assert len(names) == 3
    assert "dog.png" in names
    assert "only the order matters" in done.stderr
    document = page.read_text()
    assert document.count("data:image/jpeg;base64,") == 3
    # Everything is inside: nothing is loaded from elsewhere, and no script runs.
    assert not re.search(r'src="(?!data:)|<script|<link', document)


def test_a_photo_finds_itself_first(index: Path) -> None:
    done = run("search", str(index), "--photo", str(DRAWINGS / "taxi.png"), "--json")
    first = json.loads(done.stdout.splitlines()[0])
    assert Path(first["path"]).name == "taxi.png"
    assert first["similarity"] == pytest.approx(1.0, abs=1e-4)
    assert len(done.stdout.splitlines()) == 10


def test_what_cannot_be_searched_is_said_in_a_line(index: Path, tmp_path: Path) -> None:
    done = run("search", str(tmp_path / "none.npz"), "a dog")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "is not a file" in done.stderr
    assert run("search", str(index)).returncode == 2
    assert run("search", str(index), " ").returncode == 2


def test_a_threshold_from_folders_of_things(tmp_path: Path) -> None:
    for number, drawing in enumerate(sorted(DRAWINGS.glob("*.png"))[:10]):
        folder = tmp_path / "things" / f"thing-{number}"
        folder.mkdir(parents=True)
        for copy in range(2):
            (folder / f"{copy}.png").write_bytes(drawing.read_bytes())
    picture = tmp_path / "distributions.svg"
    done = run(
        *("calibrate", "things", str(tmp_path / "things")),
        *("--false-alarms", "0.2", "--svg", str(picture)),
    )
    assert done.returncode == 0, done.stderr
    assert "◀ threshold" in done.stdout
    assert "in the request to /compare" in done.stdout
    assert "share pictures or things" in done.stdout
    assert "100.0% of 10 pairs" in done.stdout
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")


def test_a_threshold_from_frames_says_when_they_are_too_few(tmp_path: Path) -> None:
    done = run("calibrate", "frames", str(DRAWINGS), "--false-alarms", "0.01")
    assert done.returncode == 0, done.stderr
    assert "at least 368 independent frames are needed" in done.stdout
    found = run("calibrate", "frames", str(DRAWINGS), "--false-alarms", "0.2", "--json")
    assert json.loads(found.stdout)["interval"]["high"] is not None


def test_a_terminal_that_lacks_characters_gets_plain_ones(tmp_path: Path) -> None:
    folder = tmp_path / "Фото"
    folder.mkdir()
    for drawing in sorted(DRAWINGS.glob("*.png"))[:6]:
        (folder / drawing.name).write_bytes(drawing.read_bytes())
    found = run("calibrate", "frames", str(folder), "--false-alarms", "0.2", encoding="latin-1")
    assert found.returncode == 0, found.stderr
    assert "##" in found.stdout
    assert "< threshold" in found.stdout
    index = tmp_path / "index.npz"
    assert run("embed", str(folder), "-o", str(index)).returncode == 0
    line = run("search", str(index), "a dog", "--top", "1", encoding="latin-1").stdout
    assert "\\u0424" in line
    row = run("search", str(index), "a dog", "--top", "1", "--json", encoding="latin-1").stdout
    assert "Фото" in json.loads(row)["path"]


def test_a_table_of_pairs_may_have_a_header_and_must_be_readable(tmp_path: Path) -> None:
    names = sorted(str(path) for path in DRAWINGS.glob("*.png"))[:4]
    table = tmp_path / "pairs.csv"
    table.write_text(
        "one,other,meaning\n"
        f"{names[0]},{names[0]},same\n{names[0]},{names[1]},different\n"
        f"{names[2]},{names[3]},different\n"
    )
    done = run("calibrate", "pairs", str(table), "--false-alarms", "0.5", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["negatives"], result["positives"], result["detection"]) == (2, 1, 1.0)
    table.write_text(f"{names[0]},{names[1]},perhaps\n{names[0]},nonsense\n")
    refused = run("calibrate", "pairs", str(table))
    assert refused.returncode == 1
    assert "line 2" in refused.stderr
