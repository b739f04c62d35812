"""Compiles an image tower's blocks with ``torch.compile``, and keeps the result only if correct.

Compiling merges a block's activation, normalisations and sums into its matrix products. Without it,
quick-GELU alone takes 11 to 18 % of a ViT's time. All blocks are alike, so one is compiled and used
for all, in seconds instead of minutes.
"""

import importlib.util
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

import numpy as np
import torch

from adapters.encoders.cuda import OutOfDeviceMemory
from application.ports import EncoderLost, PixelBatch, RawEmbeddings
from domain.embedding import Embedding, smallest_cosine
from domain.errors import EncoderFault

logger = logging.getLogger(__name__)

LEAST_COSINE: Final = 0.999
"""Smallest cosine of a faster form of a tower with the original, in the same precision."""

_SIZES: Final = (1, 3, 8)
"""Batches to compare both on."""

_BLOCKS: Final = frozenset({"ResidualAttentionBlock", "Block"})
"""OpenCLIP's and timm's names of a transformer's block."""


def compiler_missing() -> str | None:
    """The missing package that ``torch.compile`` needs on CUDA; None if nothing is missing."""
    if importlib.util.find_spec("triton") is None:
        return "Triton"
    if not any(shutil.which(name) for name in ("cc", "gcc", "clang")):
        return "a C compiler"
    return None


def compile_blocks(
    tower: torch.nn.Module,
    run: Callable[[PixelBatch], RawEmbeddings],
    pixels: PixelBatch,
    *,
    backend: str | Callable[..., Any] = "inductor",
) -> bool:
    """Compile the tower's blocks in place; returns whether they stay compiled.

    Args:
        tower: the image tower, on its device.
        run: encodes a batch with it.
        pixels: images to compare on.
        backend: of ``torch.compile``.

    Raises:
        EncoderLost: the device failed.
    """
    blocks = list(_blocks(tower))
    if not blocks:
        return False
    batches = [np.resize(pixels, (size, *pixels.shape[1:])) for size in _SIZES]
    try:
        before = [run(batch) for batch in batches]
        for block in blocks:
            # The batch is dynamic, so that not every size is compiled again.
            block.compile(dynamic=True, backend=backend)
        after = [run(batch) for batch in batches]
        cosine = min(map(smallest_row_cosine, after, before))
    except EncoderLost:
        raise
    except OutOfDeviceMemory as shortage:
        reason = str(shortage)
    except Exception as failure:  # the compiler raises its own errors, and Triton's and C's
        reason = f"{type(failure).__name__}: {str(failure).partition(chr(10))[0]}"
    else:
        if cosine > LEAST_COSINE:
            logger.info("PyTorch compiled %d blocks (cosine at least %.5f)", len(blocks), cosine)
            return True
        reason = f"their embeddings differ (cosine {cosine:.4f})"
    for block in blocks:
        block._compiled_call_impl = None  # set by `Module.compile`
    with suppress(Exception):
        torch.compiler.reset()
    logger.warning("going on without compiled blocks: %s", reason)
    return False


def _blocks(tower: torch.nn.Module) -> Iterator[torch.nn.Module]:
    return (module for module in tower.modules() if type(module).__name__ in _BLOCKS)


def smallest_row_cosine(made: RawEmbeddings, expected: RawEmbeddings) -> float:
    """The smallest cosine between rows in the same place; -1 if a row is not an embedding."""
    try:
        these, those = ([Embedding.from_encoder(row) for row in rows] for rows in (made, expected))
    except EncoderFault:
        return -1.0
    return smallest_cosine(these, those)
