"""Image files made ready for the encoder, off the event loop, clients taking turns."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from application.inference.fair_queue import FairQueue
from application.ports import (
    UNOBSERVED,
    ImageInput,
    ImagePreparationPort,
    ObserverPort,
    Pixels,
    Stage,
)


class ImagePreparation:
    """Runs the preparation port in a pool of threads, so that decoding overlaps encoding.

    Used from the event loop only.
    """

    def __init__(
        self, port: ImagePreparationPort, *, threads: int, observer: ObserverPort = UNOBSERVED
    ) -> None:
        """Make one.

        Args:
            port: does the work.
            threads: images that it is given at once.
            observer: hears how long each image waited, and how long it took.
        """
        self._port = port
        self._observer = observer
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="decode")
        self._free = threads
        self._waiting: FairQueue[asyncio.Future[None]] = FairQueue(asyncio.Future.done)

    def start(self) -> None:
        """Begin to make what the first image would have to wait for, without waiting for it."""
        self._pool.submit(self._port.start)

    async def prepare(self, data: bytes, image_input: ImageInput, *, client: str = "") -> Pixels:
        """Pixels for the image tower, float32 ``[3, size, size]``.

        Args:
            data: the bytes of one image file.
            image_input: what the image tower takes.
            client: who asks; while there is more to do than threads, clients take turns.

        Raises:
            ImageTooLarge, InvalidImage, ServiceUnavailable: as `ImagePreparationPort.prepare` says.
        """
        asked_s = time.perf_counter()
        await self._turn_of(client)
        try:
            running = asyncio.get_running_loop().run_in_executor(
                self._pool, self._prepare, data, image_input
            )
        except RuntimeError:  # closed
            self._hand_on()
            raise
        # The thread is busy until it returns, whether anyone still waits for it or not.
        running.add_done_callback(self._freed)
        pixels, started_s, ended_s = await asyncio.shield(running)
        self._observer.stage_passed(Stage.DECODE_QUEUE, asked_s, started_s)
        self._observer.stage_passed(Stage.DECODE, started_s, ended_s)
        return pixels

    def close(self) -> None:
        """Let the threads end once they have finished what they are doing, and then the port."""
        self._pool.submit(self._port.close)
        self._pool.shutdown(wait=False)

    async def _turn_of(self, client: str) -> None:
        """Return once a thread is this caller's."""
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn, client)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was given the thread at that moment
                self._hand_on()
            raise

    def _freed(self, running: asyncio.Future[tuple[Pixels, float, float]]) -> None:
        if not running.cancelled():
            running.exception()  # looked at: its caller may have gone
        self._hand_on()

    def _hand_on(self) -> None:
        """Give the free thread to whose turn it is."""
        if (turn := self._waiting.pop()) is not None:
            turn.set_result(None)
        else:
            self._free += 1

    def _prepare(self, data: bytes, image_input: ImageInput) -> tuple[Pixels, float, float]:
        started_s = time.perf_counter()
        return self._port.prepare(data, image_input), started_s, time.perf_counter()
