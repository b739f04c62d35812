"""Memory that is no longer used, given back to the system and to the graphics card."""

import ctypes
import gc
import sys
from typing import Final

from application.ports import MemoryPort

_LARGE_BYTES: Final = 4 * 1024 * 1024
"""From this size on memory goes back to the system when it is freed: pictures of a megapixel."""

_M_MMAP_THRESHOLD: Final = -3
"""What ``mallopt`` calls it (mallopt(3))."""


class SystemMemory(MemoryPort):
    """Python's own objects, PyTorch's cache on the card, and glibc's free lists."""

    def release(self) -> None:
        """See `MemoryPort.release`."""
        gc.collect()
        # Only if an encoder has imported it: importing it here would take more than is given back.
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        # glibc keeps freed memory below the top of each arena until it is told to return it.
        _glibc("malloc_trim", 0)


def return_large_blocks_at_once() -> None:
    """Let no large picture leave a hole that nothing else fits into.

    glibc takes a large block that was freed for a sign that more will come, and puts the next ones
    where they cannot be given back alone: after every kind of large file had been decoded once,
    700 MiB stayed with a server that needs 260.
    """
    _glibc("mallopt", _M_MMAP_THRESHOLD, _LARGE_BYTES)


def _glibc(name: str, *arguments: int) -> None:
    """Call a function of glibc's. musl has none of them, and returns memory by itself."""
    function = getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
    if function is not None:
        function(*arguments)
