"""Real servers: processes of their own, reached over sockets."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

SERVE = [sys.executable, "-m", "entrypoints.cli", "serve"]
SLOW = [sys.executable, "-m", "tests.support.slow_server"]


@dataclass
class Server:
    """A running server."""

    process: "subprocess.Popen[str]"
    url: str
    log_file: Path

    @property
    def log(self) -> str:
        """What it has printed so far."""
        return self.log_file.read_text()

    @property
    def open_files(self) -> int:
        """File descriptors that its process holds."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    @property
    def decoders(self) -> list[int]:
        """The processes in which it decodes pictures."""
        return [worker for child in _children(self.process.pid) for worker in _children(child)]

    def requests_to(self, endpoint: str) -> list[dict[str, Any]]:
        """The request log's lines about an endpoint."""
        lines = (json.loads(line) for line in self.log.splitlines())
        return [
            line for line in lines if line["event"] == "request" and line["endpoint"] == endpoint
        ]

    def stop(self) -> int:
        """Ask it to end; returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


def _children(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except FileNotFoundError:  # it has ended meanwhile
        return []


@contextmanager
def running(command: list[str], log_file: Path, **environment: str) -> Iterator[Server]:
    """Start a server as `launched` does and wait for it to respond."""
    with launched(command, log_file, **environment) as server:
        wait_for(server, "/health/live")
        yield server


@contextmanager
def demo_server(log: Path) -> Iterator[Server]:
    """A real server with the demo model, ready to respond."""
    with running(SERVE, log, CLIP_MODEL_PATH="builtin:demo", CLIP_ENCODER="openvino") as server:
        wait_for(server, "/health/ready")
        yield server


@contextmanager
def launched(command: list[str], log_file: Path, **environment: str) -> Iterator[Server]:
    """Start a server on the loopback interface.

    Args:
        command: what to run.
        log_file: where its output goes.
        environment: variables beside the caller's own; without ``PORT`` it takes a free one.
    """
    port = int(environment.get("PORT") or free_port())
    variables = {
        **os.environ,
        "HOST": "127.0.0.1",
        "PORT": str(port),
        # A server with nothing to do would take the cores from the next test, and may switch over.
        "CLIP_MEASURE_ENCODERS": "false",
        **environment,
    }
    with log_file.open("w") as log:
        process = subprocess.Popen(
            command, env=variables, stdout=log, stderr=subprocess.STDOUT, text=True
        )
    server = Server(process, f"http://127.0.0.1:{port}", log_file)
    try:
        yield server
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(timeout=30)


def wait_for(
    server: Server, path: str, seconds: float = 300, *, verify: ssl.SSLContext | bool = True
) -> None:
    """Return once ``path`` returns 200; ``verify`` is httpx's."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert server.process.poll() is None, f"the server ended: {server.log}"
        try:
            if httpx.get(server.url + path, timeout=5, verify=verify).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"{path} did not return 200 within {seconds} s: {server.log}")


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
