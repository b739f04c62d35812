"""A client that hangs up costs the encoder nothing."""

import json
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tests.support.photos import as_base64, plain
from tests.support.servers import SERVE, SLOW, Server, running, wait_for


def hang_up_after_asking(server: Server, image: str) -> None:
    """Send a whole request and close the connection without waiting for the response."""
    address = urlsplit(server.url)
    body = json.dumps({"image": image}).encode()
    with socket.create_connection((address.hostname or "", address.port or 0)) as connection:
        connection.sendall(
            b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        time.sleep(0.3)  # for the request to get into the queue before it is abandoned


def test_leaving_half_way_through_the_body_is_no_error(tmp_path: Path) -> None:
    with running(SERVE, tmp_path / "log", CLIP_ENCODER="fake") as server:
        wait_for(server, "/health/ready")
        address = urlsplit(server.url)
        with socket.create_connection((address.hostname or "", address.port or 0)) as connection:
            connection.sendall(
                b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b'Content-Length: 1000\r\n\r\n{"image": "'
            )
            time.sleep(0.3)  # for the server to be waiting for the rest
        assert server.stop() == 0
        assert '"level":"error"' not in server.log
        assert "Traceback" not in server.log


def test_those_who_left_are_not_encoded(tmp_path: Path) -> None:
    with running(SLOW, tmp_path / "log", SLOW_SECONDS="3", CLIP_MAX_BATCH_SIZE="1") as server:
        wait_for(server, "/health/ready")
        warm = server.log.count("encoding 1 images")
        for number in range(4):
            hang_up_after_asking(server, as_base64(plain(number, 0, 0), "PNG"))
        response = httpx.post(
            server.url + "/embed", json={"image": as_base64(plain(9, 9, 9), "PNG")}, timeout=60
        )
        assert response.status_code == 200
        # The first one was with the encoder already when its client left; three were not.
        assert server.log.count("encoding 1 images") - warm == 2
        assert "Traceback" not in server.log
