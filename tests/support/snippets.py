"""The fenced blocks of a page of the documentation, run as its reader would run them."""

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.servers import Server, running, wait_for

ADDRESS = "http://localhost:8093"
CHECKPOINT = "/models/clip-vit-l"
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_EXCUSE = re.compile(r"\*Not run by the tests: .+\.\*\n\n\Z")


@dataclass(frozen=True)
class Snippet:
    """One fenced block.

    Attributes:
        language: ``sh``, ``python`` or ``json``.
        code: its lines.
        line: where it stands.
        excused: whether the page says, right above it, why the tests don't run it.
    """

    language: str
    code: str
    line: int
    excused: bool


def snippets_of(page: Path) -> list[Snippet]:
    """All fenced blocks of a page, in their order."""
    text = page.read_text()
    return [
        Snippet(
            language=match[1],
            code=match[2],
            line=text.count("\n", 0, match.start()) + 2,
            excused=_EXCUSE.search(text, 0, match.start()) is not None,
        )
        for match in _FENCE.finditer(text)
    ]


@dataclass
class Reader:
    """Someone who types a page's snippets, one after the other.

    Python blocks share their variables. A block that ends in ``clip-server serve`` starts the
    server that those after it ask.

    Attributes:
        folder: where everything is run; the examples' files lie here.
        checkpoint: stands in for the page's ``/models/clip-vit-l``.
        server: the one that is asked until the page starts its own.
        variables: what the Python blocks have assigned.
        printed: what the last shell block printed.
    """

    folder: Path
    checkpoint: Path
    server: Server
    variables: dict[str, Any] = field(default_factory=dict)
    _own_server: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    printed: str = ""

    @contextlib.contextmanager
    def reading(self) -> Iterator["Reader"]:
        """Close afterwards what the snippets left open."""
        try:
            yield self
        finally:
            for value in self.variables.values():
                if callable(close := getattr(value, "close", None)) and not isinstance(value, type):
                    close()
            self._own_server.close()

    def run(self, page: Path, snippet: Snippet) -> None:
        """Run one snippet; raises if it fails."""
        code = snippet.code.replace(CHECKPOINT, str(self.checkpoint))
        if snippet.language == "python":
            place = f"{page.name}:{snippet.line}"
            code = code.replace(ADDRESS, self.server.url)
            exec(compile(code, place, "exec"), self.variables)
        elif snippet.language == "json":
            check_shown(json.loads(snippet.code), json.loads(self.printed))
        elif "clip-server serve" in code:
            self._serve(code)
        else:
            self._shell(code.replace(ADDRESS, self.server.url))

    def _shell(self, code: str) -> None:
        result = subprocess.run(
            ["sh", "-e", "-c", code],
            cwd=self.folder,
            env=_environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert result.returncode == 0, result.stderr
        self.printed = result.stdout

    def _serve(self, code: str) -> None:
        self._own_server.close()
        command = [
            "sh",
            "-c",
            f"cd {self.folder}; {code.replace('clip-server', 'exec clip-server')}",
        ]
        log = self.folder / "server.log"
        cache = str(self.folder / "cache")
        server = running(command, log, **{**_environment(), "CLIP_CACHE_DIR": cache})
        self.server = self._own_server.enter_context(server)
        wait_for(self.server, "/health/ready")


def check_shown(shown: dict[str, Any], answered: dict[str, Any]) -> None:
    """Check a response against the shown one; what is abbreviated with … may differ."""
    assert shown.keys() == answered.keys()
    for name, value in shown.items():
        if "…" not in str(value):
            assert answered[name] == value, name


def _environment() -> dict[str, str]:
    commands = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"}
