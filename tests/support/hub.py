"""A model hub of the tests' own: the HTTP that `huggingface_hub` speaks, over a directory."""

import hashlib
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = 4096
"""Bytes from which on a file is kept by its SHA-256, as the hub does with large files."""


@dataclass
class Hub:
    """What the hub has and how it behaves; change it while it runs.

    Attributes:
        url: for ``HF_ENDPOINT``.
        repositories: the files of each, by name.
        gated: repositories that ask for an agreement.
        renamed: old names, and what they are called now.
        cut_after: bytes after which the next transfers of large files break off, one each.
        damaged: whether large files arrive with a byte changed.
        bytes_per_s: how fast large files are sent; None: as fast as can be.
        listed_sizes: what it says of files' sizes before it sends them, if that is not the truth.
        failing: the status of every response, as of a hub that is down.
        requests: method, path and range of each.
    """

    url: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    renamed: dict[str, str] = field(default_factory=dict)
    cut_after: list[int] = field(default_factory=list)
    damaged: bool = False
    bytes_per_s: float | None = None
    listed_sizes: dict[str, int] = field(default_factory=dict)
    failing: int | None = None
    requests: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, name: str, directory: Path, *, without: tuple[str, ...] = ()) -> None:
        """Publish the files of a directory."""
        self.repositories[name] = {
            file.name: file.read_bytes()
            for file in directory.iterdir()
            if file.is_file() and file.name not in without
        }

    def sent(self, file: str) -> list[str]:
        """The ranges in which a file's bytes were asked for; empty for all of it."""
        return [
            span for method, path, span in self.requests if method == "GET" and path.endswith(file)
        ]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self._respond(body=False)

    def do_GET(self) -> None:
        self._respond(body=True)

    def _respond(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        span = self.headers.get("Range", "")
        self.hub.requests.append((self.command, path, span))
        if self.hub.failing is not None:
            self._send(self.hub.failing, b"", {})
            return
        for old, new in self.hub.renamed.items():
            if f"/{old}/" in f"{path}/":
                self._send(307, b"", {"Location": self.path.replace(old, new, 1)})
                return
        if described := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self._describe(described[1], described[2] or "main")
        elif resolved := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            name, revision, file = resolved.groups()
            self._resolve(name, revision, file, span, body=body)
        else:
            self._send(404, b"{}", {})

    def _describe(self, name: str, revision: str) -> None:
        if name not in self.hub.repositories:
            self._send(401, b'{"error": "x"}', {"X-Error-Code": "RepoNotFound"})
        elif revision not in {"main", COMMIT}:
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        else:
            files = self.hub.repositories[name]
            siblings = [_sibling(file, data) for file, data in sorted(files.items())]
            told = {"id": name, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False}
            self._send(200, json.dumps(told).encode(), {"Content-Type": "application/json"})

    def _resolve(self, name: str, revision: str, file: str, span: str, *, body: bool) -> None:
        if name in self.hub.gated:
            self._send(403, b"{}", {"X-Error-Code": "GatedRepo"})
            return
        data = self.hub.repositories.get(name, {}).get(file)
        if data is None:
            self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            return
        headers = {
            "X-Repo-Commit": COMMIT,
            "ETag": f'"{_etag(data)}"',
            "X-Linked-Size": str(self.hub.listed_sizes.get(file, len(data))),
            "Accept-Ranges": "bytes",
        }
        start = int(span.removeprefix("bytes=").partition("-")[0]) if span else 0
        if span:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        large = len(data) >= LARGE
        if large and self.hub.damaged:
            data = data[:-1] + bytes([data[-1] ^ 1])
        self._send(206 if span else 200, data[start:], headers, body=body, large=large)

    def _send(
        self,
        status: int,
        data: bytes,
        headers: dict[str, str],
        *,
        body: bool = True,
        large: bool = False,
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if not body or self.command == "HEAD":
            return
        end = self.hub.cut_after.pop(0) if large and self.hub.cut_after else len(data)
        step = len(data) + 1
        if large and self.hub.bytes_per_s is not None:
            step = max(int(self.hub.bytes_per_s / 20), 1)
        try:
            for place in range(0, min(end, len(data)), step):
                self.wfile.write(data[place : min(place + step, end)])
                if step < len(data):
                    time.sleep(0.05)
        except ConnectionError:
            pass  # the client was killed
        if end < len(data):
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _etag(data: bytes) -> str:
    return (hashlib.sha256 if len(data) >= LARGE else hashlib.sha1)(data).hexdigest()


def _sibling(name: str, data: bytes) -> dict[str, Any]:
    described: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": _etag(data)}
    if len(data) >= LARGE:
        described["lfs"] = {"sha256": _etag(data), "size": len(data), "pointerSize": 134}
    return described


@contextmanager
def model_hub() -> Iterator[Hub]:
    """A running hub."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        hub.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield hub
        finally:
            server.shutdown()
