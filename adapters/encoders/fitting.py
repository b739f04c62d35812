"""Encodes a batch in as few calls as the device has memory for."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapters.encoders.cuda import OutOfDeviceMemory
from application.ports import RawEmbeddings
from domain.errors import ServiceUnavailable

logger = logging.getLogger(__name__)


def encode_as_it_fits(
    batch: NDArray[Any],
    encode: Callable[[NDArray[Any]], RawEmbeddings],
    *,
    dimension: int,
    at_once: int,
    what: str = "image",
) -> RawEmbeddings:
    """Embeddings of a batch, float32 ``[n, dimension]``; if memory runs out, in smaller calls.

    Args:
        batch: n images, or the tokens of n texts.
        encode: encodes a part of the batch; if it raises `OutOfDeviceMemory`, it has released its
            memory.
        dimension: floats per embedding.
        at_once: most items in one call.
        what: name of one item, for messages.

    Raises:
        ServiceUnavailable: there is not enough device memory for a single one.
    """
    embeddings = np.empty((len(batch), dimension), dtype=np.float32)
    done = 0
    while done < len(batch):
        part = batch[done : done + at_once]
        try:
            embeddings[done : done + len(part)] = encode(part)
        except OutOfDeviceMemory as shortage:
            if len(part) == 1:
                raise ServiceUnavailable(
                    f"the GPU does not have enough free memory for one {what}.",
                    code="out_of_device_memory",
                    retry_after_s=5,
                ) from None  # a traceback would keep the allocated memory
            # Only for the rest of this batch: other programs on the GPU may release memory.
            at_once = len(part) // 2
            logger.warning("%s; continuing with %d %ss at a time", str(shortage), at_once, what)
        else:
            done += len(part)
    return embeddings
