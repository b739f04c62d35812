"""The encoder's supervisor: grants leases, makes the calls, and keeps the encoder trustworthy."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, nullcontext
from typing import Any, Final, TypeVar, assert_never

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
    HealthRow,
    IdleTimePassed,
    Lease,
    Load,
    Loaded,
    LoadFailed,
    Loading,
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
    outstanding,
    refusal,
    transition,
    unavailable,
)
from application.model.upgrade import EncodersDisagree, faster_encoder
from application.model.verification import Verification
from application.ports import (
    MOST_CONCURRENT_CALLS,
    UNOBSERVED,
    ClockPort,
    Device,
    EncoderDescription,
    EncoderLoaderPort,
    EncoderLost,
    EncoderMeasurementPort,
    EncoderPort,
    EncoderUnavailable,
    EncoderUpgradePort,
    HardwareMissing,
    MemoryPort,
    ObserverPort,
)
from domain.errors import (
    ClipError,
    EncoderFault,
    EncoderHung,
    ModelNotReady,
    ServiceUnavailable,
)
from domain.limits import MAX_RELOAD_SECONDS

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

UPGRADING = "a faster encoder is being built; requests are served meanwhile."
_REPLACED = "the serving encoder was replaced or suspect when the faster one was ready."
_UNEXPECTED_UPGRADE = (
    "building a faster encoder failed unexpectedly; the server's log has the reason."
)
_UNEXPECTED_LOAD = "loading it failed unexpectedly; the server's log has the reason."

_FORGETTING_S: Final = 1.0

QUIET_S: Final = 10.0
"""How long the server must be idle before encoders are measured."""

LONGEST_QUIET_S: Final = 600.0
"""Each interrupted measurement doubles the wait, up to this."""

_REPEAT_PAUSE_S: Final = 60.0
"""How long to wait before retrying an effect that failed unexpectedly."""


class Supervisor:
    """Owns the encoder and its state (`application.model.states`).

    Every call to the encoder goes through `call` and needs a lease. While `run` is running, an
    encoder that misbehaves becomes suspect and is verified or reloaded; a hung call is noticed; an
    idle model is unloaded; a faster encoder is prepared; and other encoders are measured while the
    server is idle. Without `run`, as on the command line, there is only `load`: a fault then fails
    only its own call.

    Used from one event loop at a time.
    """

    def __init__(
        self,
        loader: EncoderLoaderPort,
        *,
        memory: MemoryPort,
        clock: ClockPort,
        upgrade: EncoderUpgradePort,
        measurement: EncoderMeasurementPort | None = None,
        observer: ObserverPort = UNOBSERVED,
        concurrent_calls: int = 1,
        call_timeout_s: float | None = None,
        idle_s: float | None = None,
        state: State | None = None,
    ) -> None:
        """Supervise the encoder that ``loader`` loads.

        Args:
            loader: loads the encoder.
            memory: gives freed memory back to the system.
            clock: for pauses and idle time.
            upgrade: prepares a faster encoder.
            measurement: measures other encoders after the upgrade; None: nothing is measured.
            observer: is notified of faults, hung calls and reloads.
            concurrent_calls: concurrent calls of any encoder. 1: as many as the loaded encoder
                accepts.
            call_timeout_s: seconds after which a call counts as hung; None: never.
            idle_s: seconds without a request after which the model is unloaded; None: never.
            state: the initial state; None: nothing is loaded yet.
        """
        self._loader = loader
        self._memory = memory
        self._clock = clock
        self._upgrade = upgrade
        self._measurement = measurement
        self._measures = False
        self._stop_measuring: threading.Event | None = None
        self._observer = observer
        self._call_timeout_s = call_timeout_s
        self._idle_s = idle_s
        self._state: State = Loading() if state is None else state
        self._device: Device | None = None
        self._upgrade_reason: str | None = None
        self._verification = Verification()
        self._concurrent_calls = concurrent_calls
        self._threads = ThreadPoolExecutor(
            max(concurrent_calls, MOST_CONCURRENT_CALLS), thread_name_prefix="encoder"
        )
        # During a switch-over there may be as many calls as the new encoder accepts.
        self._one_at_a_time = threading.Lock()
        self._calls: set[asyncio.Future[Any]] = set()
        self._dropped: list[EncoderPort] = []  # until a thread frees them
        self._leases = 0
        self._idle_since_s = 0.0
        self._effects: asyncio.Queue[Effect] | None = None
        self._waiting_for_change: set[asyncio.Future[None]] = set()

    # --- The current state --------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The current state."""
        return self._state

    @property
    def health(self) -> HealthRow:
        """How the health endpoints report the state."""
        return HEALTH[type(self._state)]

    @property
    def reason(self) -> str | None:
        """Why the service is not healthy, else None."""
        if isinstance(self._state, Loading | Failed | Reloading):
            return self._loader.progress() or self._state.reason
        return self._state.reason

    @property
    def upgrade_reason(self) -> str | None:
        """Why a faster encoder was requested but does not serve; else None."""
        return self._upgrade_reason

    @property
    def device(self) -> Device | None:
        """The hardware, known before the model is loaded; None until it has been probed."""
        return self._device

    @property
    def gpu_reason(self) -> str | None:
        """Why the encoder does not run on the NVIDIA GPU although it should; else None."""
        if self._device is None or not self._device.gpu_wanted:
            return None
        return _why_not_on_the_gpu(self._device, self.description)

    @property
    def concurrent_calls(self) -> int:
        """Calls to the encoder that may run at the same time."""
        encoder = self.encoder
        return self._concurrent_calls if encoder is None else self._calls_of(encoder)

    def _calls_of(self, encoder: EncoderPort) -> int:
        of_its_own = min(encoder.description.concurrent_calls, MOST_CONCURRENT_CALLS)
        return max(self._concurrent_calls, of_its_own)

    @property
    def description(self) -> EncoderDescription | None:
        """The loaded encoder, or the one that will be reloaded; None if there is neither."""
        return description_of(self._state)

    @property
    def encoder(self) -> EncoderPort | None:
        """The encoder that requests may use, else None."""
        return self._state.encoder if isinstance(self._state, Ready) else None

    def described(self) -> EncoderDescription:
        """The loaded encoder, or the one that will be reloaded.

        Raises:
            ModelNotReady: there is neither.
        """
        if (description := self.description) is not None:
            return description
        assert not isinstance(self._state, Ready)
        raise unavailable(self._state, progress=self._loader.progress())

    # --- Leases and calls ---------------------------------------------------------------------

    @asynccontextmanager
    async def lease(self, *, client: str = "") -> AsyncIterator[Lease]:
        """A lease for the duration of the block, which is a request from admission to response.

        An unloaded model is loaded first; all requests that arrive meanwhile share that load. While
        there are leases, the model is not unloaded.

        Args:
            client: who sent the request; see `Lease`.

        Raises:
            ServiceUnavailable: no model is loaded or it must not be used; it could not be reloaded,
                or not within `MAX_RELOAD_SECONDS`; or the encoder became suspect before the block
                ended, so its results must not be sent.
        """
        async with self._held(client) as lease:
            yield lease
            self._check(lease)

    @asynccontextmanager
    async def _held(self, client: str = "") -> AsyncIterator[Lease]:
        """A lease that is not checked at the end, for holders that send no response."""
        self._leases += 1
        if self._stop_measuring is not None:
            self._stop_measuring.set()
        try:
            if isinstance(self._state, Unloaded):
                await self._until_loaded()
            if not isinstance(self._state, Ready):
                raise unavailable(self._state, progress=self._loader.progress())
            yield grant(self._state, client=client)
        finally:
            self._leases -= 1
            self._idle_since_s = self._clock.now_s()

    async def call(self, lease: Lease, work: Callable[[EncoderPort], _T]) -> _T:
        """Run ``work`` with the lease's encoder, in one of the encoder's threads.

        Raises:
            ServiceUnavailable: the encoder must not be used, its device is lost, or the call did
                not return in time. The result of an encoder that became suspect meanwhile is never
                returned.
            Exception: from ``work``. If it is the encoder's fault, call `report_fault`.
        """
        self._check(lease)
        encoder = lease.encoder
        turn = nullcontext() if self._calls_of(encoder) > 1 else self._one_at_a_time

        def in_turn() -> _T:
            with turn:
                return work(encoder)

        try:
            result = await self._in_thread(in_turn)
        except EncoderLost as lost:
            self._lose(lease.encoder, lost)
            raise ModelNotReady(f"no model is loaded: {lost}", retry_after_s=30) from lost
        self._check(lease)
        return result

    def report_fault(self, lease: Lease, failure: Exception) -> None:
        """Suspect the encoder: a call raised, or returned something that is not embeddings."""
        if self._effects is None:
            return
        fault = failure.detail if isinstance(failure, ClipError) else "a call to it failed"
        if self._apply(FaultReported(lease.encoder, fault)):
            known = isinstance(failure, ClipError)
            logger.error(
                "the encoder is suspect: %s", repr(failure), exc_info=None if known else failure
            )
            self._observer.encoder_suspected("fault")

    def _check(self, lease: Lease) -> None:
        if (refused := refusal(self._state, lease)) is not None:
            raise refused

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        """Run ``work`` in one of the encoder's threads.

        Raises:
            EncoderHung: it has not returned in time. It continues, and its result is dropped.
        """
        running = asyncio.get_running_loop().run_in_executor(self._threads, work)
        self._calls.add(running)
        running.add_done_callback(self._calls.discard)
        timeout_s = None if self._effects is None else self._call_timeout_s
        done, _ = await asyncio.wait((running,), timeout=timeout_s)
        if done:
            return running.result()
        self._apply(CallTimedOut())
        self._observer.encoder_suspected("hanging")
        logger.error("a call to the encoder has not returned within %s seconds", timeout_s)
        running.add_done_callback(self._returned)
        raise EncoderHung(str(self.reason), retry_after_s=30)

    async def _last_call_forgotten(self) -> None:
        """Wait until a thread has let go of its last call, which refers to the encoder."""
        following = asyncio.get_running_loop().run_in_executor(self._threads, int)
        await asyncio.wait((following,), timeout=_FORGETTING_S)  # a hung thread never lets go

    def _returned(self, call: asyncio.Future[_T]) -> None:
        if call.cancelled():  # the process is ending
            return
        call.exception()  # retrieved, otherwise Python warns about it
        logger.error("the hung call to the encoder has returned; its result is dropped")
        self._apply(CallReturned())

    def _lose(self, encoder: EncoderPort | None, lost: EncoderLost) -> None:
        if self._apply(DeviceLost(encoder, str(lost))):
            logger.critical("the model is lost, and only a restart can help: %s", lost)

    async def _until_loaded(self) -> None:
        """Start a load, or join one in progress; return when it has ended or takes too long."""
        self._apply(ModelRequested())
        patience = asyncio.ensure_future(self._clock.sleep(MAX_RELOAD_SECONDS))
        try:
            while isinstance(self._state, Unloaded) and self._state.loading:
                changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._waiting_for_change.add(changed)
                changed.add_done_callback(self._waiting_for_change.discard)
                await asyncio.wait((changed, patience), return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
                if patience.done():
                    return
        finally:
            patience.cancel()

    # --- State and effects --------------------------------------------------------------------

    async def load(self) -> None:
        """Load once, without supervision. Never raises: the state has the outcome."""
        self._apply(await self._loaded())

    async def run(self) -> None:
        """Load the encoder, then supervise it until cancelled."""
        self._effects = asyncio.Queue()
        try:
            async with asyncio.TaskGroup() as tasks:
                self._hand_over(outstanding(self._state))
                tasks.create_task(self._unload_when_idle())
                while True:
                    effect = await self._effects.get()
                    if isinstance(effect, Upgrade):
                        tasks.create_task(self._find_faster())
                    else:
                        await self._carry_out(effect)
                    del effect  # otherwise it would keep an encoder alive
        finally:
            self._effects = None

    def close(self) -> None:
        """Let the threads finish their work and end."""
        self._threads.shutdown(wait=False)

    def _apply(self, event: Event) -> bool:
        """Go to the next state and queue its effects. Returns whether the state changed."""
        before = self._state
        self._state, effects = transition(before, event)
        if (encoder := encoder_of(before)) not in (None, encoder_of(self._state)):
            self._dropped.append(encoder)
        self._hand_over(effects)
        if self._state is before:
            return False
        for waiting in tuple(self._waiting_for_change):
            if not waiting.done():
                waiting.set_result(None)
        return True

    def _hand_over(self, effects: tuple[Effect, ...]) -> None:
        if self._effects is not None:
            for effect in effects:
                self._effects.put_nowait(effect)

    async def _carry_out(self, effect: Load | Verify | Free) -> None:
        while True:
            try:
                match effect:
                    case Load(after_s):
                        await self._load(after_s)
                    case Verify(encoder, after_s):
                        await self._verify(encoder, after_s)
                    case Free():
                        await self._last_call_forgotten()
                        await asyncio.to_thread(_free, self._dropped, self._memory)
                    case _:
                        assert_never(effect)
            except Exception:  # of any kind: the state machine must not get stuck
                logger.exception("supervising the encoder failed unexpectedly")
                await self._clock.sleep(_REPEAT_PAUSE_S)
            else:
                return

    async def _load(self, after_s: float) -> None:
        if after_s:
            await self._clock.sleep(after_s)
        reloading = isinstance(self._state, Reloading)
        if isinstance(self._state, Unloaded):
            logger.info("loading the model again")
        event = await self._loaded()
        self._apply(event)
        if reloading:
            self._observer.encoder_reloaded(succeeded=isinstance(event, Loaded))

    async def _loaded(self) -> Event:
        """Load and verify an encoder; the outcome as an event, worded for clients."""
        try:
            encoder = await asyncio.to_thread(self._load_and_verify)
        except EncoderUnavailable as unavailable_:
            logger.error("no model is loaded: %s", unavailable_)
            return LoadFailed(str(unavailable_))
        except EncoderLost as lost:
            logger.critical("the device is lost, and only a restart can help: %s", lost)
            return DeviceLost(None, str(lost))
        except Exception:
            logger.exception("loading the model failed unexpectedly")
            return LoadFailed(_UNEXPECTED_LOAD)
        description = encoder.description
        logger.info(
            "ready: %s (fingerprint %s) by %s in %s on %s",
            description.model,
            description.fingerprint,
            description.backend,
            description.precision,
            description.device.name,
        )
        if self._device is not None and self._device.gpu_wanted:
            reason = _why_not_on_the_gpu(self._device, description)
            if reason is not None:
                logger.warning("the GPU is not used: %s", reason)
        return Loaded(encoder)

    def _load_and_verify(self) -> EncoderPort:
        self._device = self._loader.probe_device()
        encoder = self._loader.load()
        try:
            # The first calls also include lazy initialisation; better here than in a request.
            self._verification.verify(encoder)
        except EncoderFault as fault:
            raise EncoderUnavailable(
                f"the encoder fails its verification: {fault.detail}."
            ) from fault
        except ServiceUnavailable as unavailable_:  # no memory for a single image
            raise EncoderUnavailable(
                f"the encoder cannot be verified: {unavailable_.detail}"
            ) from unavailable_
        return encoder

    async def _verify(self, encoder: EncoderPort, after_s: float) -> None:
        if after_s:
            await self._clock.sleep(after_s)
        while self._calls:  # their results are refused, since the encoder is still suspect
            await asyncio.wait(self._calls.copy())
        if not (isinstance(self._state, Suspect) and self._state.encoder is encoder):
            return  # a call hung meanwhile; when it returns there is another verification
        try:
            await self._in_thread(lambda: self._verification.verify(encoder))
        except EncoderHung:
            return
        except (MemoryError, ServiceUnavailable):
            logger.error("not enough memory to verify the encoder; trying again")
            self._apply(VerificationPostponed(encoder))
        except EncoderLost as lost:
            self._lose(encoder, lost)
        except Exception as failure:
            known = isinstance(failure, EncoderFault)
            logger.error(
                "the encoder failed its verification: %s", repr(failure), exc_info=not known
            )
            fault = failure.detail if isinstance(failure, EncoderFault) else "it raised an error"
            self._apply(VerificationFailed(encoder, fault))
        else:
            self._apply(VerificationPassed(encoder))
            logger.warning("the encoder passed its verification and serves again")

    async def _unload_when_idle(self) -> None:
        if self._idle_s is None:
            return
        while True:
            await self._until_idle(self._idle_s)
            if self._apply(IdleTimePassed()):
                logger.info("unloaded the model: there was no request for %g seconds", self._idle_s)

    async def _until_idle(self, seconds: float) -> None:
        """Return once the encoder is ready and has been idle for so long, counted from now."""
        begun_s = self._clock.now_s()
        while True:
            remaining_s = max(self._idle_since_s, begun_s) + seconds - self._clock.now_s()
            # Calls may still run for clients that have gone.
            if self._leases or self._calls or not isinstance(self._state, Ready):
                await self._clock.sleep(seconds)
            elif remaining_s > 0:
                await self._clock.sleep(remaining_s)
            else:
                return

    async def _find_faster(self) -> None:
        await self._prepare_upgrade()
        # After a reload, the measurement for the previous encoder may still be running.
        if self._measurement is not None and not self._measures:
            self._measures = True
            try:
                await self._take_the_fastest(self._measurement)
            finally:
                self._measures = False

    async def _prepare_upgrade(self) -> None:
        """Prepare a faster encoder, and switch over to it if it agrees with the serving one.

        Never raises: if anything fails, the serving encoder stays; the reason is logged once and
        kept.
        """
        description = self.description
        if description is None:
            return
        try:
            if not await asyncio.to_thread(self._upgrade.wanted, description):
                return
            self._upgrade_reason = UPGRADING
            await self._switch_over(self._upgrade)
            self._upgrade_reason = None
            await self._free_the_slower()
        except (EncoderUnavailable, ClipError) as unavailable_:
            self._upgrade_reason = str(unavailable_)
            # Most machines have no GPU, and a warning at every start would not help.
            expected = isinstance(unavailable_, HardwareMissing)
            level = logging.INFO if expected else logging.WARNING
            logger.log(level, "staying with %s: %s", description.backend, unavailable_)
        except Exception:
            self._upgrade_reason = _UNEXPECTED_UPGRADE
            logger.exception("staying with %s: unexpected failure", description.backend)

    async def _take_the_fastest(self, port: EncoderMeasurementPort) -> None:
        """Measure encoders while the server is idle, and switch over to a faster one.

        Never raises: if anything fails, the serving encoder stays, and the reason is logged.
        """
        serving = self.description
        if serving is None:
            return
        try:
            if not await asyncio.to_thread(port.wanted, serving):
                return
            if await self._another_is_faster(port, serving):
                try:
                    serving = await self._switch_over(port)
                except EncodersDisagree as difference:
                    logger.warning("staying with %s: %s", serving.backend, difference)
            await asyncio.to_thread(port.keep, serving)
            await self._free_the_slower()
        except (EncoderUnavailable, ClipError) as unavailable_:
            logger.warning("staying with %s: %s", serving.backend, unavailable_)
        except Exception:
            logger.exception("staying with %s: unexpected failure", serving.backend)

    async def _another_is_faster(
        self, port: EncoderMeasurementPort, serving: EncoderDescription
    ) -> bool:
        quiet_s = QUIET_S
        while True:
            await self._until_idle(quiet_s)
            # Nothing is awaited between here and the thread, so that no lease is missed.
            self._stop_measuring = stop = threading.Event()
            try:
                faster = await asyncio.to_thread(port.measure, serving, stop)
            finally:
                stop.set()  # if this was cancelled, the thread is still running
                self._stop_measuring = None
            if faster is not None:
                return faster
            quiet_s = min(2 * quiet_s, LONGEST_QUIET_S)
            logger.info(
                "measuring the encoders continues after %g seconds without a request", quiet_s
            )

    async def _switch_over(self, port: EncoderUpgradePort) -> EncoderDescription:
        """Switch over to the port's encoder. Its local variables must not outlive it.

        Otherwise they would keep the slower encoder in memory.
        """
        async with self._held() as serving:
            faster, cosine = await faster_encoder(port, serving, self.call)
            if not self._apply(UpgradePrepared(serving.encoder, faster)):
                raise EncoderUnavailable(_REPLACED)
            logger.info(
                "switched over from %s to %s in %s (cosine at least %.5f)",
                serving.encoder.description.backend,
                faster.description.backend,
                faster.description.precision,
                cosine,
            )
            return faster.description

    async def _free_the_slower(self) -> None:
        if self._calls:  # some may still use it
            await asyncio.wait(self._calls.copy())
        await asyncio.to_thread(_free, self._dropped, self._memory)


def _why_not_on_the_gpu(device: Device, encoder: EncoderDescription | None) -> str | None:
    if encoder is not None and encoder.device.cuda_available:
        return None
    if device.gpu_problem is not None:
        return device.gpu_problem
    if device.cuda_available and encoder is not None:
        return f"CUDA can be used here, but {encoder.backend} runs on {encoder.device.name}."
    return None


def _free(encoders: list[EncoderPort], memory: MemoryPort) -> None:
    """Drop the last references; in a thread, since freeing gigabytes takes a while."""
    encoders.clear()
    memory.release()
