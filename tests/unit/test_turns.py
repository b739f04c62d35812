"""Who is started next when more requests are there than can be started at once."""

import asyncio
from functools import partial

from entrypoints.server.turns import Kind, Turns


async def passes(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_nobody_waits_where_there_are_few() -> None:
    turns, started = Turns(asyncio.get_running_loop()), list[int]()
    for number in range(10):
        turns.wait(partial(started.append, number), last_turn_s=float(number), kind=Kind.READ)
        assert started[-1] == number
        await passes(2)


async def test_a_pass_is_as_long_as_a_few_requests() -> None:
    turns, started = Turns(asyncio.get_running_loop()), list[int]()
    for number in range(100):
        turns.wait(partial(started.append, number), last_turn_s=0.0, kind=Kind.READ)
    before = len(started)
    assert before < 10
    await passes(1)
    assert len(started) - before < 10
    await passes(100)
    assert sorted(started) == list(range(100))


async def test_the_longest_without_a_turn_is_next() -> None:
    turns, started = Turns(asyncio.get_running_loop()), list[str]()
    for _ in range(900):
        turns.wait(lambda: started.append("busy"), last_turn_s=50.0, kind=Kind.READ)
    turns.wait(lambda: started.append("seldom"), last_turn_s=49.0, kind=Kind.READ)
    turns.wait(lambda: started.append("new"), last_turn_s=None, kind=Kind.READ)
    await passes(3)
    assert {"seldom", "new"} <= set(started)
    assert len(started) < 20


async def test_new_connections_do_not_keep_others_waiting() -> None:
    turns, started = Turns(asyncio.get_running_loop()), list[str]()
    for _ in range(900):
        turns.wait(lambda: started.append("new"), last_turn_s=None, kind=Kind.READ)
    turns.wait(lambda: started.append("kept"), last_turn_s=1.0, kind=Kind.READ)
    await passes(3)
    assert "kept" in started
    assert len(started) < 20


async def test_the_kinds_take_turns() -> None:
    turns, started = Turns(asyncio.get_running_loop()), list[str]()
    for _ in range(900):
        turns.wait(lambda: started.append("new"), last_turn_s=None, kind=Kind.READ)
    turns.wait(lambda: started.append("probe"), last_turn_s=None, kind=Kind.PROBE)
    for _ in range(900):
        turns.wait(lambda: started.append("probes"), last_turn_s=None, kind=Kind.PROBE)
    turns.wait(lambda: started.append("kept"), last_turn_s=1.0, kind=Kind.WORK)
    await passes(3)
    assert {"new", "probe", "kept"} <= set(started)
    assert len(started) < 20
