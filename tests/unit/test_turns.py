"""Who is started next when more requests are there than can be started at once."""

import asyncio
from functools import partial

from entrypoints.server.turns import Turns


async def passes(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_nobody_waits_where_there_are_few() -> None:
    turns, started = Turns(asyncio.get_running_loop()), list[int]()
    for number in range(10):
        turns.wait(float(number), partial(started.append, number))
        assert started[-1] == number
        await passes(2)


async def test_a_pass_is_as_long_as_a_few_requests() -> None:
    turns, started = Turns(asyncio.get_running_loop()), list[int]()
    for number in range(100):
        turns.wait(0.0, partial(started.append, number))
    before = len(started)
    assert before < 10
    await passes(1)
    assert len(started) - before < 10
    await passes(100)
    assert sorted(started) == list(range(100))


async def test_the_longest_without_a_turn_is_next() -> None:
    turns, started = Turns(asyncio.get_running_loop()), list[str]()
    for _ in range(900):
        turns.wait(50.0, lambda: started.append("busy"))
    turns.wait(49.0, lambda: started.append("seldom"))
    turns.wait(None, lambda: started.append("new"))
    await passes(3)
    assert {"seldom", "new"} <= set(started)
    assert len(started) < 20


async def test_new_connections_do_not_keep_others_waiting() -> None:
    turns, started = Turns(asyncio.get_running_loop()), list[str]()
    for _ in range(900):
        turns.wait(None, lambda: started.append("new"))
    turns.wait(1.0, lambda: started.append("kept"))
    await passes(3)
    assert "kept" in started
    assert len(started) < 20
