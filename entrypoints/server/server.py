"""Runs the application on a socket, from start to an orderly end."""

import asyncio
import logging
import os
import signal
import threading
from types import FrameType
from typing import Final, cast

import uvicorn

from application.inference.admission import Admission
from entrypoints.container import Container, http_service
from entrypoints.server.client_limits import IDLE_SECONDS
from entrypoints.server.connections import Connections, connections_possible

logger = logging.getLogger(__name__)

CLOSE_SECONDS: Final = 2
"""For what is left after draining: idle connections, busy threads."""


class DrainingServer(uvicorn.Server):
    """Uvicorn with another reaction to SIGTERM and SIGINT.

    Uvicorn would close the socket at once. Here readiness fails and new requests get 503 while
    those that were accepted are finished, for at most ``grace_s`` seconds; then it closes. A
    second signal closes at once. The process ends even if a thread is still loading a model.
    """

    def __init__(self, config: uvicorn.Config, *, admission: Admission, grace_s: float) -> None:
        super().__init__(config)
        self._admission = admission
        self._grace_s = grace_s
        self._draining: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: "list[object] | None" = None) -> None:  # type: ignore[override]
        """Remember the loop: signals arrive outside of it."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)  # type: ignore[arg-type]

    async def shutdown(self, sockets: "list[object] | None" = None) -> None:  # type: ignore[override]
        """Close everything, and see to it that the process ends."""
        await super().shutdown(sockets)  # type: ignore[arg-type]
        # Python waits for its threads, but loading or encoding can take minutes in libraries
        # that cannot be interrupted.
        end = threading.Timer(CLOSE_SECONDS, os._exit, [0])
        end.daemon = True
        end.start()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """React to a signal."""
        # Not handed on to uvicorn, which would raise it again at the end: a server that was
        # asked to stop and did so has exited well.
        if self._loop is None or self._admission.draining:
            self.should_exit = True
            self.force_exit = sig == signal.SIGINT
            return
        self._admission.start_draining()
        self._loop.call_soon_threadsafe(self._start_drain)

    def _start_drain(self) -> None:
        self._draining = asyncio.create_task(self._drain())

    async def _drain(self) -> None:
        logger.info("shutting down: finishing %d requests", self._admission.inside)
        try:
            await asyncio.wait_for(self._admission.wait_until_empty(), self._grace_s)
        except TimeoutError:
            logger.warning(
                "%d requests were not finished within %g seconds",
                self._admission.inside,
                self._grace_s,
            )
        self.should_exit = True


def serve(container: Container) -> None:
    """Serve until a signal ends it."""
    settings = container.settings()
    connections = Connections(most=connections_possible(settings.max_connections))
    if settings.api_keys is None:
        logger.warning(
            "CLIP_API_KEYS is not set: anyone who reaches %s:%d may ask",
            settings.host,
            settings.port,
        )
    config = uvicorn.Config(
        http_service(container),
        host=settings.host,
        port=settings.port,
        # Uvicorn only ever calls it.
        http=cast(type[asyncio.Protocol], connections.protocol),
        ws="none",
        log_config=None,
        timeout_keep_alive=IDLE_SECONDS,
        server_header=False,  # who looks for a version with a hole need not be told
        **({} if settings.tls is None else settings.tls.for_uvicorn()),
        access_log=False,  # `observation` says more
        # What is still open after draining is idle or slower than the grace allows.
        timeout_graceful_shutdown=CLOSE_SECONDS,
    )
    DrainingServer(config, admission=container.admission(), grace_s=settings.shutdown_grace_s).run()
