"""What is costly to make is made as often as is affordable."""

from adapters.observability.rationing import Rationed


class Maker:
    """Takes its time by a clock of its own."""

    def __init__(self, seconds: float) -> None:
        self.now_s = 0.0
        self.made = 0
        self._seconds = seconds

    def __call__(self) -> int:
        self.made += 1
        self.now_s += self._seconds
        return self.made


def test_those_who_ask_now_and_then_get_a_fresh_one() -> None:
    maker = Maker(0.006)
    rationed: Rationed[int] = Rationed(lambda: maker.now_s)
    for number in range(1, 100):
        assert rationed.get("page", maker) == number
        maker.now_s += 1


def test_a_flood_gets_the_last_one_again() -> None:
    maker = Maker(0.006)
    rationed: Rationed[int] = Rationed(lambda: maker.now_s)
    for _ in range(10_000):
        rationed.get("page", maker)
        maker.now_s += 0.001
    spent_s = maker.made * 0.006
    # A twentieth of the time, and what was saved up.
    assert spent_s <= maker.now_s * 0.05 + 0.1 + 0.006
    assert rationed.get("page", maker) == maker.made


def test_another_kind_is_made_even_in_a_flood() -> None:
    maker = Maker(10)
    rationed: Rationed[int] = Rationed(lambda: maker.now_s)
    assert rationed.get("page", maker) == 1
    assert rationed.get("other", maker) == 2
    assert rationed.get("page", maker) == 1


def test_few_kinds_are_kept() -> None:
    maker = Maker(0.0)
    rationed: Rationed[int] = Rationed(lambda: maker.now_s)
    for kind in range(1000):
        rationed.get(kind, maker)
    assert len(rationed._kept) <= 8
