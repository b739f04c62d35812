"""Profiles as a Pyroscope server receives them from the real agent."""

from pathlib import Path

import httpx

from tests.support.photos import as_base64, photo
from tests.support.receivers import Receiver
from tests.support.servers import SERVE, running, wait_for


def test_profiles_arrive_with_their_tag(tmp_path: Path) -> None:
    receiver = Receiver()
    settings = {"PYROSCOPE_URL": receiver.url, "ENVIRONMENT": "garden"}
    with (
        receiver.listening(),
        running(SERVE, tmp_path / "log", CLIP_ENCODER="fake", **settings) as server,
    ):
        wait_for(server, "/health/ready")
        body = {"image": as_base64(photo("cat"))}
        assert httpx.post(server.url + "/embed", json=body, timeout=60).status_code == 200
        assert receiver.delivered.wait(60), server.log  # the agent sends every ten seconds
        assert server.stop() == 0
    delivery = receiver.deliveries[0]
    assert delivery.path == "/push.v1.PusherService/Push"
    for word in (b"clip-embedding-server", b"environment", b"garden"):
        assert word in delivery.body
