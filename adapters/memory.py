"""Memory that is no longer used, given back to the system and to the graphics card."""

import ctypes
import gc
import sys

from application.ports import MemoryPort


class SystemMemory(MemoryPort):
    """Python's own objects, PyTorch's cache on the card, and glibc's free lists."""

    def release(self) -> None:
        """See `MemoryPort.release`."""
        gc.collect()
        # Only if an encoder has imported it: importing it here would take more than is given back.
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        # glibc keeps what was freed below the top of each of its arenas until it is told to let go.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
        if trim is not None:  # musl has none, and returns memory by itself
            trim(0)
