"""Short versions of `make overload` and `make soak`."""

import random
from pathlib import Path

import pytest

from adapters.encoders.fake import FakeEncoder
from checks.endurance.known_requests import KnownRequests
from checks.endurance.load import RIGHT, Tally, ask_in_turn, ask_steadily
from checks.endurance.soak import soaked
from checks.endurance.vitals import vitals_of
from tests.support.photos import as_file, plain
from tests.support.servers import SLOW, running, wait_for

pytestmark = pytest.mark.long


async def test_overload_is_refused_and_leaves_nothing_behind(tmp_path: Path) -> None:
    files = [as_file(plain(shade, 0, 0), "PNG") for shade in range(0, 250, 10)]
    requests = KnownRequests(random.Random(1), FakeEncoder(embedding_dimension=768), files)
    drawn = [requests.draw() for _ in range(100)]
    settings = {"CLIP_MAX_BATCH_SIZE": "1", "SLOW_SECONDS": "0.02"}
    with running(SLOW, tmp_path / "log", **settings) as server:
        wait_for(server, "/health/ready")
        calm, overload, after = Tally(), Tally(), Tally()
        await ask_in_turn(server.url, requests, 8, 3, calm)
        before = vitals_of(server.process.pid)
        # It can do fifty a second.
        await ask_steadily(server.url, drawn, 500, 6, overload)
        await ask_in_turn(server.url, requests, 4, 1, after)
        assert set(calm.outcomes) == set(after.outcomes) == {RIGHT}
        assert set(overload.outcomes) == {RIGHT, "503 queue_full"}
        assert overload.outcomes["503 queue_full"] > overload.outcomes[RIGHT] > 100
        assert vitals_of(server.process.pid).memory_mib < before.memory_mib + 100
        assert server.stop() == 0
        assert "Traceback" not in server.log


def test_a_soak_finds_no_wrong_response() -> None:
    soak = soaked(20, fault_share=0.03, settle_s=0)
    assert soak.faults, "the encoder never failed, so this shows nothing"
    assert soak.passed, soak.report()
