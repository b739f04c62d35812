"""A bundle: everything that serves one checkpoint without PyTorch, in one directory.

Beside the checkpoint's own weights files it holds

- ``image_tower.onnx`` and ``text_tower.onnx``, whose weights stay in the checkpoint's files;
- ``vocabulary.txt.gz``, the tokenizer's merges;
- ``bundle.json``: name, fingerprint, embedding dimension, logit scale, preprocessing, and the
  checksums of all other files, so that a changed file is never served under that fingerprint.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from adapters.artifacts.checksums import what_changed
from adapters.artifacts.store import Unusable
from adapters.models.checkpoint import InvalidCheckpoint, read_description
from adapters.models.preprocessing import UnservedPreprocessing, from_bundle
from adapters.models.tokenizer import ClipTokenizer, InvalidVocabulary

DESCRIPTION: Final = "bundle.json"
IMAGE_TOWER: Final = "image_tower.onnx"
TEXT_TOWER: Final = "text_tower.onnx"
VOCABULARY_FILE: Final = "vocabulary.txt.gz"

FORMAT: Final = 2
"""Raised whenever the graphs or the description change, so that older bundles are rebuilt."""


class UnusableBundle(InvalidCheckpoint, Unusable):
    """No bundle here can be served; the message says why."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle on disk.

    Attributes:
        directory: where its files are.
        model: the name to show.
        fingerprint: of the checkpoint that it was made from.
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
            return ClipTokenizer(self.directory / VOCABULARY_FILE)
        except InvalidVocabulary as damaged:
            raise InvalidCheckpoint(str(damaged)) from damaged


def is_bundle(directory: Path) -> bool:
    """Whether the directory holds a bundle of this version."""
    try:
        return bool(_description(directory).get("format") == FORMAT)
    except InvalidCheckpoint:
        return False


def read_bundle(directory: Path) -> Bundle:
    """Read a bundle's description and check its files against the checksums in it.

    Raises:
        UnusableBundle: there is no bundle, it is incomplete or of another version, or one of its
            files was changed.
    """
    try:
        described = _description(directory)
    except InvalidCheckpoint as unreadable:
        raise UnusableBundle(str(unreadable)) from unreadable
    if described.get("format") != FORMAT:
        raise UnusableBundle(
            f"{directory} is a bundle of format {described.get('format')}; this version reads "
            f"format {FORMAT}. Make it again with: clip-server bundle"
        )
    changed = what_changed(directory, described.get("files"))
    if changed is not None:
        raise UnusableBundle(
            f"the bundle {directory} is incomplete or was changed: {changed} "
            "Make it again with: clip-server bundle"
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
        raise UnusableBundle(f"{directory / DESCRIPTION} is incomplete.") from incomplete
    # Every response has the fingerprint in a header, where a line break would begin another one.
    if not re.fullmatch(r"[0-9a-f]{16}", bundle.fingerprint):
        raise UnusableBundle(
            f"{directory / DESCRIPTION} has a fingerprint that is not 16 hexadecimal digits."
        )
    try:
        from_bundle(described.get("preprocessing"))  # its graphs do the normalising
    except UnservedPreprocessing as unserved:
        raise UnusableBundle(f"{directory / DESCRIPTION}: {unserved}.") from unserved
    if not math.isfinite(bundle.logit_scale) or bundle.logit_scale <= 0:
        raise UnusableBundle(f"{directory / DESCRIPTION} has the logit scale {bundle.logit_scale}.")
    return bundle


def _description(directory: Path) -> dict[str, Any]:
    path = directory / DESCRIPTION
    described = read_description(path)
    if not isinstance(described, dict):
        raise InvalidCheckpoint(f"{path} does not describe a bundle.")
    return described
