"""Image files made ready for the encoder, off the event loop."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from application.ports import UNOBSERVED, ImagePreparationPort, ObserverPort, Pixels, Stage


class ImagePreparation:
    """Runs the preparation port in a pool of threads, so that decoding overlaps encoding."""

    def __init__(
        self, port: ImagePreparationPort, *, threads: int, observer: ObserverPort = UNOBSERVED
    ) -> None:
        self._port = port
        self._observer = observer
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="decode")

    async def prepare(self, data: bytes) -> Pixels:
        """Pixels for the image tower, float32 ``[3, 224, 224]``.

        Args:
            data: the bytes of one image file.

        Raises:
            ImageTooLarge, InvalidImage: as `ImagePreparationPort.prepare` says.
        """
        asked_s = time.perf_counter()
        pixels, started_s, ended_s = await asyncio.get_running_loop().run_in_executor(
            self._pool, self._prepare, data
        )
        self._observer.stage_passed(Stage.DECODE_QUEUE, asked_s, started_s)
        self._observer.stage_passed(Stage.DECODE, started_s, ended_s)
        return pixels

    def close(self) -> None:
        """Let the threads end once they have finished what they are doing."""
        self._pool.shutdown(wait=False)

    def _prepare(self, data: bytes) -> tuple[Pixels, float, float]:
        started_s = time.perf_counter()
        return self._port.prepare(data), started_s, time.perf_counter()
