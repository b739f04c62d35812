"""How many requests may be inside, and draining."""

import asyncio

import pytest

from application.inference.admission import Admission
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


async def test_a_large_request_counts_as_several() -> None:
    admission = Admission(capacity=4)
    with admission.admit(3):
        with pytest.raises(QueueFull, match=r"3 requests.*counts as 2; at most 4"):
            admission.admit(2).__enter__()
        with admission.admit():
            assert admission.inside == 4
    assert admission.inside == 0


async def test_a_request_larger_than_all_places_gets_in_where_nobody_is() -> None:
    admission = Admission(capacity=2)
    with admission.admit(100), pytest.raises(QueueFull):
        admission.admit().__enter__()
    with admission.admit(), pytest.raises(QueueFull):
        admission.admit(100).__enter__()
