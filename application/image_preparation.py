"""Image files made ready for the encoder, off the event loop."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from application.ports import ImagePreparationPort, Pixels


class ImagePreparation:
    """Runs the preparation port in a pool of threads, so that decoding overlaps encoding."""

    def __init__(self, port: ImagePreparationPort, *, threads: int) -> None:
        self._port = port
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="decode")

    async def prepare(self, data: bytes) -> Pixels:
        """Pixels for the image tower, float32 ``[3, 224, 224]``.

        Args:
            data: the bytes of one image file.

        Raises:
            ImageTooLarge, InvalidImage: as `ImagePreparationPort.prepare` says.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._port.prepare, data)

    def close(self) -> None:
        """Let the threads end once they have finished what they are doing."""
        self._pool.shutdown(wait=False)
