"""How processes that serve together share what the settings allow."""

import multiprocessing

import pytest

from adapters.system.process_table import ProcessTable, SharedPlaces
from entrypoints.processes.count import http_processes
from entrypoints.processes.parent import share_of
from entrypoints.settings import LEAST_BODY_MIB, Settings


def test_each_process_sees_what_the_others_hold() -> None:
    table = ProcessTable(multiprocessing.get_context("spawn"), 3)
    one, another = SharedPlaces(table, 1), SharedPlaces(table, 2)
    one.hold(5)
    another.hold(2)
    assert (one.held_elsewhere(), another.held_elsewhere(), table.held()) == (2, 5, 7)
    table.hold(1, 0)
    assert another.held_elsewhere() == 0


def test_a_process_is_silent_since_it_was_last_seen() -> None:
    table = ProcessTable(multiprocessing.get_context("spawn"), 2)
    table.seen(0)
    assert 0 <= table.silent_s(0) < 60
    assert table.silent_s(1) > table.silent_s(0), "that one was never seen"


def test_one_process_without_a_model_is_enough_to_refuse() -> None:
    table = ProcessTable(multiprocessing.get_context("spawn"), 3)
    assert not table.any_refuses()
    table.refuse(2, True)
    assert table.any_refuses()
    table.refuse(1, False)
    assert table.any_refuses()
    table.refuse(2, False)
    assert not table.any_refuses()


def test_limits_of_connections_and_memory_are_shared_out() -> None:
    whole = Settings(max_connections=1000, max_body_memory_mib=10 * LEAST_BODY_MIB)
    share = share_of(whole, 3)
    assert share.max_connections == 334
    assert share.max_body_memory_mib == 10 * LEAST_BODY_MIB // 3
    assert share.max_requests == whole.max_requests, "those are counted together"
    assert share_of(whole, 64).max_body_memory_mib == LEAST_BODY_MIB


@pytest.mark.parametrize("asked", [1, 5])
def test_as_many_as_asked_for(asked: int) -> None:
    assert http_processes(asked, card=True, cores=2) == asked


@pytest.mark.parametrize(
    ("card", "cores", "processes"),
    [(False, 64, 1), (True, 1, 1), (True, 2, 1), (True, 8, 4), (True, 128, 8)],
)
def test_one_on_a_processor_and_several_before_a_card(
    card: bool, cores: int, processes: int
) -> None:
    assert http_processes(None, card=card, cores=cores) == processes
