"""Returns unused memory to the system and to the graphics card."""

import ctypes
import gc
import sys
from pathlib import Path
from typing import Any, Final

from application.ports import MemoryPort

_LARGE_BYTES: Final = 4 * 1024 * 1024
"""Blocks of at least this size are returned to the system when freed: about a megapixel."""

_KEPT_BYTES: Final = 32 * 1024 * 1024
"""Bytes to keep at the end of the heap for later allocations."""

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
"""``mallopt``'s numbers for them (mallopt(3))."""

_MADV_DONTNEED: Final = 4
"""``madvise``'s number for it (madvise(2))."""


class SystemMemory(MemoryPort):
    """Python's own objects, PyTorch's cache on the card, and glibc's free lists."""

    def release(self) -> None:
        """See `MemoryPort.release`."""
        gc.collect()
        # Only if an encoder has imported it: importing it here would use more memory than is
        # returned.
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        return_freed_memory()


def return_freed_memory() -> None:
    """Make glibc return free memory below the top of each arena, which it otherwise keeps."""
    _glibc("malloc_trim", 0)


def release_mapped(folder: Path) -> None:
    """Drop this process's pages of files below a folder that are mapped read-only.

    They stay in the system's cache while it has room, and come back when they are read.
    """
    if sys.platform != "linux":
        return
    try:
        mappings = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in mappings.splitlines():
        # Never writable mappings: their changes would be lost.
        place, rights, _, _, _, *path = line.split(maxsplit=5)
        if path and path[0].startswith(f"{folder}/") and rights.startswith("r--"):
            start, end = (int(number, 16) for number in place.split("-"))
            _glibc("madvise", ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED)


def return_large_blocks_at_once() -> None:
    """Keep large pictures from fragmenting the heap.

    When a large block is freed, glibc expects more of that size and takes the next ones from the
    heap, which cannot be returned in part: after every kind of large file had been decoded once, a
    server that needs 260 MiB kept 700 MiB.

    Smaller blocks stay with the process for the next request: returning the heap's end after each
    one, as glibc then would, costs new pages for every picture.
    """
    _glibc("mallopt", _M_MMAP_THRESHOLD, _LARGE_BYTES)
    _glibc("mallopt", _M_TRIM_THRESHOLD, _KEPT_BYTES)


def _glibc(name: str, *arguments: Any) -> None:
    """Call a function of the C library; those of glibc alone do nothing with another one."""
    function = getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
    if function is not None:
        function(*arguments)
