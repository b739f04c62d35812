"""Compares an engine with PyTorch at every batch size that matters."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from typing import Final

import numpy as np

from adapters.encoders.cuda import CALLS_AT_ONCE, CALLS_UNTIL_FINAL, OutOfDeviceMemory
from adapters.encoders.tensorrt.engine_file import BatchRange
from adapters.encoders.tensorrt.runner import EngineRunner
from application.ports import PixelBatch, RawEmbeddings
from domain.embedding import Embedding, smallest_cosine
from domain.limits import SMALLEST_COSINE

logger = logging.getLogger(__name__)

KEPT: Final = 8
"""Samples whose embeddings are kept with an engine, to check at each start that it still agrees."""


class Disagreement(Exception):
    """An engine's results differ from PyTorch's; says by how much and at which batch size."""


def judge(
    runner: EngineRunner, batch: BatchRange, pixels: PixelBatch, expected: Sequence[Embedding]
) -> float:
    """The smallest cosine of an engine's embeddings against PyTorch's.

    Done at each size of `BatchRange.judged`, with enough calls to cover every sample and the form
    of later calls (a CUDA graph), and with as many calls at once as the engine takes.

    Args:
        runner: the loaded engine.
        batch: the sizes it was built for.
        pixels: the samples, or the first of them.
        expected: PyTorch's embeddings of them.

    Raises:
        Disagreement: a cosine is `SMALLEST_COSINE` or lower.
        EncoderFault: a call failed, or returned something that is not embeddings.
        EncoderLost: the device failed.
        OutOfDeviceMemory: there is not enough memory for a single image.
    """
    smallest = 1.0
    with ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="judge") as threads:
        for size in (size for size in batch.judged if size <= runner.largest_batch):
            calls = max(-(-len(pixels) // size), CALLS_UNTIL_FINAL * CALLS_AT_ONCE)
            order = list(islice(cycle(range(len(pixels))), calls * size))
            places = [order[start : start + size] for start in range(0, len(order), size)]
            try:
                made = list(threads.map(lambda some: runner.run(pixels[some]), places))
            except OutOfDeviceMemory as shortage:
                if size == 1:
                    raise
                logger.warning("not compared at %d images: %s", size, str(shortage))
                continue
            cosine = _smallest(made, [expected[place] for place in order])
            if cosine <= SMALLEST_COSINE:
                raise Disagreement(
                    f"cosine {cosine:.4f} at {size} image{'s' if size > 1 else ''} a call, more "
                    f"than {SMALLEST_COSINE} is needed"
                )
            smallest = min(smallest, cosine)
    return smallest


def _smallest(made: Sequence[RawEmbeddings], expected: Sequence[Embedding]) -> float:
    rows = np.concatenate(made)
    return smallest_cosine([Embedding.from_encoder(row) for row in rows], expected)
