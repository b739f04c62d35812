"""The encoder's life as a state machine: states, events, and one transition function.

Everything here is a value or a pure function. `Supervisor` keeps the current state, hands events to
`transition` and carries out the effects that come back.

::

    Loading ──▶ Ready ──▶ Unloaded          (idle; the next request loads it again)
       │        │  ▲ ◀────────┘
       ▼        ▼  │
    Failed   Suspect ──▶ Reloading ──▶ Ready   (it failed its verification)
                ▲
               Hung                         (a call does not return)

The epoch rises whenever a ready encoder becomes suspect or hangs: leases from before end there.

    Lost: the device failed for good. The only state without a way out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final, TypeAlias, assert_never

from application.ports import EncoderDescription, EncoderPort, ImageInput
from domain.errors import EncoderHung, EncoderSuspect, ModelNotReady, ServiceUnavailable

_STILL_LOADING: Final = "the model is still being loaded."
_HUNG: Final = (
    "a call to the encoder has not returned in time. It cannot be interrupted: unless it returns "
    "after all, the server must be restarted."
)

# --- States -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Loading:
    """The first load."""

    epoch: int = 0

    @property
    def reason(self) -> str:
        """See `State`."""
        return _STILL_LOADING


@dataclass(frozen=True, slots=True)
class Ready:
    """Requests get leases of the encoder.

    Attributes:
        encoder: the encoder of new leases.
        epoch: how often an encoder has become suspect or hung before.
    """

    encoder: EncoderPort
    epoch: int = 0

    @property
    def reason(self) -> None:
        """See `State`."""


@dataclass(frozen=True, slots=True)
class Unloaded:
    """Unloaded because there was no request for a while; the next request loads it again.

    Attributes:
        description: what was loaded.
        epoch: as before.
        loading: whether it is being loaded again.
        failure: why the last such load failed, else None.
    """

    description: EncoderDescription
    epoch: int
    loading: bool = False
    failure: str | None = None

    @property
    def reason(self) -> str | None:
        """See `State`."""
        return self.failure


@dataclass(frozen=True, slots=True)
class Suspect:
    """The encoder is suspect: it serves no request until it passes its verification.

    Attributes:
        encoder: the encoder being verified.
        epoch: one more than when it was ready.
        fault: what it did, as the end of a sentence.
        attempts: verifications that ran out of memory.
    """

    encoder: EncoderPort
    epoch: int
    fault: str
    attempts: int = 0

    @property
    def reason(self) -> str:
        """See `State`."""
        return f"the encoder is being verified, because {self.fault}."


@dataclass(frozen=True, slots=True)
class Reloading:
    """The encoder failed its verification and was dropped; another one is being loaded.

    Attributes:
        description: what the dropped encoder was.
        epoch: as before.
        fault: how it failed.
        failure: why the last load failed, else None.
        attempts: loads that failed.
    """

    description: EncoderDescription
    epoch: int
    fault: str
    failure: str | None = None
    attempts: int = 0

    @property
    def reason(self) -> str:
        """See `State`."""
        if self.failure is None:
            return f"the encoder failed its verification ({self.fault}) and is being reloaded."
        return f"the encoder failed its verification, and reloading it failed too: {self.failure}"


@dataclass(frozen=True, slots=True)
class Hung:
    """Calls to the encoder do not return, and they cannot be interrupted.

    Attributes:
        encoder: the current encoder.
        epoch: one more than when it was ready.
        calls: how many of them.
    """

    encoder: EncoderPort
    epoch: int
    calls: int = 1

    @property
    def reason(self) -> str:
        """See `State`."""
        return _HUNG


@dataclass(frozen=True, slots=True)
class Failed:
    """No model could be loaded so far. Loading is retried after a while.

    Attributes:
        epoch: as before.
        reason: why, in words for clients.
        attempts: loads that failed.
    """

    epoch: int
    reason: str
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Lost:
    """The device failed for good. Only a new process can help."""

    epoch: int
    reason: str


State: TypeAlias = Loading | Ready | Unloaded | Suspect | Reloading | Hung | Failed | Lost
"""Each has an ``epoch``, and a ``reason`` why the service is not healthy (None if it is)."""


# --- Events -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Loaded:
    """A load succeeded, and so did the verification that belongs to it."""

    encoder: EncoderPort


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """A load failed; ``failure`` is worded for clients."""

    failure: str


@dataclass(frozen=True, slots=True)
class FaultReported:
    """A call to the encoder raised, or returned something that is not embeddings."""

    encoder: EncoderPort
    fault: str


@dataclass(frozen=True, slots=True)
class CallTimedOut:
    """A call has not returned in time."""


@dataclass(frozen=True, slots=True)
class CallReturned:
    """A call that had timed out returned after all."""


@dataclass(frozen=True, slots=True)
class VerificationPassed:
    """The encoder returned the same embeddings of the test input as before."""

    encoder: EncoderPort


@dataclass(frozen=True, slots=True)
class VerificationFailed:
    """The encoder returned different embeddings of the test input, or raised."""

    encoder: EncoderPort
    fault: str


@dataclass(frozen=True, slots=True)
class VerificationPostponed:
    """The verification ran out of memory, which says nothing about the encoder."""

    encoder: EncoderPort


@dataclass(frozen=True, slots=True)
class UpgradePrepared:
    """A faster encoder that agrees with ``serving`` is ready to take over from it."""

    serving: EncoderPort
    faster: EncoderPort


@dataclass(frozen=True, slots=True)
class DeviceLost:
    """The device of ``encoder`` failed for good; None: of the one that was being loaded."""

    encoder: EncoderPort | None
    reason: str


@dataclass(frozen=True, slots=True)
class IdleTimePassed:
    """No request has held a lease for the idle time."""


@dataclass(frozen=True, slots=True)
class ModelRequested:
    """A request needs the model."""


Event: TypeAlias = (
    Loaded
    | LoadFailed
    | FaultReported
    | CallTimedOut
    | CallReturned
    | VerificationPassed
    | VerificationFailed
    | VerificationPostponed
    | UpgradePrepared
    | DeviceLost
    | IdleTimePassed
    | ModelRequested
)


# --- Effects ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Load:
    """Load an encoder after this many seconds; ends in `Loaded`, `LoadFailed` or `DeviceLost`."""

    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Verify:
    """Verify the encoder after this many seconds, once no call of it is running.

    Ends in one of the verification's events, in `DeviceLost`, or in `CallTimedOut`.
    """

    encoder: EncoderPort
    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Free:
    """Drop encoders that are no longer used, and give memory back to the system and the device."""


@dataclass(frozen=True, slots=True)
class Upgrade:
    """Prepare a faster encoder in the background; may end in `UpgradePrepared`."""


Effect: TypeAlias = Load | Verify | Free | Upgrade

_FIRST_RELOAD_PAUSE_S: Final = 1.0
_LONGEST_RELOAD_PAUSE_S: Final = 60.0
_FIRST_LOAD_PAUSE_S: Final = 30.0
_LONGEST_LOAD_PAUSE_S: Final = 900.0
"""After a first load failed: somebody may have to fix something, and a load takes minutes."""


def reload_pause_s(attempts: int) -> float:
    """Seconds to wait after this many failed attempts to reload or verify: 1, 2, 4, … 60."""
    return _pause_s(_FIRST_RELOAD_PAUSE_S, _LONGEST_RELOAD_PAUSE_S, attempts)


def load_pause_s(attempts: int) -> float:
    """Seconds to wait after this many failed first loads: 30, 60, 120, … 900."""
    return _pause_s(_FIRST_LOAD_PAUSE_S, _LONGEST_LOAD_PAUSE_S, attempts)


def _pause_s(first_s: float, longest_s: float, attempts: int) -> float:
    doublings = min(attempts - 1, 16)  # or the power would overflow one day
    return min(first_s * 2.0**doublings, longest_s)


# --- The machine ------------------------------------------------------------------------------

Step: TypeAlias = tuple[State, tuple[Effect, ...]]


def transition(state: State, event: Event) -> Step:  # noqa: PLR0911 one for each state
    """The next state, and the effects to carry out.

    An event that does not apply in the current state is ignored: it came from an encoder that is no
    longer the current one, or came too late.
    """
    match state:
        case Loading() | Failed():
            return _before_the_first_load(state, event)
        case Ready():
            return _ready(state, event)
        case Unloaded():
            return _unloaded(state, event)
        case Suspect():
            return _suspect(state, event)
        case Reloading():
            return _reloading(state, event)
        case Hung():
            return _hung(state, event)
        case Lost():
            return state, ()
    assert_never(state)


def outstanding(state: State) -> tuple[Effect, ...]:
    """The effects of a state that was reached before the supervisor ran."""
    match state:
        case Loading() | Failed() | Reloading():
            return (Load(),)
        case Ready():
            return (Upgrade(),)
        case Suspect():
            return (Verify(state.encoder),)
        case Unloaded() | Hung() | Lost():
            return ()
    assert_never(state)


def _before_the_first_load(state: Loading | Failed, event: Event) -> Step:
    match event:
        case Loaded(encoder):
            return Ready(encoder, state.epoch), (Free(), Upgrade())
        case LoadFailed(failure):
            attempts = state.attempts + 1 if isinstance(state, Failed) else 1
            return Failed(state.epoch, failure, attempts), (Load(load_pause_s(attempts)),)
        case DeviceLost(None, reason):
            return Lost(state.epoch, reason), ()
        case _:
            return state, ()


def _ready(state: Ready, event: Event) -> Step:
    match event:
        case FaultReported(encoder, fault) if encoder is state.encoder:
            return Suspect(encoder, state.epoch + 1, fault), (Verify(encoder),)
        case CallTimedOut():
            return Hung(state.encoder, state.epoch + 1), ()
        case UpgradePrepared(serving, faster) if serving is state.encoder:
            # Leases of the slower encoder stay valid: it is not suspect.
            return Ready(faster, state.epoch), ()
        case DeviceLost(encoder, reason) if encoder is state.encoder:
            return Lost(state.epoch, reason), ()
        case IdleTimePassed():
            return Unloaded(state.encoder.description, state.epoch), (Free(),)
        case _:
            return state, ()


def _unloaded(state: Unloaded, event: Event) -> Step:
    match event:
        case ModelRequested() if not state.loading:
            return replace(state, loading=True, failure=None), (Load(),)
        case Loaded(encoder):
            return Ready(encoder, state.epoch), (Free(),)
        case LoadFailed(failure):
            return replace(state, loading=False, failure=failure), ()
        case DeviceLost(None, reason):
            return Lost(state.epoch, reason), ()
        case _:
            return state, ()


def _suspect(state: Suspect, event: Event) -> Step:
    match event:
        case VerificationPassed(encoder) if encoder is state.encoder:
            return Ready(encoder, state.epoch), ()
        case VerificationFailed(encoder, fault) if encoder is state.encoder:
            reloading = Reloading(encoder.description, state.epoch, fault)
            return reloading, (Free(), Load())  # freed first: there may be no room for two
        case VerificationPostponed(encoder) if encoder is state.encoder:
            attempts = state.attempts + 1
            return replace(state, attempts=attempts), (Verify(encoder, reload_pause_s(attempts)),)
        case CallTimedOut():
            return Hung(state.encoder, state.epoch), ()
        case DeviceLost(encoder, reason) if encoder is state.encoder:
            return Lost(state.epoch, reason), ()
        case _:
            return state, ()


def _reloading(state: Reloading, event: Event) -> Step:
    match event:
        case Loaded(encoder):
            return Ready(encoder, state.epoch), (Free(),)
        case LoadFailed(failure):
            attempts = state.attempts + 1
            again = replace(state, failure=failure, attempts=attempts)
            return again, (Free(), Load(reload_pause_s(attempts)))
        case DeviceLost(None, reason):
            return Lost(state.epoch, reason), ()
        case _:
            return state, ()


def _hung(state: Hung, event: Event) -> Step:
    match event:
        case CallTimedOut():
            return replace(state, calls=state.calls + 1), ()
        case CallReturned() if state.calls > 1:
            return replace(state, calls=state.calls - 1), ()
        case CallReturned():
            fault = "a call to it took far too long"
            return Suspect(state.encoder, state.epoch, fault), (Verify(state.encoder),)
        case DeviceLost(encoder, reason) if encoder is state.encoder:
            return Lost(state.epoch, reason), ()
        case _:
            return state, ()


# --- Leases -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lease:
    """A request's hold on one encoder, from admission to response.

    Attributes:
        encoder: serves the whole request, even if another encoder takes over meanwhile.
        epoch: of the state in which it was granted. Once an encoder has become suspect, results
            of an older epoch are not sent, even if it then passes its verification.
        client: who sent the request, an address or a key; requests without one count as one client.
    """

    encoder: EncoderPort
    epoch: int
    client: str = ""

    @property
    def image_input(self) -> ImageInput:
        """What the encoder's image tower takes."""
        return self.encoder.description.image_input


def grant(state: State, *, client: str = "") -> Lease:
    """A lease of the current encoder for a request of one client.

    Raises:
        ServiceUnavailable: as `unavailable` says.
    """
    if isinstance(state, Ready):
        return Lease(state.encoder, state.epoch, client)
    raise unavailable(state)


def refusal(state: State, lease: Lease) -> ServiceUnavailable | None:
    """Why the lease's encoder must not be called nor its results sent; None if they may."""
    if not isinstance(state, Ready):
        return unavailable(state)
    if lease.epoch < state.epoch:
        return EncoderSuspect(
            "the encoder became suspect while this request was in progress.",
            retry_after_s=2,
        )
    return None


def unavailable(
    state: Loading | Unloaded | Suspect | Reloading | Hung | Failed | Lost,
    *,
    progress: str | None = None,
) -> ServiceUnavailable:
    """The error for a request in this state.

    Args:
        state: the current state.
        progress: what the loader is doing, see `EncoderLoaderPort.progress`.
    """
    match state:
        case Suspect() | Reloading():
            return EncoderSuspect(state.reason, retry_after_s=2)
        case Hung():
            return EncoderHung(state.reason, retry_after_s=30)
        case Loading() | Unloaded(failure=None):
            return ModelNotReady(progress or _STILL_LOADING, code="model_starting", retry_after_s=5)
        case Unloaded() | Failed() | Lost():
            return ModelNotReady(
                f"no model is loaded: {state.reason}", code="model_not_loaded", retry_after_s=30
            )
    assert_never(state)


# --- Health -----------------------------------------------------------------------------------


class Phase(StrEnum):
    """A state's name."""

    LOADING = "loading"
    READY = "ready"
    UNLOADED = "unloaded"
    SUSPECT = "suspect"
    RELOADING = "reloading"
    HUNG = "hung"
    FAILED = "failed"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class HealthRow:
    """What a state means for probes and people.

    Attributes:
        phase: its name.
        model_loaded: whether a usable model is in memory.
        alive: False if only a restart of the process helps; probes and watchdogs then restart it.
        ready: whether a request sent now would be accepted.
    """

    phase: Phase
    model_loaded: bool
    alive: bool
    ready: bool


HEALTH: Final[Mapping[type[State], HealthRow]] = MappingProxyType(
    {
        # state                phase            model_loaded  alive  ready
        Loading: HealthRow(Phase.LOADING, False, True, False),
        Ready: HealthRow(Phase.READY, True, True, True),
        Unloaded: HealthRow(Phase.UNLOADED, False, True, True),
        Suspect: HealthRow(Phase.SUSPECT, False, True, False),
        Reloading: HealthRow(Phase.RELOADING, False, True, False),
        Hung: HealthRow(Phase.HUNG, False, False, False),
        Failed: HealthRow(Phase.FAILED, False, True, False),
        Lost: HealthRow(Phase.LOST, False, False, False),
    }
)
"""One row for each state. The state adds the reason; a state with a reason is degraded."""


def encoder_of(state: State) -> EncoderPort | None:
    """The encoder in memory, usable or not; else None."""
    return state.encoder if isinstance(state, Ready | Suspect | Hung) else None


def description_of(state: State) -> EncoderDescription | None:
    """The model that is loaded, or was unloaded and will be loaded again; else None."""
    match state:
        case Ready() | Suspect() | Hung():
            return state.encoder.description
        case Unloaded() | Reloading():
            return state.description
        case Loading() | Failed() | Lost():
            return None
    assert_never(state)
