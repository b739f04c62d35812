"""One Ray cluster for all tests of this folder."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.servers import free_port


@dataclass
class RunningCluster:
    """A cluster with the service on it."""

    process: "subprocess.Popen[str]"
    url: str
    address: str = ""

    def ask(self, command: str | None = None) -> dict[str, Any]:
        """Give a command; returns its response. Without one, wait for the cluster to be up."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if command is not None:
            self.process.stdin.write(f"{command}\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the cluster has ended"
        response: dict[str, Any] = json.loads(line)
        return response


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """A cluster of three nodes with the demo model on it, ready to respond."""
    port = free_port()
    log = tmp_path_factory.mktemp("cluster") / "log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.ray_cluster", str(port)],
            env={**os.environ, "CLIP_MODEL_PATH": "builtin:demo"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    running = RunningCluster(process, f"http://127.0.0.1:{port}")
    with process:
        try:
            running.address = running.ask()["address"]
            wait_until_ready(running, log)
            yield running
            running.ask("stop")
        finally:
            process.terminate()  # which takes its nodes with it; without effect once it has ended


def wait_until_ready(cluster: RunningCluster, log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{cluster.url}/health/ready", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(log.read_text())
