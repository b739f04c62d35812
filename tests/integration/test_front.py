"""What a process that serves HTTP knows of the encoder in another process."""

import asyncio
import multiprocessing
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from litestar.testing import AsyncTestClient

from adapters.system.process_table import ProcessTable
from application.ports import RawEmbeddings
from entrypoints.container import Container, http_service
from entrypoints.processes.front import front_container
from entrypoints.processes.member import Membership
from entrypoints.settings import Settings, read_settings
from tests.support.encoder_processes import encoder_process
from tests.support.encoders import Loader, RecordingEncoder
from tests.support.photos import as_file, plain
from tests.support.responses import Client, problem, succeeded

PICTURE = as_file(plain(1, 2, 3), "PNG")
HEADERS = {"content-type": "image/png"}


@pytest.fixture
def table() -> ProcessTable:
    return ProcessTable(multiprocessing.get_context("spawn"), 3)


@pytest.fixture
def front(
    directory: Path, table: ProcessTable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Container:
    """The service of front 1 of two, whose encoder's process is not there yet."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    settings: Settings = read_settings({"CLIP_ENCODER": "fake", "CLIP_MAX_REQUESTS": "4"})
    member = Membership(settings, table, 1, directory / "encoder.sock")
    return front_container(member, fronts=2)


@asynccontextmanager
async def served(container: Container) -> AsyncIterator[Client]:
    async with AsyncTestClient(http_service(container), raise_server_exceptions=False) as client:
        yield client


async def ready(client: Client) -> None:
    async with asyncio.timeout(20):
        while not (await client.get("/health/ready")).json()["ready"]:
            await asyncio.to_thread(time.sleep, 0.01)


async def test_without_the_encoders_process_it_lives_and_says_what_it_waits_for(
    front: Container,
) -> None:
    async with served(front) as client:
        health = (await client.get("/health")).json()
        assert health["status"] == "degraded"
        assert "encoder's process does not respond" in health["reason"]
        assert (await client.get("/health/live")).status_code == 200
        assert (await client.get("/health/ready")).status_code == 503
        response = await client.post("/embed", content=PICTURE, headers=HEADERS)
        assert problem(response, 503)["code"] == "model_starting"


async def test_it_is_ready_with_the_encoder_and_no_longer_without(
    front: Container, directory: Path
) -> None:
    async with served(front) as client:
        with encoder_process(directory, Loader(RecordingEncoder())):
            await ready(client)
            assert (await client.get("/health")).json()["model"] == "recording"
        async with asyncio.timeout(20):
            while (await client.get("/health/ready")).json()["ready"]:
                await asyncio.to_thread(time.sleep, 0.01)
        response = await client.post("/embed", content=PICTURE, headers=HEADERS)
        assert problem(response, 503)["code"] == "model_starting"


async def test_it_is_ready_only_when_the_other_front_has_the_model_too(
    front: Container, directory: Path, table: ProcessTable
) -> None:
    table.refuse(2, True)
    async with served(front) as client:
        with encoder_process(directory, Loader(RecordingEncoder())):
            async with asyncio.timeout(20):
                while (
                    await client.post("/embed", content=PICTURE, headers=HEADERS)
                ).status_code != 200:
                    await asyncio.to_thread(time.sleep, 0.01)
            async with asyncio.timeout(20):
                while "not all processes" not in str(
                    (probe := await client.get("/health/ready")).json()["reason"]
                ):
                    assert probe.status_code == 503
                    await asyncio.to_thread(time.sleep, 0.01)
            assert probe.status_code == 503
            table.refuse(2, False)
            await ready(client)


async def test_it_says_so_to_the_other_front_until_it_has_the_model(
    front: Container, directory: Path, table: ProcessTable
) -> None:
    async with served(front) as client:
        assert table.any_refuses()
        with encoder_process(directory, Loader(RecordingEncoder())):
            await ready(client)
            assert not table.any_refuses()


async def test_a_model_that_fails_its_first_verification_here_is_verified_again(
    front: Container, directory: Path
) -> None:
    encoder = RecordingEncoder()
    sound = encoder.response

    def broken_once(rows: RawEmbeddings) -> RawEmbeddings:
        encoder.response = sound
        return np.full_like(rows, np.nan)

    with encoder_process(directory, Loader(encoder)) as loader:
        await asyncio.to_thread(loader.load)
        encoder.response = broken_once
        async with served(front) as client:
            await ready(client)
            assert encoder.response is sound, "it was broken once"
            assert "embedding" in succeeded(
                await client.post("/embed", content=PICTURE, headers=HEADERS)
            )


async def test_places_of_the_other_front_are_taken_here_too(
    front: Container, directory: Path, table: ProcessTable
) -> None:
    with encoder_process(directory, Loader(RecordingEncoder())):
        async with served(front) as client:
            await ready(client)
            table.hold(2, 5)
            response = await client.post("/embed", content=PICTURE, headers=HEADERS)
            assert problem(response, 503)["code"] == "queue_full"
            assert "clip_requests_in_progress 5.0" in (await client.get("/metrics")).text
            table.hold(2, 0)
            assert "embedding" in succeeded(
                await client.post("/embed", content=PICTURE, headers=HEADERS)
            )
