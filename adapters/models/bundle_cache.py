"""Bundles of checkpoints, each made once and kept."""

import logging
from pathlib import Path

from adapters.artifacts.scratch import scratch_directory
from adapters.models.bundle import Bundle, is_bundle, read_bundle, times_of, write_bundle
from adapters.models.checkpoint import InvalidCheckpoint
from adapters.models.reading import DEMO, DEMO_DIRECTORY, read_checkpoint

logger = logging.getLogger(__name__)


def bundle_of(source: str, cache: Path | None) -> Bundle:
    """The checkpoint as a bundle: its own, one made before, or one made now.

    Args:
        source: what ``CLIP_MODEL_PATH`` names.
        cache: directory where bundles are kept; None makes one for this process only.

    Raises:
        InvalidCheckpoint: it cannot be read or bundled; says why.
        OSError: the cache cannot be written.
    """
    directory = DEMO_DIRECTORY if source == DEMO else Path(source)
    if is_bundle(directory):
        return read_bundle(directory)
    checkpoint = read_checkpoint(source)
    read_at = times_of(checkpoint.files)
    root = cache or scratch_directory()
    made = root / "bundles" / checkpoint.fingerprint
    try:
        return read_bundle(made)
    except InvalidCheckpoint as unusable:
        if made.exists():
            logger.warning("making a bundle anew: %s", unusable)
    logger.info("making a bundle of %s in %s", source, made)
    return write_bundle(checkpoint, made, link=True, read_at=read_at)
