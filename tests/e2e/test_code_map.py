"""What docs/code.md says of the code is so."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.servers import free_port

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "code.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading, without code marks."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][2:]
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]


def test_a_request_passes_the_files_that_are_listed() -> None:
    listed = [file for file, _ in rows("`POST /embed`, from the socket to the encoder")]
    assert 10 < len(listed) <= 14
    variables = {
        "CLIP_ENCODER": "fake",
        "CLIP_LOG_LEVEL": "warning",
        "CLIP_HTTP_PROCESSES": "1",
        "HOST": "127.0.0.1",
        "PORT": str(free_port()),
    }
    traced = subprocess.run(
        [sys.executable, "-m", "tests.support.request_trace"],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert set(listed) <= set(json.loads(traced.stdout.splitlines()[-1]))


def test_each_behaviour_is_where_the_page_says() -> None:
    found = rows("Where is …")
    assert len({file for _, file, _ in found}) <= 12
    for behaviour, file, name in found:
        text = (ROOT / file).read_text(encoding="utf-8")
        assert re.search(rf"\b{re.escape(name)}\b", text), behaviour


def test_every_file_that_the_page_names_exists() -> None:
    for name in re.findall(r"`((?:domain|application|adapters|entrypoints)/[\w/]+\.?\w*)`", PAGE):
        assert (ROOT / name).exists(), name
