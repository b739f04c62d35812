"""Several callers' images in one batch: each caller gets its own rows or its own failure."""

import logging
from collections.abc import Sequence

import numpy as np

from adapters.images.preprocessing import as_pixels
from adapters.ray.remote_encoder import RemoteEmbeddings
from application.ports import EncoderPort, PixelBatch, RawEmbeddings
from domain.errors import EncoderFault

logger = logging.getLogger(__name__)


def encode_together(
    encoder: EncoderPort, calls: Sequence[PixelBatch]
) -> list[RemoteEmbeddings | Exception]:
    """Run the image tower for several calls at once.

    Args:
        encoder: its calls block.
        calls: the preprocessed images of each, ``[n, 3, size, size]``.

    Returns:
        Each call's rows, in the same order, or its own failure.
    """
    try:
        rows = _rows(encoder, _together(calls))
    except Exception as failure:
        if len(calls) == 1:
            return [failure]
        # One caller's bad image must not fail the others that happened to share its batch.
        logger.warning("a batch of %d calls failed; encoding each alone", len(calls))
        return [result for call in calls for result in encode_together(encoder, [call])]
    ends = np.cumsum([len(call) for call in calls])
    fingerprint = encoder.description.fingerprint
    return [RemoteEmbeddings(part, fingerprint) for part in np.split(rows, ends[:-1])]


def _together(calls: Sequence[PixelBatch]) -> PixelBatch:
    """All images as one batch: levels stay levels where no call has anything else."""
    if all(call.dtype == np.uint8 for call in calls):
        return np.concatenate(calls)
    return np.concatenate([as_pixels(call) for call in calls])


def _rows(encoder: EncoderPort, batch: PixelBatch) -> RawEmbeddings:
    rows = encoder.encode_images(batch)
    # If one row were missing, all rows after it would go to the wrong callers.
    expected = (len(batch), encoder.description.embedding_dimension)
    if rows.shape != expected:
        raise EncoderFault(f"the encoder returned shape {rows.shape} instead of {expected}")
    return rows
