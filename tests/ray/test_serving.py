"""The service on a Ray cluster: the same responses, and none lost when parts of it die."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import pytest

from tests.ray.conftest import RunningCluster
from tests.support.photos import as_base64, photos
from tests.support.servers import SERVE, Server, running, wait_for

pytestmark = pytest.mark.long

TRIES = 10
LONGEST_WAIT_S = 4.0
LABELS = ["an astronaut", "a cat", "a cup of coffee"]


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server of the usual kind, with the same model."""
    log = tmp_path_factory.mktemp("single") / "log"
    with running(SERVE, log, CLIP_MODEL_PATH="builtin:demo") as server:
        wait_for(server, "/health/ready")
        yield server


def both(
    cluster: RunningCluster, single: Server, path: str, body: dict[str, Any]
) -> tuple[httpx.Response, httpx.Response]:
    return (
        httpx.post(cluster.url + path, json=body, timeout=60),
        httpx.post(single.url + path, json=body, timeout=60),
    )


def test_embeddings_are_those_of_a_single_server(cluster: RunningCluster, single: Server) -> None:
    for image in photos().values():
        here, there = both(cluster, single, "/embed", {"image": as_base64(image)})
        assert here.status_code == 200, here.text
        assert np.dot(here.json()["embedding"], there.json()["embedding"]) > 0.9999
        fingerprint = "X-Model-Fingerprint"
        assert here.headers[fingerprint] == there.headers[fingerprint]


def test_classifications_are_those_of_a_single_server(
    cluster: RunningCluster, single: Server
) -> None:
    image = as_base64(photos()["cat"])
    for extra in ({}, {"use_ensemble": True, "camera_type": "indoor"}):
        here, there = both(
            cluster, single, "/classify", {"image": image, "labels": LABELS, **extra}
        )
        assert here.json()["top_label"] == there.json()["top_label"]
        assert here.json()["ensemble_metadata"] == there.json()["ensemble_metadata"]
        # Cosines differ by rounding of bfloat16 and are multiplied by about 100.
        assert here.json()["scores"] == pytest.approx(there.json()["scores"], abs=0.02)


def test_errors_are_those_of_a_single_server(cluster: RunningCluster, single: Server) -> None:
    image = as_base64(photos()["cat"])
    for path, body in (
        ("/embed", {}),
        ("/embed", {"image": "bm8gaW1hZ2U="}),
        ("/classify", {"image": image, "labels": []}),
        ("/batch-similarity", {"image": image, "texts": ["a"] * 101}),
        ("/nothing", {}),
    ):
        here, there = both(cluster, single, path, body)
        assert here.status_code == there.status_code >= 400
        assert here.headers["content-type"] == there.headers["content-type"]
        problems = [{**response.json(), "request_id": ""} for response in (here, there)]
        assert problems[0] == problems[1]


def test_health_tells_of_the_encoder(cluster: RunningCluster, single: Server) -> None:
    here, there = (httpx.get(f"{url}/health").json() for url in (cluster.url, single.url))
    assert here == there


class Load:
    """Clients that ask all the time and try again as the README says."""

    def __init__(self, url: str, image: str, clients: int = 6) -> None:
        self.responses: list[list[float]] = []
        self.failures: list[str] = []
        self.retries = 0
        self._url = f"{url}/embed"
        self._body = {"image": image}
        self._over = False
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    @contextmanager
    def going_on(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._over = True
            for thread in self._threads:
                thread.join(timeout=120)

    def wait_for_more(self, responses: int) -> None:
        """Return once so many more have been answered."""
        goal = len(self.responses) + responses
        deadline = time.monotonic() + 90
        while len(self.responses) < goal:
            assert time.monotonic() < deadline, "requests are no longer answered"
            assert not self.failures
            time.sleep(0.05)

    def _ask(self) -> None:
        with httpx.Client(timeout=60) as client:
            while not self._over:
                self._ask_until_answered(client)

    def _ask_until_answered(self, client: httpx.Client) -> None:
        said = ""
        for attempt in range(TRIES):
            self.retries += attempt > 0
            wait_s = min(0.25 * 2**attempt, LONGEST_WAIT_S)
            try:
                response = client.post(self._url, json=self._body)
            except httpx.TransportError as broken:
                said = repr(broken)
            else:
                if response.status_code == 200:
                    self.responses.append(response.json()["embedding"])
                    return
                said = f"{response.status_code} {response.text}"
                if response.status_code < 500:
                    break
                wait_s = float(response.headers.get("Retry-After", wait_s))
            time.sleep(wait_s)
        self.failures.append(said)


def test_no_request_is_lost_when_replicas_and_a_node_are_killed(cluster: RunningCluster) -> None:
    image = as_base64(photos()["astronaut"])
    expected = httpx.post(f"{cluster.url}/embed", json={"image": image}, timeout=60).json()
    load = Load(cluster.url, image)
    with load.going_on():
        load.wait_for_more(15)
        cluster.ask("kill Encoder")
        load.wait_for_more(25)
        assert load.retries == 0, "an encoder's death is nothing that a client notices"
        cluster.ask("kill Ingress")
        load.wait_for_more(25)
        cluster.ask("kill node")
        load.wait_for_more(25)
        cluster.ask("add node")
        load.wait_for_more(15)
    assert load.failures == []
    for embedding in load.responses:
        assert np.dot(embedding, expected["embedding"]) > 0.9999
    deadline = time.monotonic() + 60
    while cluster.ask("replicas") != {"Ingress": 2, "Encoder": 2}:
        assert time.monotonic() < deadline, "the replicas were not replaced"
        time.sleep(0.2)
