"""Makes bundles from checkpoints, in a given directory or in the store."""

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from adapters.artifacts.checksums import checksums_of
from adapters.artifacts.store import Store, get_or_build
from adapters.models import tokenization
from adapters.models.bundle import (
    DESCRIPTION,
    FORMAT,
    IMAGE_TOWER,
    TEXT_TOWER,
    VOCABULARY_FILE,
    WITH_MORE,
    Bundle,
    is_bundle,
    read_bundle,
)
from adapters.models.checkpoint import Checkpoint
from adapters.models.checkpoint_files import InvalidCheckpoint, unreadable
from adapters.models.reading import directory_of, fetched, read_checkpoint
from adapters.system.installation import install_command
from application.ports import CLIPS_INPUT
from domain.limits import CONTEXT_LENGTH

Times: TypeAlias = Mapping[Path, int]
"""When each file was last changed, in nanoseconds."""


def bundle_of(source: str, store: Store) -> Bundle:
    """The checkpoint as a bundle: itself if it is one, the one in the store, or a new one.

    Args:
        source: what ``CLIP_MODEL_PATH`` names.
        store: where bundles are kept.

    Raises:
        InvalidCheckpoint: it cannot be read or bundled; says why.
        OSError: neither the store nor the temporary directory can be written.
    """
    source = fetched(source)
    directory = directory_of(source)
    if is_bundle(directory):
        return read_bundle(directory)
    checkpoint = read_checkpoint(source)
    try:
        read_at = times_of(checkpoint.files)
        fingerprint = checkpoint.fingerprint
    except OSError as failure:  # of the checkpoint, not of the store
        raise unreadable(directory, failure) from failure
    return store.get_or_build(
        f"bundles/{fingerprint}",
        build=partial(_build, checkpoint, link=True, read_at=read_at),
        validate=read_bundle,
    )


def write_bundle(checkpoint: Checkpoint, directory: Path, *, link: bool = False) -> Bundle:
    """Make a bundle; it appears complete or not at all.

    Args:
        checkpoint: of a family that can be written, its weights in safetensors files.
        directory: where the bundle goes. An existing bundle is returned; a damaged one is
            replaced.
        link: hard-link the weights where the file system allows it, instead of copying them.

    Raises:
        InvalidCheckpoint: it cannot be bundled; says why.
        OSError: the directory cannot be written.
    """
    return get_or_build(
        directory, build=partial(_build, checkpoint, link=link), validate=read_bundle
    )


def write_graphs(checkpoint: Checkpoint, directory: Path) -> None:
    """Write a bundle's own files beside the checkpoint's, which must be there already.

    Raises:
        InvalidCheckpoint: it cannot be bundled; says why.
        OSError: the directory cannot be written.
    """
    try:
        # Imported here: serving an existing bundle needs no ONNX library.
        from adapters.export.towers import image_tower, text_tower
    except ImportError as missing:
        raise InvalidCheckpoint(
            f"making a bundle needs {missing.name}, which is not installed. "
            f"Run: {install_command('cpu')}"
        ) from missing
    for name, tower in ((IMAGE_TOWER, image_tower), (TEXT_TOWER, text_tower)):
        try:
            graph = tower(checkpoint)
        except (KeyError, IndexError, TypeError, ValueError, ArithmeticError) as mismatch:
            raise InvalidCheckpoint(
                f"{checkpoint.model}: weights and architecture do not belong together: {mismatch!r}"
            ) from mismatch
        (directory / name).write_bytes(graph.SerializeToString())
    tokens = checkpoint.tokenization
    vocabulary = VOCABULARY_FILE if tokens.is_clips else tokenization.FILE
    shutil.copyfile(tokens.vocabulary, directory / vocabulary)
    described: dict[str, Any] = {
        "format": FORMAT,
        "model": checkpoint.model,
        "fingerprint": checkpoint.fingerprint,
        "embedding_dimension": checkpoint.embedding_dimension,
        "logit_scale": checkpoint.logit_scale,
        "preprocessing": checkpoint.preprocessing.identity,
    }
    more: dict[str, Any] = {}
    if checkpoint.logit_bias is not None:
        more["logit_bias"] = checkpoint.logit_bias
    if not tokens.is_clips:
        more["tokenization"] = tokens.identity
    elif tokens.context_length != CONTEXT_LENGTH:
        more["context_length"] = tokens.context_length
    if more or checkpoint.preprocessing.image_input != CLIPS_INPUT:
        described |= more | {"format": WITH_MORE}
    described["files"] = checksums_of(
        file for file in directory.iterdir() if file.is_file() and file.name != DESCRIPTION
    )
    (directory / DESCRIPTION).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def times_of(files: Iterable[Path]) -> Times:
    """When each file was last changed. Raises OSError."""
    return {file: file.stat().st_mtime_ns for file in files}


def _build(
    checkpoint: Checkpoint, directory: Path, *, link: bool, read_at: Times | None = None
) -> None:
    """Fill a directory with a bundle.

    Args:
        checkpoint: what it is made from.
        directory: empty.
        link: see `write_bundle`.
        read_at: the `times_of` the checkpoint's files before its fingerprint was computed.
    """
    times = times_of(checkpoint.files)
    for file in checkpoint.files:
        _place(file, directory / file.name, link=link)
    write_graphs(checkpoint, directory)
    if times_of(checkpoint.files) != times or read_at not in (None, times):
        raise InvalidCheckpoint(
            f"{checkpoint.model} was changed on disk while it was being read; start again."
        )


def _place(source: Path, target: Path, *, link: bool) -> None:
    if link:
        try:
            # Not a symbolic link: runtimes refuse weights outside the graph's directory.
            os.link(source.resolve(), target)
        except OSError:
            pass
        else:
            return
    shutil.copyfile(source, target)
