"""A bundle: all that serves one checkpoint without PyTorch, in one directory.

Beside the checkpoint's own files it holds

- ``image_tower.onnx`` and ``text_tower.onnx``, whose weights stay in the checkpoint's files;
- ``vocabulary.txt.gz``, the tokenizer's merges;
- ``bundle.json``: name, fingerprint, embedding dimension, logit scale, preprocessing, and a record
  of all other files, so that one that was changed since is never served under that fingerprint.
"""

import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from adapters.artifacts.checksums import broken_seal, seals_of
from adapters.artifacts.scratch import making_in, put_in_place
from adapters.images.preprocessing import MEAN, STD
from adapters.models.checkpoint import Checkpoint, InvalidCheckpoint, read_description
from adapters.models.tokenizer import VOCABULARY, ClipTokenizer, InvalidVocabulary
from domain.limits import IMAGE_SIZE

DESCRIPTION: Final = "bundle.json"
IMAGE_TOWER: Final = "image_tower.onnx"
TEXT_TOWER: Final = "text_tower.onnx"
_VOCABULARY: Final = "vocabulary.txt.gz"

_FORMAT: Final = 2
"""Raised whenever the graphs or the description change, so that older bundles are made anew."""

_PREPROCESSING: Final = {"size": IMAGE_SIZE, "resize": "bicubic", "mean": MEAN, "std": STD}


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle on disk.

    Attributes:
        directory: where its files lie.
        model: the name to show.
        fingerprint: of the checkpoint it was made from.
        embedding_dimension: floats per embedding.
        logit_scale: the multiplier of cosines in a classification.
    """

    directory: Path
    model: str
    fingerprint: str
    embedding_dimension: int
    logit_scale: float

    @property
    def image_tower(self) -> Path:
        """The image tower's graph."""
        return self.directory / IMAGE_TOWER

    @property
    def text_tower(self) -> Path:
        """The text tower's graph."""
        return self.directory / TEXT_TOWER

    def tokenizer(self) -> ClipTokenizer:
        """The tokenizer, with the bundle's own merges.

        Raises:
            InvalidCheckpoint: they are not CLIP's.
        """
        try:
            return ClipTokenizer(self.directory / _VOCABULARY)
        except InvalidVocabulary as damaged:
            raise InvalidCheckpoint(str(damaged)) from damaged


def is_bundle(directory: Path) -> bool:
    """Whether the directory holds a bundle of this version."""
    try:
        return bool(_description(directory).get("format") == _FORMAT)
    except InvalidCheckpoint:
        return False


def read_bundle(directory: Path) -> Bundle:
    """Read a bundle's description and check that its files are those that it describes.

    Raises:
        InvalidCheckpoint: none is there, it is incomplete or of another version, or a file of it
            was changed.
    """
    described = _description(directory)
    if described.get("format") != _FORMAT:
        raise InvalidCheckpoint(
            f"{directory} is a bundle of format {described.get('format')}; this version reads "
            f"{_FORMAT}. Make it anew with: clip-server bundle"
        )
    broken = broken_seal(directory, described.get("files"))
    if broken is not None:
        raise InvalidCheckpoint(
            f"the bundle {directory} is incomplete or was changed: {broken} "
            "Make it anew with: clip-server bundle"
        )
    try:
        bundle = Bundle(
            directory,
            str(described["model"]),
            str(described["fingerprint"]),
            int(described["embedding_dimension"]),
            float(described["logit_scale"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as incomplete:
        raise InvalidCheckpoint(f"{directory / DESCRIPTION} is incomplete.") from incomplete
    # Every answer has the fingerprint in a header, where a line break would begin another one.
    if not re.fullmatch(r"[0-9a-f]{16}", bundle.fingerprint):
        raise InvalidCheckpoint(f"{directory / DESCRIPTION} has a fingerprint that is none.")
    if not math.isfinite(bundle.logit_scale) or bundle.logit_scale <= 0:
        raise InvalidCheckpoint(
            f"{directory / DESCRIPTION} has the logit scale {bundle.logit_scale}."
        )
    return bundle


Times: TypeAlias = Mapping[Path, int]
"""When each file was last changed, in nanoseconds."""


def write_bundle(
    checkpoint: Checkpoint, directory: Path, *, link: bool = False, read_at: Times | None = None
) -> Bundle:
    """Make a bundle; it appears whole or not at all.

    Args:
        checkpoint: a plain CLIP vision transformer whose weights lie in safetensors files.
        directory: where to; a bundle that is there already is returned, one that is damaged is
            replaced.
        link: hard-link the weights where the file system allows it, instead of copying them.
        read_at: the `times_of` the checkpoint's files before its fingerprint was made.

    Raises:
        InvalidCheckpoint: it cannot be bundled; says why.
        OSError: the directory cannot be written.
    """
    with making_in(directory.parent, ".bundle-") as scratch:
        try:
            return read_bundle(directory)  # made by another process meanwhile
        except InvalidCheckpoint:
            pass
        making = scratch / "bundle"
        making.mkdir()
        times = times_of(checkpoint.files)
        for file in checkpoint.files:
            _place(file, making / file.name, link=link)
        write_graphs(checkpoint, making)
        if times_of(checkpoint.files) != times or read_at not in (None, times):
            raise InvalidCheckpoint(
                f"{checkpoint.model} was changed on disk while it was being read; start again."
            )
        put_in_place(making, directory)
    return read_bundle(directory)


def write_graphs(checkpoint: Checkpoint, directory: Path) -> None:
    """Write a bundle's own files beside the checkpoint's, which are there already.

    Raises:
        InvalidCheckpoint: it cannot be bundled; says why.
    """
    # Imported here: serving a finished bundle needs no ONNX library.
    from adapters.export.towers import image_tower, text_tower

    for name, tower in ((IMAGE_TOWER, image_tower), (TEXT_TOWER, text_tower)):
        try:
            graph = tower(checkpoint)
        except (KeyError, IndexError, TypeError, ValueError, ArithmeticError) as mismatch:
            raise InvalidCheckpoint(
                f"{checkpoint.model}: weights and architecture do not belong together: {mismatch!r}"
            ) from mismatch
        (directory / name).write_bytes(graph.SerializeToString())
    shutil.copyfile(VOCABULARY, directory / _VOCABULARY)
    bundle = Bundle(
        directory,
        checkpoint.model,
        checkpoint.fingerprint,
        checkpoint.embedding_dimension,
        checkpoint.logit_scale,
    )
    described: dict[str, Any] = {"format": _FORMAT, **asdict(bundle)}
    described.pop("directory")
    described["preprocessing"] = _PREPROCESSING
    described["files"] = seals_of(
        file for file in directory.iterdir() if file.is_file() and file.name != DESCRIPTION
    )
    (directory / DESCRIPTION).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def times_of(files: Iterable[Path]) -> Times:
    """When each file was last changed. Raises OSError."""
    return {file: file.stat().st_mtime_ns for file in files}


def _description(directory: Path) -> dict[str, Any]:
    path = directory / DESCRIPTION
    described = read_description(path)
    if not isinstance(described, dict):
        raise InvalidCheckpoint(f"{path} is no description of a bundle.")
    return described


def _place(source: Path, target: Path, *, link: bool) -> None:
    if link:
        try:
            # Not a symbolic link: runtimes refuse weights that lie outside of the directory.
            os.link(source.resolve(), target)
        except OSError:
            pass
        else:
            return
    shutil.copyfile(source, target)
