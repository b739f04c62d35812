"""How many requests may be inside, and draining."""

import asyncio

import pytest

from application.admission import Admission
from domain.errors import Draining, QueueFull


async def test_full_means_refused_until_one_leaves() -> None:
    admission = Admission(capacity=2)
    with admission.admit():
        with admission.admit(), pytest.raises(QueueFull, match=r"2 requests.*at most 2"):
            admission.admit().__enter__()
        with admission.admit():
            assert admission.inside == 2
    assert admission.inside == 0


async def test_a_failed_request_gives_its_place_back() -> None:
    admission = Admission(capacity=1)
    with pytest.raises(ZeroDivisionError), admission.admit():
        raise ZeroDivisionError
    with admission.admit():
        assert admission.inside == 1


async def test_draining_lets_those_inside_finish() -> None:
    admission = Admission(capacity=2)
    with admission.admit():
        admission.start_draining()
        waiting = asyncio.create_task(admission.wait_until_empty())
        await asyncio.sleep(0)
        assert not waiting.done()
        with pytest.raises(Draining):
            admission.admit().__enter__()
    await asyncio.wait_for(waiting, 1)
