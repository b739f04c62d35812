"""A process that serves HTTP: everything except the encoder, which has its own process."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from dependency_injector import providers

from adapters.encoders.process.encoder import (
    RESTARTING,
    EncoderConnection,
    ProcessEncoderLoader,
)
from adapters.encoders.process.messages import EncoderReport
from adapters.observability.observers import Observers, StagesOnly
from adapters.observability.prometheus_metrics import PrometheusMetrics
from adapters.system.process_table import SharedPlaces
from application.inference.admission import Admission
from application.model.states import Phase
from application.model.supervisor import Supervisor
from application.use_cases.health import SHUTTING_DOWN, Health, Load
from entrypoints.container import Container
from entrypoints.processes.member import Membership, enter, seen_to_work
from entrypoints.server.server import serve_on

logger = logging.getLogger(__name__)

_CALLS: Final = 4
"""Calls to the encoder's process at once: enough to keep it busy while replies are on their way.
Further requests wait here, where a client that hangs up is noticed."""

_REPORT_EVERY_SECONDS: Final = 0.2

_FIRST_REPORT_SECONDS: Final = 5.0

_LEARNING: Final = "the model is loaded, but not all processes in front of it know it yet."

_SILENCE_SECONDS: Final = 1.0
"""After this long, the last report of the encoder's process is no longer used."""


def run_front(member: Membership, sockets: Sequence[socket.socket], *, fronts: int) -> None:
    """Serve HTTP until a signal arrives or the parent ends.

    Args:
        member: this process.
        sockets: to listen on; each front has its own on the same port.
        fronts: number of fronts, which share the limits and the processors.
    """
    enter(member)
    container = front_container(member, fronts=fronts)
    serve_on(container, list(sockets), announced=False)


def front_container(member: Membership, *, fronts: int) -> Container:
    """The service with the encoder's process behind the encoder port."""
    settings = member.settings
    container = Container(settings=settings)
    loader = ProcessEncoderLoader(EncoderConnection(member.encoder_address))
    metrics = PrometheusMetrics(of_all_processes=True)
    container.metrics.override(metrics)
    container.observer.override(
        Observers(StagesOnly(metrics), container.stage_times(), container.tracing())
    )
    container.encoder_loader.override(providers.Object(loader))
    container.places.override(SharedPlaces(member.table, member.row))
    container.sharing_processes.override(fronts)
    container.concurrent_calls.override(_CALLS)
    # The encoder's process notices a call that hangs, and keeps the one text cache.
    container.call_timeout_s.override(providers.Object(None))
    container.cached_texts.override(0)
    follower = EncoderFollower(loader, container.model(), container.admission(), member)
    container.supervise.override(providers.Callable(follower.run))
    container.ready_to_listen.override(providers.Callable(follower.first_report))
    container.report_health.override(providers.Object(follower.health))
    own_load = container.report_load()
    container.report_load.override(
        providers.Object(lambda: follower.load(own_load(), places=member.table.held()))
    )
    return container


class EncoderFollower:
    """Tracks the encoder's state by polling its process a few times a second."""

    def __init__(
        self,
        loader: ProcessEncoderLoader,
        model: Supervisor,
        admission: Admission,
        member: Membership,
    ) -> None:
        """Make one.

        Args:
            loader: polls the encoder's process.
            model: is loaded once that process has a model.
            admission: of this process.
            member: this process.
        """
        self._loader = loader
        self._model = model
        self._admission = admission
        self._member = member
        self._report: EncoderReport | None = None
        self._first = asyncio.Event()

    async def run(self) -> None:
        """Track the encoder until cancelled."""
        loading = asyncio.create_task(self._load())
        try:
            async with seen_to_work(self._member, _end_this_process):
                while True:
                    await self._poll()
                    if self._model_changed():
                        logger.warning("another model is loaded: a new process serves it")
                        _end_this_process()
                        return
                    await asyncio.sleep(_REPORT_EVERY_SECONDS)
        finally:
            self._loader.close()
            loading.cancel()

    async def first_report(self) -> None:
        """Wait until this process knows whether the encoder is ready, but not too long.

        A front that replaces another starts listening only then, so that it does not refuse the
        clients that waited for it.
        """
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._first.wait(), _FIRST_REPORT_SECONDS)
        self._member.table.refuse(self._member.row, self._model.description is None)

    async def _load(self) -> None:
        await self._model.load()
        while self._model.description is None:  # the encoder's process ended, or verifies itself
            await asyncio.sleep(_REPORT_EVERY_SECONDS)
            await self._model.load()
        self._member.table.refuse(self._member.row, False)
        self._first.set()

    async def _poll(self) -> None:
        polling = asyncio.create_task(asyncio.to_thread(self._loader.report))
        done, _ = await asyncio.wait((polling,), timeout=_SILENCE_SECONDS)
        if not done:
            self._report = None
        self._report = await polling
        if self._report is not None and not self._report.health.ready:
            self._first.set()

    def health(self) -> Health:
        """The service at this moment, as `ReportHealth` says it."""
        draining = self._admission.draining
        health = self._silence() if self._report is None else self._report.health
        if draining:
            return replace(health, ready=False, reason=SHUTTING_DOWN)
        # The next request may reach any front, and each of them learns a little later which model
        # the encoder's process has.
        if health.ready and (self._model.description is None or self._member.table.any_refuses()):
            return replace(health, ready=False, reason=_LEARNING)
        return health

    def _silence(self) -> Health:
        """The state to report while the encoder's process does not respond."""
        description = self._model.description
        return Health(
            alive=True,
            ready=False,
            healthy=False,
            model_loaded=False,
            reason=RESTARTING,
            backend_reason=None,
            phase=Phase.LOADING,
            encoder=description,
            device=self._model.device,
            gpu_reason=None,
            device_memory_used=None,
            embedding_dimension=None if description is None else description.embedding_dimension,
        )

    def load(self, own: Load, *, places: int) -> Load:
        """The work of all processes at this moment.

        Args:
            own: this process's.
            places: places that all of them hold.
        """
        report = self._report
        return replace(
            own,
            requests=places,
            queue_depth=own.queue_depth + (0 if report is None else report.queue_depth),
            cached_texts=0 if report is None else report.cached_texts,
        )

    def _model_changed(self) -> bool:
        """Whether the encoder's process has loaded a different model than the one known here."""
        known, report = self._model.description, self._report
        if known is None or report is None or report.health.encoder is None:
            return False
        return report.health.encoder.fingerprint != known.fingerprint


def _end_this_process() -> None:
    """Finish accepted requests and end; the parent, if it still runs, starts another."""
    os.kill(os.getpid(), signal.SIGTERM)
