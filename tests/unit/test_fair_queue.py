"""Clients take turns."""

from application.inference.fair_queue import FairQueue


def drained(queue: FairQueue[str]) -> str:
    taken = ""
    while (item := queue.pop()) is not None:
        taken += item
    return taken


def test_one_client_is_served_in_order() -> None:
    queue: FairQueue[str] = FairQueue()
    for item in "abc":
        queue.append(item, "one")
    assert len(queue) == 3
    assert drained(queue) == "abc"
    assert len(queue) == 0


def test_clients_take_turns() -> None:
    queue: FairQueue[str] = FairQueue()
    for item in "abcdef":
        queue.append(item, "much")
    queue.append("1", "little")
    assert queue.pop() == "a"
    queue.append("x", "other")
    assert drained(queue) == "1bxcdef"


def test_coming_back_again_and_again_gives_no_more_turns_than_waiting() -> None:
    queue: FairQueue[str] = FairQueue()
    for item in "aaa":
        queue.append(item, "patient")
    taken = ""
    queue.append("b", "eager")
    while (served := queue.pop()) is not None:
        taken += served
        if served == "b" and taken.count("b") < 3:
            queue.append("b", "eager")
    assert taken == "ababab"


def test_only_what_fits_is_taken_and_the_others_keep_their_turn() -> None:
    queue: FairQueue[str] = FairQueue()
    for item in ("A", "a"):
        queue.append(item, "one")
    queue.append("B", "two")
    for item in ("C", "c"):
        queue.append(item, "three")
    assert queue.pop(str.islower) == "a"
    assert queue.pop(str.islower) == "c"
    assert queue.pop(str.islower) is None
    # Whoever had a turn goes behind the client that had none.
    assert drained(queue) == "BAC"


def test_what_nobody_waits_for_is_dropped() -> None:
    queue: FairQueue[str] = FairQueue(gone=lambda item: item == "x")
    for client in ("one", "two"):
        for item in ("x", client, "x"):
            queue.append(item, client)
    queue.append("x", "three")
    assert drained(queue) == "onetwo"
    assert len(queue) == 0
    assert not list(queue)
