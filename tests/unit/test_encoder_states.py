"""The encoder's state machine alone, and the supervisor, walked by Hypothesis."""

import asyncio
import threading
from collections.abc import Callable
from typing import get_args

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from application.model.states import (
    HEALTH,
    CallReturned,
    CallTimedOut,
    DeviceLost,
    Effect,
    Event,
    Failed,
    FaultReported,
    Free,
    Hung,
    IdleTimePassed,
    Lease,
    Load,
    Loaded,
    LoadFailed,
    Loading,
    Lost,
    ModelRequested,
    Ready,
    Reloading,
    State,
    Suspect,
    Unloaded,
    Upgrade,
    UpgradePrepared,
    VerificationFailed,
    VerificationPassed,
    VerificationPostponed,
    Verify,
    description_of,
    encoder_of,
    grant,
    load_pause_s,
    outstanding,
    refusal,
    reload_pause_s,
    transition,
    unavailable,
)
from application.ports import EncoderLost, EncoderPort, RawEmbeddings
from domain.embedding import Embedding
from domain.errors import EncoderFault, EncoderHung, EncoderSuspect, ModelNotReady
from tests.support.clock import FakeClock
from tests.support.encoders import (
    Loader,
    RecordingEncoder,
    pixels_of,
    supervisor,
    vector_of,
)
from tests.support.requests import Requests
from tests.support.supervision import supervised

ENCODER = RecordingEncoder()
OTHER = RecordingEncoder()

STATES: list[State] = [
    Loading(),
    Ready(ENCODER),
    Unloaded(ENCODER.description, 0),
    Unloaded(ENCODER.description, 0, loading=True),
    Unloaded(ENCODER.description, 0, failure="no memory"),
    Suspect(ENCODER, 0, "it returned NaN"),
    Reloading(ENCODER.description, 1, "it returned NaN"),
    Reloading(ENCODER.description, 1, "it returned NaN", "no memory", 3),
    Hung(ENCODER, 0),
    Hung(ENCODER, 0, calls=2),
    Failed(0, "no checkpoint"),
    Lost(0, "the GPU failed"),
]

EVENTS: list[Event] = [
    Loaded(OTHER),
    LoadFailed("no memory"),
    FaultReported(ENCODER, "it returned NaN"),
    FaultReported(OTHER, "it returned NaN"),
    CallTimedOut(),
    CallReturned(),
    VerificationPassed(ENCODER),
    VerificationPassed(OTHER),
    VerificationFailed(ENCODER, "NaN"),
    VerificationFailed(OTHER, "NaN"),
    VerificationPostponed(ENCODER),
    UpgradePrepared(ENCODER, OTHER),
    UpgradePrepared(OTHER, ENCODER),
    DeviceLost(ENCODER, "the GPU failed"),
    DeviceLost(OTHER, "the GPU failed"),
    DeviceLost(None, "the GPU failed"),
    IdleTimePassed(),
    ModelRequested(),
]


def named(value: object) -> str:
    return type(value).__name__


def test_every_state_and_event_is_among_the_examples() -> None:
    assert {type(state) for state in STATES} == set(get_args(State)) == set(HEALTH)
    assert {type(event) for event in EVENTS} == set(get_args(Event))


@pytest.mark.parametrize(
    ("state", "event", "after"),
    [
        (Loading(), Loaded(OTHER), Ready(OTHER)),
        (Loading(), LoadFailed("x"), Failed(0, "x")),
        (Failed(0, "x"), LoadFailed("y"), Failed(0, "y", 2)),
        (Failed(0, "x"), Loaded(OTHER), Ready(OTHER)),
        (Ready(ENCODER, 4), FaultReported(ENCODER, "x"), Suspect(ENCODER, 5, "x")),
        (Ready(ENCODER, 4), FaultReported(OTHER, "x"), Ready(ENCODER, 4)),
        (Ready(ENCODER, 4), UpgradePrepared(ENCODER, OTHER), Ready(OTHER, 4)),
        (Ready(ENCODER, 4), UpgradePrepared(OTHER, OTHER), Ready(ENCODER, 4)),
        (Ready(ENCODER, 4), IdleTimePassed(), Unloaded(ENCODER.description, 4)),
        (Ready(ENCODER, 4), CallTimedOut(), Hung(ENCODER, 5)),
        (Ready(ENCODER, 4), DeviceLost(ENCODER, "x"), Lost(4, "x")),
        (Suspect(ENCODER, 4, "x"), VerificationPassed(ENCODER), Ready(ENCODER, 4)),
        (
            Suspect(ENCODER, 4, "x"),
            VerificationFailed(ENCODER, "y"),
            Reloading(ENCODER.description, 4, "y"),
        ),
        (Suspect(ENCODER, 4, "x"), UpgradePrepared(ENCODER, OTHER), Suspect(ENCODER, 4, "x")),
        (Reloading(ENCODER.description, 5, "y"), Loaded(OTHER), Ready(OTHER, 5)),
        (Hung(ENCODER, 4), CallTimedOut(), Hung(ENCODER, 4, 2)),
        (Hung(ENCODER, 4, 2), CallReturned(), Hung(ENCODER, 4, 1)),
        (
            Unloaded(ENCODER.description, 4, failure="x"),
            ModelRequested(),
            Unloaded(ENCODER.description, 4, loading=True),
        ),
        (Unloaded(ENCODER.description, 4, loading=True), Loaded(OTHER), Ready(OTHER, 4)),
    ],
)
def test_transitions(state: State, event: Event, after: State) -> None:
    assert transition(state, event)[0] == after


@pytest.mark.parametrize("event", EVENTS, ids=named)
@pytest.mark.parametrize("state", STATES, ids=named)
def test_whatever_waits_for_something_has_it_done(state: State, event: Event) -> None:
    after, effects = transition(state, event)
    if after == state:
        assert effects == ()
        return
    match after:
        case Failed() | Reloading() | Unloaded(loading=True):
            assert Load in map(type, effects)
        case Suspect(encoder=encoder):
            assert any(isinstance(e, Verify) and e.encoder is encoder for e in effects)


def test_distrust_ends_older_leases_and_an_upgrade_does_not() -> None:
    lease = grant(Ready(ENCODER, 4))
    assert refusal(Ready(OTHER, 4), lease) is None
    refused = refusal(Ready(OTHER, 5), lease)
    assert isinstance(refused, EncoderSuspect)
    assert "while this request" in refused.detail


@pytest.mark.parametrize("event", EVENTS, ids=named)
def test_lost_is_the_end(event: Event) -> None:
    lost = Lost(3, "the GPU failed")
    assert transition(lost, event) == (lost, ())


@pytest.mark.parametrize("state", [s for s in STATES if not isinstance(s, Lost)], ids=named)
def test_every_other_state_has_a_way_out(state: State) -> None:
    assert any(type(transition(state, event)[0]) is not type(state) for event in EVENTS)


@pytest.mark.parametrize("state", STATES, ids=named)
def test_only_a_ready_state_grants_leases(state: State) -> None:
    assert HEALTH[type(state)].model_loaded == isinstance(state, Ready)
    if isinstance(state, Ready):
        lease = grant(state)
        assert refusal(state, lease) is None
        return
    refused = unavailable(state)
    with pytest.raises(type(refused)) as caught:
        grant(state)
    assert caught.value.code == refused.code
    assert refusal(state, Lease(ENCODER, 99)) is not None


def test_the_health_of_each_state() -> None:
    table = {
        named(state): (row.phase.value, row.model_loaded, row.alive, row.ready)
        for state in STATES
        for row in [HEALTH[type(state)]]
    }
    assert table == {
        "Loading": ("loading", False, True, False),
        "Ready": ("ready", True, True, True),
        "Unloaded": ("unloaded", False, True, True),
        "Suspect": ("suspect", False, True, False),
        "Reloading": ("reloading", False, True, False),
        "Hung": ("hung", False, False, False),
        "Failed": ("failed", False, True, False),
        "Lost": ("lost", False, False, False),
    }
    assert [named(state) for state in STATES if state.reason is None] == [
        "Ready",
        "Unloaded",
        "Unloaded",
    ]
    assert [state.reason for state in STATES if isinstance(state, Failed | Lost)] == [
        "no checkpoint",
        "the GPU failed",
    ]
    assert {type(unavailable(s)) for s in STATES if not isinstance(s, Ready)} == {
        ModelNotReady,
        EncoderSuspect,
        EncoderHung,
    }


def test_pauses_grow_and_have_an_end() -> None:
    assert [reload_pause_s(n) for n in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert [load_pause_s(n) for n in range(1, 8)] == [30, 60, 120, 240, 480, 900, 900]
    assert reload_pause_s(10_000) == 60


class EncoderStates(RuleBasedStateMachine):
    """Any event at any time, late and stray ones too; effects end in any way that they may."""

    def __init__(self) -> None:
        super().__init__()
        self.state: State = Loading()
        self.effects: list[Effect] = list(outstanding(self.state))
        self.hung_calls = 0
        self.leases: list[Lease] = []
        self.distrusted: list[EncoderPort] = []
        self.encoders: list[EncoderPort] = []

    def apply(self, event: Event) -> None:
        before = self.state
        self.state, effects = transition(before, event)
        self.effects += effects
        assert self.state.epoch in (before.epoch, before.epoch + 1)
        rises = self.state.epoch > before.epoch
        assert rises == (isinstance(before, Ready) and isinstance(self.state, Suspect | Hung))
        if isinstance(before, Suspect) and isinstance(self.state, Reloading):
            self.distrusted.append(before.encoder)

    def new_encoder(self) -> EncoderPort:
        self.encoders.append(RecordingEncoder())
        return self.encoders[-1]

    @initialize()
    def the_first_load_ends(self) -> None:
        self.effects.remove(Load())
        self.apply(Loaded(self.new_encoder()))

    @rule()
    def request(self) -> None:
        if isinstance(self.state, Ready):
            self.leases.append(grant(self.state))
        else:
            self.apply(ModelRequested())

    @precondition(lambda self: Load in map(type, self.effects))
    @rule(outcome=st.sampled_from(["loaded"] * 6 + ["failed"] * 3 + ["lost"]))
    def a_load_ends(self, outcome: str) -> None:
        self.effects.remove(next(e for e in self.effects if isinstance(e, Load)))
        ends: dict[str, Callable[[], Event]] = {
            "loaded": lambda: Loaded(self.new_encoder()),
            "failed": lambda: LoadFailed("no memory"),
            "lost": lambda: DeviceLost(None, "the GPU failed"),
        }
        self.apply(ends[outcome]())

    @precondition(lambda self: Verify in map(type, self.effects))
    @rule(outcome=st.sampled_from(["failed"] * 5 + ["passed"] * 2 + ["postponed", "lost", "hung"]))
    def a_verification_ends(self, outcome: str) -> None:
        effect = next(e for e in self.effects if isinstance(e, Verify))
        self.effects.remove(effect)
        if not (isinstance(self.state, Suspect) and self.state.encoder is effect.encoder):
            return  # as the supervisor does
        ends: dict[str, Event] = {
            "passed": VerificationPassed(effect.encoder),
            "failed": VerificationFailed(effect.encoder, "NaN"),
            "postponed": VerificationPostponed(effect.encoder),
            "lost": DeviceLost(effect.encoder, "the GPU failed"),
            "hung": CallTimedOut(),
        }
        self.hung_calls += outcome == "hung"
        self.apply(ends[outcome])

    @precondition(lambda self: Upgrade in map(type, self.effects) and self.encoders)
    @rule()
    def an_upgrade_is_prepared(self) -> None:
        self.effects.remove(Upgrade())
        serving = self.encoders[0]
        self.apply(UpgradePrepared(serving, self.new_encoder()))

    @precondition(lambda self: Free in map(type, self.effects))
    @rule()
    def memory_is_freed(self) -> None:
        self.effects.remove(Free())

    @precondition(lambda self: self.leases)
    @rule()
    def a_request_reports_a_fault(self) -> None:
        self.apply(FaultReported(self.leases[-1].encoder, "NaN"))

    @precondition(lambda self: self.encoders)
    @rule(data=st.data())
    def a_stray_fault_is_reported(self, data: st.DataObject) -> None:
        self.apply(FaultReported(data.draw(st.sampled_from(self.encoders)), "NaN"))

    @precondition(lambda self: encoder_of(self.state) is not None)
    @rule()
    def a_call_hangs(self) -> None:
        self.hung_calls += 1
        self.apply(CallTimedOut())

    @precondition(lambda self: self.hung_calls)
    @rule()
    def a_hung_call_returns(self) -> None:
        self.hung_calls -= 1
        self.apply(CallReturned())

    @precondition(lambda self: self.state.epoch > 1)  # or few walks would come far
    @rule(data=st.data())
    def a_device_is_lost(self, data: st.DataObject) -> None:
        self.apply(DeviceLost(data.draw(st.sampled_from(self.encoders)), "the GPU failed"))

    @precondition(lambda self: not self.leases)
    @rule()
    def nobody_asks(self) -> None:
        self.apply(IdleTimePassed())

    @precondition(lambda self: self.leases)
    @rule()
    def a_request_ends(self) -> None:
        self.leases.pop(0)

    @invariant()
    def nothing_is_sent_that_a_distrusted_encoder_made(self) -> None:
        for lease in self.leases:
            older = lease.epoch < self.state.epoch
            if older or lease.encoder in self.distrusted or not isinstance(self.state, Ready):
                assert refusal(self.state, lease) is not None
        if isinstance(self.state, Ready):
            assert self.state.encoder not in self.distrusted
            assert all(
                refusal(self.state, lease) is None
                for lease in self.leases
                if lease.epoch == self.state.epoch
            )

    @invariant()
    def there_is_always_a_way_on(self) -> None:
        match self.state:
            case Loading() | Failed() | Reloading() | Unloaded(loading=True):
                assert Load in map(type, self.effects)
            case Suspect(encoder=encoder):
                assert any(isinstance(e, Verify) and e.encoder is encoder for e in self.effects)
            case Hung(calls=calls):
                assert calls == self.hung_calls
            case Ready() | Unloaded() | Lost():
                pass

    @invariant()
    def what_is_told_fits(self) -> None:
        assert (encoder_of(self.state) is None) or description_of(self.state) is not None
        assert HEALTH[type(self.state)].alive != isinstance(self.state, Hung | Lost)


EncoderStates.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestEncoderStates = EncoderStates.TestCase


class Orders:
    """What all encoders of a scenario do next, and what becomes of one that did something wrong."""

    def __init__(self, afterwards: str) -> None:
        self.now = "good"
        self.afterwards = afterwards
        self.may_return = threading.Event()
        self.may_return.set()
        self.hanging = 0

    def give(self, order: str) -> None:
        self.now = order
        if order == "hang":
            self.may_return.clear()
        else:
            self.may_return.set()


class Moody(RecordingEncoder):
    """Follows orders. Once it has done something wrong, it may stay wrong or lose its device."""

    def __init__(self, orders: Orders) -> None:
        super().__init__()
        self._orders = orders
        self._spoilt = False
        self.response = self._moody

    def _moody(self, rows: RawEmbeddings) -> RawEmbeddings:
        order = self._orders.now
        if order == "good":
            order = self._orders.afterwards if self._spoilt else "good"
        self._spoilt = self._spoilt or order != "good"
        match order:
            case "nan":
                return np.full_like(rows, np.nan)
            case "other":
                return np.roll(rows, 1, axis=1)
            case "raise":
                raise RuntimeError("out of resources")
            case "lost":
                raise EncoderLost("the GPU failed.")
            case "hang":
                self._orders.hanging += 1
                assert self._orders.may_return.wait(10)
                self._orders.hanging -= 1
        return rows


class Scenario:
    """A supervised encoder that follows orders, and the requests that were made."""

    def __init__(self, afterwards: str) -> None:
        self.orders = Orders(afterwards)
        self.clock = FakeClock()
        self.model = supervisor(
            Loader(lambda: Moody(self.orders)), clock=self.clock, call_timeout_s=0.02, idle_s=1000
        )
        # One that stays wrong is found out by the verification, and so not before it: a batch that
        # failed would be tried singly.
        self.requests = Requests(self.model, max_batch=1 if afterwards == "other" else 3)
        self.asked: list[tuple[int, asyncio.Task[Embedding]]] = []

    async def play(self, number: int, what: str) -> None:
        match what:
            case "ask":
                request = self.requests.encode_image(pixels_of(number))
                self.asked.append((number, asyncio.create_task(request)))
            case "pause":
                await asyncio.sleep(0.003)
            case "time":
                await self.clock.advance(60)
            case "idle":
                await self.clock.advance(1000)
            case order:
                await self._until_a_hanging_call_is_noticed()
                self.orders.give(order)

    async def _until_a_hanging_call_is_noticed(self) -> None:
        """Or it would be none: one that returns in time has done nothing wrong."""
        for _ in range(500):
            if not self.orders.hanging or self.model.health.phase != "ready":
                return
            await asyncio.sleep(0.002)
        raise AssertionError("nobody noticed")

    async def patiently(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds():
                await self.clock.advance(60)
                await asyncio.sleep(0.002)

    async def end(self) -> None:
        """Everyone gets a response; and whatever happened, it comes back, unless it is lost."""
        await self._until_a_hanging_call_is_noticed()
        self.orders.give("good")
        await self.patiently(lambda: all(task.done() for _, task in self.asked))
        for number, task in self.asked:
            if (failure := task.exception()) is None:
                np.testing.assert_allclose(task.result().vector, vector_of(number), atol=1e-6)
            else:
                assert isinstance(failure, ALLOWED)
        async with asyncio.timeout(20):
            while not await self._serves_or_is_lost():
                pass

    async def _serves_or_is_lost(self) -> bool:
        # A load in progress may have begun while the orders were bad, and all share its failure.
        await self.patiently(
            lambda: (
                self.model.health.phase in {"ready", "unloaded", "lost"}
                and not (isinstance(self.model.state, Unloaded) and self.model.state.loading)
            )
        )
        if self.model.health.phase == "lost":
            return True
        try:
            again = await self.requests.encode_image(pixels_of(7))
        except EncoderHung:  # on a busy machine a good call may take longer than is allowed here
            return False
        np.testing.assert_allclose(again.vector, vector_of(7), atol=1e-6)
        return True


ALLOWED = (EncoderFault, RuntimeError, EncoderSuspect, EncoderHung, ModelNotReady)

step = st.sampled_from(["ask"] * 5 + ["nan", "raise", "hang", "good", "good", "pause", "idle"])


@settings(max_examples=40, deadline=None)
@given(st.lists(step, min_size=1, max_size=40), st.sampled_from(["good", "good", "other", "lost"]))
def test_every_request_gets_its_own_embedding_or_an_error(
    steps: list[str], afterwards: str
) -> None:
    """The supervisor at work: none is lost, none gets what a suspect encoder made."""

    async def scenario() -> None:
        played = Scenario(afterwards)
        async with supervised(played.model):
            for number, what in enumerate(steps):
                await played.play(number, what)
            await played.end()

    asyncio.run(scenario())
