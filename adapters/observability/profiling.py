"""Continuous profiling with Pyroscope, if its package is installed and its server reachable."""

import logging
import socket
import threading
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from adapters.system.installation import install_command, is_installed

logger = logging.getLogger(__name__)

_APPLICATION: Final = "clip-embedding-server"
_CONNECT_SECONDS: Final = 2.0
_RETRY_SECONDS: Final = 60.0


class Profiling:
    """Starts the profiler once its server can be reached, and not before.

    Until then nothing is sampled: a separate thread tries to connect once a minute. A failure of
    profiling ends profiling, never the service.
    """

    def __init__(
        self,
        *,
        url: str,
        environment: str,
        start: Callable[[str, str], bool] | None = None,
        retry_s: float = _RETRY_SECONDS,
    ) -> None:
        """Make one; nothing runs yet.

        Args:
            url: of the Pyroscope server.
            environment: the value of the tag ``environment``.
            start: called with both once the server can be reached; returns whether it worked.
            retry_s: seconds between attempts to reach the server.
        """
        self._url = url
        self._environment = environment
        self._start = start or _start_pyroscope
        self._retry_s = retry_s
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="profiling", daemon=True)

    def start(self) -> None:
        """Begin to try to connect, in the background."""
        self._thread.start()

    def close(self) -> None:
        """Stop trying."""
        self._closed.set()

    def join(self, seconds: float) -> None:
        """Wait until the profiler has started or the attempt has ended, at most ``seconds``."""
        self._thread.join(seconds)

    @property
    def ended(self) -> bool:
        """Whether it has stopped trying."""
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not _reachable(self._url):
                if self._closed.wait(self._retry_s):
                    return
            if self._start(self._url, self._environment):
                logger.info("profiling, to %s", self._url)
            else:
                logger.warning("no profiling: Pyroscope's agent did not start")
        except Exception as failure:
            logger.warning("no profiling: Pyroscope's agent failed: %r", failure)


def start_profiling(*, wanted: bool, url: str, environment: str) -> Profiling | None:
    """Profile in the background if it is wanted and Pyroscope's package is installed."""
    if not wanted:
        return None
    if not is_installed("pyroscope"):
        logger.info(
            "no profiling: Pyroscope's package is not installed. Run: %s",
            install_command("pyroscope"),
        )
        return None
    profiling = Profiling(url=url, environment=environment)
    profiling.start()
    return profiling


def _reachable(url: str) -> bool:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), _CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def _start_pyroscope(url: str, environment: str) -> bool:
    import pyroscope  # an extra, and slow to import

    return bool(
        pyroscope.configure(
            application_name=_APPLICATION,
            server_address=url,
            tags={"environment": environment},
            # Most of the time goes to the encoder's native code, which holds no GIL.
            gil_only=False,
        )
    )
