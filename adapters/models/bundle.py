"""A bundle: everything needed to serve one checkpoint without PyTorch, in one directory.

Beside the checkpoint's own weights files it holds

- ``image_tower.onnx`` and ``text_tower.onnx``, whose weights stay in the checkpoint's files;
- ``vocabulary.txt.gz``, the merges of CLIP's tokenizer, or ``tokenizer.json``, another one;
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
from adapters.models import preprocessing, tokenization
from adapters.models.checkpoint_files import InvalidCheckpoint, read_description
from adapters.models.preprocessing import Preprocessing, UnservedPreprocessing, from_bundle
from adapters.models.tokenization import Tokenization
from adapters.models.tokens import TextTokenizer
from domain.limits import CONTEXT_LENGTH

DESCRIPTION: Final = "bundle.json"
IMAGE_TOWER: Final = "image_tower.onnx"
TEXT_TOWER: Final = "text_tower.onnx"
VOCABULARY_FILE: Final = "vocabulary.txt.gz"

FORMAT: Final = 2
"""Raised whenever the graphs or the description change, so that older bundles are rebuilt."""

WITH_MORE: Final = 3
"""The format of a bundle with additional data, which older versions cannot serve: how images become
square, how texts are tokenized, a logit bias. Plain CLIP does not need it."""


class UnusableBundle(InvalidCheckpoint, Unusable):
    """There is no usable bundle; the message says why."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle on disk.

    Attributes:
        directory: contains its files.
        model: the name to show.
        fingerprint: of the checkpoint that it was made from.
        embedding_dimension: floats per embedding.
        logit_scale: the multiplier of cosines in a classification.
        logit_bias: added to the scaled cosine; None: the model was trained without one.
        preprocessing: turns a picture into the image tower's input.
        tokenization: turns a text into the text tower's input.
    """

    directory: Path
    model: str
    fingerprint: str
    embedding_dimension: int
    logit_scale: float
    logit_bias: float | None = None
    preprocessing: Preprocessing = preprocessing.CLIPS_OWN
    tokenization: Tokenization = tokenization.CLIPS_OWN

    @property
    def image_tower(self) -> Path:
        """The image tower's graph."""
        return self.directory / IMAGE_TOWER

    @property
    def text_tower(self) -> Path:
        """The text tower's graph."""
        return self.directory / TEXT_TOWER

    def tokenizer(self) -> TextTokenizer:
        """The tokenizer, with the bundle's own vocabulary.

        Raises:
            InvalidCheckpoint: it is damaged.
        """
        return self.tokenization.tokenizer()


def is_bundle(directory: Path) -> bool:
    """Whether the directory holds a bundle of this version."""
    try:
        return _description(directory).get("format") in (FORMAT, WITH_MORE)
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
    if described.get("format") not in (FORMAT, WITH_MORE):
        raise UnusableBundle(
            f"{directory} is a bundle of format {described.get('format')}; this version reads "
            f"format {FORMAT} and {WITH_MORE}. Make it again with: clip-server bundle"
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
            None if (bias := described.get("logit_bias")) is None else float(bias),
            from_bundle(described.get("preprocessing")),
            _tokenization(directory, described),
        )
    except UnservedPreprocessing as unserved:
        raise UnusableBundle(f"{directory / DESCRIPTION}: {unserved}.") from unserved
    except InvalidCheckpoint as invalid:
        raise UnusableBundle(str(invalid)) from invalid
    except (KeyError, TypeError, ValueError, OverflowError) as incomplete:
        raise UnusableBundle(f"{directory / DESCRIPTION} is incomplete.") from incomplete
    # Every response has the fingerprint in a header, where a line break would start a new header.
    if not re.fullmatch(r"[0-9a-f]{16}", bundle.fingerprint):
        raise UnusableBundle(
            f"{directory / DESCRIPTION} has a fingerprint that is not 16 hexadecimal digits."
        )
    if bundle.logit_bias is not None and not math.isfinite(bundle.logit_bias):
        raise UnusableBundle(f"{directory / DESCRIPTION} has the logit bias {bundle.logit_bias}.")
    if not math.isfinite(bundle.logit_scale) or bundle.logit_scale <= 0:
        raise UnusableBundle(f"{directory / DESCRIPTION} has the logit scale {bundle.logit_scale}.")
    return bundle


def _tokenization(directory: Path, described: dict[str, Any]) -> Tokenization:
    """For plain CLIP, this is empty."""
    if (stated := described.get("tokenization")) is not None:
        return tokenization.from_bundle(directory, stated)
    length = described.get("context_length", CONTEXT_LENGTH)
    return Tokenization(int(length), directory / VOCABULARY_FILE)


def _description(directory: Path) -> dict[str, Any]:
    path = directory / DESCRIPTION
    described = read_description(path)
    if not isinstance(described, dict):
        raise InvalidCheckpoint(f"{path} does not describe a bundle.")
    return described
