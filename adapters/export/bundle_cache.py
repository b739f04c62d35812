"""Bundles of checkpoints, each made once and kept."""

import logging
from pathlib import Path

from adapters.checkpoints.reading import DEMO, DEMO_DIRECTORY, read_checkpoint
from adapters.export.bundle import Bundle, is_bundle, read_bundle, write_bundle
from adapters.scratch import scratch_directory

logger = logging.getLogger(__name__)


def bundle_of(source: str, cache: Path | None) -> Bundle:
    """The checkpoint as a bundle: its own, one made before, or one made now.

    Args:
        source: what ``CLIP_MODEL_PATH`` names.
        cache: directory where bundles are kept; None makes one for this process only.

    Raises:
        InvalidCheckpoint: it cannot be read or bundled; says why.
    """
    directory = DEMO_DIRECTORY if source == DEMO else Path(source)
    if is_bundle(directory):
        return read_bundle(directory)
    checkpoint = read_checkpoint(source)
    root = cache or scratch_directory()
    made = root / "bundles" / checkpoint.fingerprint
    if is_bundle(made):
        return read_bundle(made)
    logger.info("making a bundle of %s in %s", source, made)
    return write_bundle(checkpoint, made, link=True)
