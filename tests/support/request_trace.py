"""``python -m tests.support.request_trace``: serves a ``/embed`` request, prints which files ran.

As JSON, the project's files in which a function was called for it, in any thread of the server.
"""

import base64
import json
import os
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import httpx

from entrypoints.container import Container
from entrypoints.server.server import serve
from entrypoints.settings import read_settings
from tests.support.photos import as_file, plain

ROOT = f"{Path(__file__).parents[2]}{os.sep}"


class Trace:
    """The files of the functions that were called while it was on."""

    def __init__(self) -> None:
        self.on = False
        self.files: set[str] = set()

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        """As ``sys.setprofile`` calls it."""
        file = frame.f_code.co_filename
        if self.on and event == "call" and file.startswith(ROOT):
            self.files.add(file[len(ROOT) :])


def main() -> None:
    settings = read_settings()
    trace = Trace()
    threading.setprofile(trace)  # for the threads that are started from now on
    sys.setprofile(trace)

    def ask() -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{settings.port}", timeout=60) as client:
            while not _is_ready(client):
                time.sleep(0.05)
            image = base64.b64encode(as_file(plain(1, 2, 3), "JPEG")).decode()
            client.post("/embed", json={"image": image}).raise_for_status()  # starts what is lazy
            trace.on = True
            client.post("/embed", json={"image": image}).raise_for_status()
            trace.on = False
        sys.stdout.write(f"{json.dumps(sorted(trace.files))}\n")
        sys.stdout.flush()
        os._exit(0)

    threading.Thread(target=ask, daemon=True).start()
    serve(Container(settings=settings))


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/health/ready").status_code == 200
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    main()
