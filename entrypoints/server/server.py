"""Runs the application on a socket, from start to an orderly end."""

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from types import FrameType
from typing import Final

import uvicorn

from application.inference.admission import Admission
from entrypoints.container import Container, http_service
from entrypoints.server.connection import Connection
from entrypoints.server.connections import Connections, connections_possible
from entrypoints.server.listener import CannotListen, Listener, bind
from entrypoints.server.turns import Turns

logger = logging.getLogger(__name__)

CLOSE_SECONDS: Final = 2
"""Time for whatever is left after draining: idle connections, busy threads."""


class DrainingServer(uvicorn.Server):
    """Uvicorn with our own listener and a different reaction to signals.

    Uvicorn would close the socket at once. Here readiness fails and new requests get 503, while
    accepted requests finish within ``grace_s`` seconds. Then the socket closes. A second SIGTERM or
    SIGINT closes at once. The process ends even if a thread is still loading a model.

    SIGHUP, which a closing terminal sends, is like SIGTERM, unless it was ignored when the process
    started (nohup). SIGUSR1 and SIGUSR2 are logged and otherwise ignored.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        admission: Admission,
        grace_s: float,
        sockets: list[socket.socket],
        connections: Connections,
        announced: bool = True,
    ) -> None:
        """Make one.

        Args:
            config: uvicorn's.
            admission: refuses new requests during draining.
            grace_s: grace period for accepted requests.
            sockets: to listen on.
            connections: the open connections.
            announced: whether to log the address; False if a parent process has logged it.
        """
        super().__init__(config)
        self._announced = announced
        self._admission = admission
        self._grace_s = grace_s
        self._sockets = sockets
        self._connections = connections
        self._draining: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listener: Listener | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, and then listen."""
        loop = self._loop = asyncio.get_running_loop()  # signals arrive outside the loop
        await super().startup(sockets=[])
        turns = Turns(loop)

        def connection(accepted: socket.socket, address: str) -> Connection:
            return Connection(
                accepted,
                address,
                watch=self._connections,
                turns=turns,
                config=self.config,
                server_state=self.server_state,
                app_state=self.lifespan.state,
                loop=loop,
            )

        self._listener = Listener(self._sockets, self._connections, self.config.ssl)
        self._listener.start(connection)
        for listening in self._sockets if self._announced else ():
            host, port = listening.getsockname()[:2]
            logger.info(
                "listening on %s://%s:%d",
                "https" if self.config.ssl else "http",
                f"[{host}]" if ":" in host else host,
                port,
            )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close everything, and make sure that the process ends."""
        if self._listener is not None:
            self._listener.close()
        await super().shutdown(sockets)
        # Python waits for its threads, but loading or encoding can take minutes in libraries
        # that cannot be interrupted.
        end = threading.Timer(CLOSE_SECONDS, os._exit, [0])
        end.daemon = True
        end.start()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """React to a signal to end."""
        # Not passed on to uvicorn, which would raise it again at the end: a server that was asked
        # to stop and did so has exited normally.
        if self._loop is None or self._admission.draining:
            if sig == signal.SIGHUP and self._loop is not None:
                return  # systemd may send it right after SIGTERM
            self.should_exit = True
            self.force_exit = sig == signal.SIGINT
            return
        self._admission.start_draining()
        self._loop.call_soon_threadsafe(self._start_drain)

    def note(self, sig: int, frame: FrameType | None) -> None:
        """Log a signal that has no meaning here."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(
                logger.info, "ignored %s: it has no meaning here", signal.Signals(sig).name
            )

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
    """Serve until a signal ends it; exits with a message where it cannot listen on the port."""
    settings = container.settings()
    try:
        # Before loading the model, so that starting a second server by mistake fails at once.
        sockets = bind(settings.host, settings.port)
    except CannotListen as reason:
        sys.exit(str(reason))
    serve_on(container, sockets)


def serve_on(container: Container, sockets: list[socket.socket], *, announced: bool = True) -> None:
    """Serve on sockets from `bind` until a signal ends it.

    Args:
        container: the service.
        sockets: bound, and not listening yet.
        announced: whether to log the address.
    """
    settings = container.settings()
    connections = Connections(most=connections_possible(settings.max_connections))
    config = uvicorn.Config(
        http_service(container),
        host=settings.host,
        port=settings.port,
        http="httptools",
        loop="uvloop",
        ws="none",
        log_config=None,
        server_header=False,  # do not help attackers who look for a vulnerable version
        **({} if settings.tls is None else settings.tls.for_uvicorn()),
        access_log=False,  # the request log says more
        # What is still open after draining is idle or slower than the grace allows.
        timeout_graceful_shutdown=CLOSE_SECONDS,
    )
    server = DrainingServer(
        config,
        admission=container.admission(),
        grace_s=settings.shutdown_grace_s,
        sockets=sockets,
        connections=connections,
        announced=announced,
    )
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, server.handle_exit)
    signal.signal(signal.SIGUSR1, server.note)
    signal.signal(signal.SIGUSR2, server.note)
    server.run()
