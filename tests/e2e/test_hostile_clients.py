"""Hostile clients: each is closed in time, and others are served meanwhile."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from checks.endurance import attackers
from checks.endurance.attackers import Attack, Target, attacking
from entrypoints.server.client_limits import MAX_LINGERING
from tests.support.photos import as_base64, plain
from tests.support.servers import SLOW, Server, running, wait_for

PHOTO = json.dumps({"image": as_base64(plain(1, 2, 3), "PNG")}).encode()
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("server") / "log"
    with running(SLOW, log, SLOW_SECONDS="0.002") as server:
        wait_for(server, "/health/ready")
        yield server
        assert "Traceback" not in server.log
        assert server.stop() == 0


async def ask_often(server: Server, times: int) -> list[float]:
    """Embeddings of one photo, on new connections; refusals are tried again."""
    responses: list[list[float]] = []
    while len(responses) < times:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            response = await client.post("/embed", content=PHOTO, headers=JSON)
        if response.status_code == 503:
            await asyncio.sleep(0.05)
            continue
        assert response.status_code == 200, response.text
        responses.append(response.json()["embedding"])
    assert all(response == responses[0] for response in responses)
    return responses[0]


def own_address(response: httpx.Response) -> object:
    """The client's end of the connection that a response came on."""
    return response.extensions["network_stream"].get_extra_info("client_addr")


@pytest.mark.long
async def test_each_is_got_rid_of(server: Server) -> None:
    expected: dict[Attack, set[int]] = {
        attackers.stay_idle: set(),
        attackers.drip_head: {408},
        attackers.drip_body: {408},
        attackers.send_half_a_large_body: {408},
        attackers.never_read: set(),
        attackers.pipeline_half_requests: {200},
        attackers.send_endless_headers: {431},
        attackers.send_one_endless_header: {431},
        attackers.send_endless_trailers: {431},
        attackers.ask_for_a_websocket: {200},
        attackers.talk_nonsense: {400},
    }

    async def statuses(attack: Attack) -> set[int]:
        target = Target(server.url)
        await asyncio.wait_for(attack(target), 120)
        # Closing with unread data discards the response; then the end of the connection counts.
        assert target.statuses or target.closed
        return set(target.statuses)

    outcomes = await asyncio.gather(*map(statuses, expected))
    for (attack, allowed), seen in zip(expected.items(), outcomes, strict=True):
        assert seen <= allowed, attack.__name__


@pytest.mark.parametrize(
    ("attack", "clients"),
    [
        (attackers.stay_idle, 1500),
        (attackers.drip_head, 300),
        (attackers.drip_body, 300),
        (attackers.send_half_a_large_body, 4),
        (attackers.never_read, 4),
        (attackers.pipeline_half_requests, 50),
        (attackers.send_endless_headers, 4),
        (attackers.send_one_endless_header, 4),
        (attackers.send_endless_trailers, 4),
        (attackers.hang_up_while_encoding, 20),
        (attackers.ask_for_a_websocket, 4),
        (attackers.talk_nonsense, 4),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_others_are_answered_meanwhile(server: Server, attack: Attack, clients: int) -> None:
    before = await ask_often(server, 1)
    async with attacking(Target(server.url), attack, clients=clients):
        await asyncio.sleep(1)
        assert await ask_often(server, 30) == before
        # A thousand connections, those being closed, and what the server has open besides.
        assert server.open_files < 1100 + MAX_LINGERING


async def test_nonsense_does_not_fill_the_log(server: Server) -> None:
    target = Target(server.url)
    for _ in range(200):
        await attackers.talk_nonsense(target)
    assert target.statuses == [400] * 200
    lines = 0
    for _ in range(100):
        lines = server.log.count("refused") + server.log.count("Invalid HTTP")
        if lines:
            break
        await asyncio.sleep(0.1)
    assert 0 < lines < 100


async def test_those_with_most_connections_lose_theirs_first(tmp_path: Path) -> None:
    with running(
        SLOW, tmp_path / "log", SLOW_SECONDS="0.002", CLIP_MAX_CONNECTIONS="20", HOST="0.0.0.0"
    ) as server:
        wait_for(server, "/health/ready")
        idle = Target(server.url)
        elsewhere = server.url.replace("127.0.0.1", "127.0.0.2")
        transport = httpx.AsyncHTTPTransport(local_address="127.0.0.2")
        async with httpx.AsyncClient(transport=transport, base_url=elsewhere) as kept:
            before = own_address(await kept.get("/health/live"))
            async with attacking(idle, attackers.stay_idle, clients=60):
                await asyncio.sleep(1)
                # Each got a response to retry on, in case that it had just sent a request.
                assert set(idle.statuses) <= {503}
                assert len(idle.statuses) + idle.closed > 20
                # The very connection that it had: nobody closed it, idle as it was.
                assert own_address(await kept.get("/health/live")) == before
        assert server.stop() == 0


async def test_bodies_hold_no_more_memory_than_they_may(tmp_path: Path) -> None:
    settings = {"SLOW_SECONDS": "0.002", "CLIP_MAX_BODY_MEMORY_MIB": "48"}
    with running(SLOW, tmp_path / "log", **settings) as server:
        wait_for(server, "/health/ready")
        target = Target(server.url)
        async with attacking(target, attackers.send_half_a_large_body, clients=12):
            await asyncio.sleep(3)
            await ask_often(server, 10)
        assert 503 in target.statuses or target.closed
        assert "too_many_bytes" in {line["outcome"] for line in server.requests_to("/embed")}
        assert server.stop() == 0


async def test_a_full_server_says_so_before_it_is_sent_a_body(tmp_path: Path) -> None:
    with running(SLOW, tmp_path / "log", SLOW_SECONDS="2", CLIP_MAX_REQUESTS="1") as server:
        wait_for(server, "/health/ready")
        accepted = asyncio.create_task(ask_often(server, 1))
        target = Target(server.url)
        while not target.statuses or target.statuses[-1] != 503:
            async with target.connection() as (reader, writer):
                writer.write(attackers.head(length=10_000_000))  # and nothing of it
                try:
                    await asyncio.wait_for(target.status(reader), 1)
                except TimeoutError:
                    assert not accepted.done(), "it was never full"
        await accepted


async def test_a_body_is_taken_in_however_many_pieces(server: Server) -> None:
    target = Target(server.url)
    async with target.connection() as (reader, writer):
        writer.write(attackers.head())
        for place in range(len(PHOTO)):
            writer.write(b"1\r\n%c\r\n" % PHOTO[place])
        writer.write(b"0\r\n\r\n")
        assert await target.status(reader) == 200
