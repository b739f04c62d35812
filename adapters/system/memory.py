"""Returns unused memory to the system and to the graphics card."""

import ctypes
import gc
import sys
from typing import Final

from application.ports import MemoryPort

_LARGE_BYTES: Final = 4 * 1024 * 1024
"""Blocks of at least this size go back to the system when they are freed: about a megapixel."""

_M_MMAP_THRESHOLD: Final = -3
"""What ``mallopt`` calls it (mallopt(3))."""


class SystemMemory(MemoryPort):
    """Python's own objects, PyTorch's cache on the card, and glibc's free lists."""

    def release(self) -> None:
        """See `MemoryPort.release`."""
        gc.collect()
        # Only if an encoder has imported it: importing it here would use more than is returned.
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        # glibc keeps freed memory below the top of each arena until something asks it to return it.
        _glibc("malloc_trim", 0)


def return_large_blocks_at_once() -> None:
    """Keep large pictures from fragmenting the heap.

    When a large block is freed, glibc expects more of that size and takes the next ones from the
    heap, which cannot be returned in part: after every kind of large file had been decoded once, a
    server that needs 260 MiB kept 700 MiB.
    """
    _glibc("mallopt", _M_MMAP_THRESHOLD, _LARGE_BYTES)


def _glibc(name: str, *arguments: int) -> None:
    """Call a function of glibc. musl has none of them, and returns memory without being asked."""
    function = getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
    if function is not None:
        function(*arguments)
