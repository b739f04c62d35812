"""OpenVINO's compiled models, kept for the next start.

OpenVINO trusts what it finds in its cache: a model is looked up by its path, so that another one at
the same path is answered by the first, and bytes that were changed since are not noticed. So each
bundle and way of compiling has a directory of its own here, which appears whole and sealed.
"""

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adapters.artifacts.checksums import broken_directory, seal_directory
from adapters.artifacts.scratch import making_in, put_in_place

logger = logging.getLogger(__name__)


@contextmanager
def compiled_models(cache: Path | None, *origin: object) -> Iterator[Path | None]:
    """Where OpenVINO may look for compiled models, or leave them, within the block.

    Args:
        cache: directory under which they are kept; None keeps none.
        origin: all that they depend on, the fingerprint first.

    Raises:
        OSError: the cache cannot be written.
    """
    if cache is None:
        yield None
        return
    digest = hashlib.sha256(repr(origin).encode()).hexdigest()[:16]
    kept = cache / "compiled" / f"{origin[0]}-{digest}"
    if _whole(kept):
        yield kept
        return
    with making_in(kept.parent, ".compiled-") as scratch:
        if _whole(kept):  # made by another process meanwhile
            yield kept
            return
        making = scratch / "made"
        making.mkdir()
        yield making
        try:
            if any(making.iterdir()):
                seal_directory(making)
                put_in_place(making, kept)
        except OSError as failure:
            logger.warning("compiled models cannot be kept in %s: %s", kept.parent, failure)


def _whole(kept: Path) -> bool:
    if not kept.exists():
        return False
    broken = broken_directory(kept)
    if broken is not None:
        logger.warning("compiling anew: %s", broken)
    return broken is None
