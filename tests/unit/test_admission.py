"""How many requests may be inside, and draining."""

import asyncio
from contextlib import ExitStack

import pytest

from application.inference.admission import Admission
from application.ports import PlacesPort
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


def places(stack: ExitStack, admission: Admission, client: str, size: int = 1) -> int:
    """How many requests of a client find room, one after the other."""
    found = 0
    while admission.has_room(size, client=client):
        stack.enter_context(admission.admit(size, client=client))
        found += 1
    return found


def test_one_client_gets_all_places_and_no_more() -> None:
    with ExitStack() as stack:
        assert places(stack, Admission(64), "batches", 8) == 8


def test_a_server_that_one_client_keeps_full_takes_anothers_request() -> None:
    admission = Admission(64)
    with ExitStack() as stack:
        places(stack, admission, "batches", 8)
        for _ in range(1000):
            with admission.admit(client="camera"):
                assert not admission.has_room(8, client="batches")
        assert places(stack, admission, "camera") == 16
        with pytest.raises(QueueFull, match=r"80 requests .*16 of them yours; at most 64"):
            admission.admit(client="camera").__enter__()


def test_shares_become_equal_as_the_first_clients_requests_end() -> None:
    admission = Admission(64)
    first = ExitStack()
    with ExitStack() as others:
        places(first, admission, "first", 8)
        second = places(others, admission, "second", 8)
        assert second == 2
        first.close()
        with ExitStack() as again:
            clients = {"first": 0, "second": second * 8}
            for _ in range(64):
                for client in clients:
                    if admission.has_room(client=client):
                        again.enter_context(admission.admit(client=client))
                        clients[client] += 1
            assert min(clients.values()) >= 32
            assert sum(clients.values()) <= 80


def test_many_clients_never_take_more_than_a_quarter_beyond_the_capacity() -> None:
    admission = Admission(64)
    with ExitStack() as stack:
        for client in range(1000):
            places(stack, admission, str(client), 3)
        assert admission.inside <= 80
    assert admission.inside == 0
    with admission.admit(64, client="anyone"):
        assert admission.inside == 64


class Others(PlacesPort):
    """Other processes that hold ``held`` places, and what they are told of this one's."""

    def __init__(self, held: int) -> None:
        self.held = held
        self.told: list[int] = []

    def hold(self, places: int) -> None:
        self.told.append(places)

    def held_elsewhere(self) -> int:
        return self.held


async def test_places_of_other_processes_are_taken_for_everybody() -> None:
    others = Others(held=3)
    admission = Admission(capacity=4, places=others)
    with admission.admit(), pytest.raises(QueueFull, match=r"4 requests.*at most 4"):
        admission.admit().__enter__()
    others.held = 0
    with admission.admit(places=4):
        assert not admission.has_room()
    assert others.told == [1, 0, 4, 0]


async def test_who_holds_little_gets_in_beyond_the_capacity_only_as_far_as_all_processes_may() -> (
    None
):
    others = Others(held=4)
    admission = Admission(capacity=8, places=others)
    with ExitStack() as inside:
        for _ in range(4):
            inside.enter_context(admission.admit(client="greedy"))
        assert not admission.has_room(client="greedy")
        assert admission.has_room(client="modest")
        others.held = 6
        assert not admission.has_room(client="modest"), "8 and a quarter more are taken"
