"""The tokenizer that a checkpoint's files specify."""

import hashlib
import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer

from adapters.models.checkpoint_files import (
    InvalidCheckpoint,
    read_description,
    read_small_file,
)
from adapters.models.clip_tokenizer import VOCABULARY, ClipTokenizer, InvalidVocabulary, mended
from adapters.models.tokens import AS_NEEDED, Padding, TextTokenizer
from domain.limits import CONTEXT_LENGTH, LONGEST_CONTEXT, MAX_TEXT_CHARACTERS

FILE: Final = "tokenizer.json"
CONFIG: Final = "tokenizer_config.json"

_LARGEST_FILE: Final = 128 * 1024 * 1024
"""Bytes; Gemma's, which SigLIP 2 uses, has 34 million."""

_WITHOUT_PUNCTUATION: Final = str.maketrans("", "", string.punctuation)
_PROBE: Final = "a"


class Cleaning(StrEnum):
    """Cleaning of a text before it is split into tokens."""

    NONE = "none"
    LOWER = "lower"
    """Lower case, as `transformers.Siglip2Tokenizer` does."""
    SIGLIP = "siglip"
    """Lower case, no punctuation, single spaces, as `transformers.SiglipTokenizer` does."""
    OPEN_CLIP = "open_clip"
    """Repaired, single spaces: OpenCLIP's ``whitespace``."""
    OPEN_CLIP_LOWER = "open_clip_lower"
    """The same in lower case: OpenCLIP's ``lower``."""
    OPEN_CLIP_CANONICAL = "open_clip_canonical"
    """The same without punctuation: OpenCLIP's ``canonicalize``."""


def _bounded(text: str) -> str:
    return text[:MAX_TEXT_CHARACTERS]


def _without_punctuation(text: str) -> str:
    return re.sub(r"\s+", " ", text.lower().translate(_WITHOUT_PUNCTUATION)).strip()


_CLEAN: Final[Mapping[Cleaning, Callable[[str], str]]] = {
    Cleaning.NONE: _bounded,
    Cleaning.LOWER: lambda text: _bounded(text).lower(),
    Cleaning.SIGLIP: lambda text: _without_punctuation(_bounded(text)),
    Cleaning.OPEN_CLIP: mended,
    Cleaning.OPEN_CLIP_LOWER: lambda text: mended(text).lower(),
    Cleaning.OPEN_CLIP_CANONICAL: lambda text: _without_punctuation(mended(text).replace("_", " ")),
}

_OPEN_CLIPS: Final = {
    "whitespace": Cleaning.OPEN_CLIP,
    "lower": Cleaning.OPEN_CLIP_LOWER,
    "canonicalize": Cleaning.OPEN_CLIP_CANONICAL,
}
"""By OpenCLIP's names (open_clip, tokenizer.py, ``get_clean_fn``)."""

_TRANSFORMERS: Final = {
    "SiglipTokenizer": Cleaning.SIGLIP,
    # SigLIP 2 was trained on lower case, with Gemma's vocabulary.
    "Siglip2Tokenizer": Cleaning.LOWER,
    "GemmaTokenizer": Cleaning.LOWER,
}
"""By transformers' names, without the suffix ``Fast`` of some."""


@dataclass(frozen=True, slots=True)
class Tokenization:
    """The settings that turn a text into the text tower's input; by default CLIP's.

    Attributes:
        context_length: tokens that the text tower reads, start and end included.
        vocabulary: the file: CLIP's merges, or a ``tokenizer.json``.
        sha256: of that file; empty for CLIP's own.
        cleaning: applied to a text first; CLIP's merges have their own.
        padding: how shorter texts are padded.
    """

    context_length: int = CONTEXT_LENGTH
    vocabulary: Path = VOCABULARY
    sha256: str = ""
    cleaning: Cleaning = Cleaning.NONE
    padding: Padding = AS_NEEDED

    @property
    def is_clips(self) -> bool:
        """Whether the vocabulary is CLIP's."""
        return not self.sha256

    @property
    def identity(self) -> dict[str, Any]:
        """The form recorded in fingerprints and bundles."""
        return {
            "context_length": self.context_length,
            "sha256": self.sha256,
            "cleaning": str(self.cleaning),
            "padding": asdict(self.padding),
        }

    def tokenizer(self) -> TextTokenizer:
        """A tokenizer.

        Raises:
            InvalidCheckpoint: its file is damaged or was changed.
        """
        if not self.is_clips:
            return FileTokenizer(self)
        try:
            return ClipTokenizer(self.vocabulary, context_length=self.context_length)
        except InvalidVocabulary as damaged:
            raise InvalidCheckpoint(str(damaged)) from damaged


CLIPS_OWN: Final = Tokenization()


class FileTokenizer(TextTokenizer):
    """A ``tokenizer.json`` of Hugging Face's `tokenizers`.

    Special tokens are not recognised inside a text: data from a client is always plain text.
    """

    def __init__(self, tokenization: Tokenization) -> None:
        """Read the file.

        Raises:
            InvalidCheckpoint: it is damaged or was changed.
        """
        path = tokenization.vocabulary
        content = read_small_file(path, largest=_LARGEST_FILE)
        if hashlib.sha256(content).hexdigest() != tokenization.sha256:
            raise InvalidCheckpoint(f"{path} was changed on disk while it was being read.")
        self._tokenizer = _parsed(path, content)
        self._clean = _CLEAN[tokenization.cleaning]
        self._start, self._end = _frame(self._tokenizer, path)
        frame = len(self._start) + len(self._end)
        if frame >= tokenization.context_length:
            raise InvalidCheckpoint(
                f"{path} adds {frame} tokens to each text, and the text tower reads "
                f"{tokenization.context_length}."
            )
        super().__init__(tokenization.context_length, frame=frame)

    def _split(self, texts: Sequence[str]) -> list[list[int]]:
        # Half of a surrogate pair, which JSON can contain, is not a character.
        cleaned = [self._clean(text).encode("utf-8", "replace").decode("utf-8") for text in texts]
        found = self._tokenizer.encode_batch_fast(cleaned, add_special_tokens=False)
        return [encoding.ids for encoding in found]

    def _framed(self, tokens: list[int]) -> list[int]:
        return [*self._start, *tokens, *self._end]


def from_hugging_face(directory: Path, *, context_length: int, pad_token: object) -> Tokenization:
    """Read ``tokenizer.json`` and ``tokenizer_config.json`` as written by transformers.

    Args:
        directory: where they are.
        context_length: tokens that the text tower reads; all texts are padded to it.
        pad_token: the padding token, if these files do not give one.

    Raises:
        InvalidCheckpoint: one is missing or damaged, or asks for what this service cannot do.
    """
    config = _config(directory)
    kind = str(config.get("tokenizer_class") or "").removesuffix("Fast")
    cleaning = _TRANSFORMERS.get(kind, Cleaning.NONE)
    return _from_file(
        directory, config, cleaning=cleaning, length=context_length, pad_token=pad_token
    )


def from_open_clip(
    directory: Path, text_cfg: Mapping[str, Any], *, context_length: int, is_masked: bool
) -> Tokenization:
    """Read the tokenizer of a checkpoint whose ``text_cfg`` names one on the hub.

    Args:
        directory: contains its ``tokenizer.json``.
        text_cfg: of ``open_clip_config.json``.
        context_length: tokens that the text tower reads.
        is_masked: whether the text tower ignores padding.

    Raises:
        InvalidCheckpoint: it is missing or damaged, or asks for what this service cannot do.
    """
    options = text_cfg.get("tokenizer_kwargs") or {}
    clean = options.get("clean", "whitespace")
    others = sorted({name for name, value in options.items() if value} - {"clean"})
    if clean not in _OPEN_CLIPS or others or text_cfg.get("tokenizer_mode"):
        asked = text_cfg.get("tokenizer_mode") or options
        raise InvalidCheckpoint(
            f"{directory}: its tokenizer has {str(asked)[:80]}; "
            f"this service supports only clean, with {', '.join(_OPEN_CLIPS)}."
        )
    tokenization = _from_file(
        directory,
        _config(directory),
        cleaning=_OPEN_CLIPS[clean],
        length=context_length,
        pad_token=None,
    )
    if is_masked:
        return replace(tokenization, padding=replace(tokenization.padding, length=None))
    return tokenization


def from_bundle(directory: Path, described: object) -> Tokenization:
    """Read a bundle's record of its tokenizer, a ``tokenizer.json`` in the bundle.

    Raises:
        InvalidCheckpoint: it is incomplete.
    """
    try:
        assert isinstance(described, Mapping)
        padding = described["padding"]
        length = padding["length"]
        return Tokenization(
            int(described["context_length"]),
            directory / FILE,
            str(described["sha256"]),
            Cleaning(described["cleaning"]),
            Padding(int(padding["token"]), bool(padding["left"]), length and int(length)),
        )
    except (AssertionError, KeyError, TypeError, ValueError, OverflowError) as incomplete:
        raise InvalidCheckpoint(
            f"{directory} does not say how texts are tokenized."
        ) from incomplete


def _from_file(
    directory: Path,
    config: Mapping[str, Any],
    *,
    cleaning: Cleaning,
    length: int,
    pad_token: object,
) -> Tokenization:
    path = directory / FILE
    if not path.is_file():
        raise InvalidCheckpoint(
            f"{directory} lacks {FILE}, which holds the vocabulary of its text tower. It is among "
            "the files of the model on the hub."
        )
    if not 1 < length <= LONGEST_CONTEXT:
        raise InvalidCheckpoint(
            f"{directory}: its text tower reads {length} tokens; it must be 2 to {LONGEST_CONTEXT}."
        )
    content = read_small_file(path, largest=_LARGEST_FILE)
    tokenizer = _parsed(path, content)
    own = tokenizer.padding or {}
    named = config.get("pad_token")
    name = named.get("content") if isinstance(named, Mapping) else named
    number = tokenizer.token_to_id(name) if isinstance(name, str) else own.get("pad_id", pad_token)
    if type(number) is not int:
        raise InvalidCheckpoint(f"{path}: it does not say which token fills up short texts.")
    side = config.get("padding_side") or own.get("direction") or "right"
    return Tokenization(
        length,
        path,
        hashlib.sha256(content).hexdigest(),
        cleaning,
        Padding(number, str(side).lower() == "left", length),
    )


def _config(directory: Path) -> Mapping[str, Any]:
    path = directory / CONFIG
    if not path.is_file():
        return {}
    config = read_description(path)
    if not isinstance(config, Mapping):
        raise InvalidCheckpoint(f"{path} does not describe a tokenizer.")
    return config


def _parsed(path: Path, content: bytes) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_buffer(content)
    except Exception as damaged:  # the Rust library's errors have no class of their own
        raise InvalidCheckpoint(f"{path} holds no tokenizer: {str(damaged)[:200]}") from damaged
    tokenizer.encode_special_tokens = True
    return tokenizer


def _frame(tokenizer: Tokenizer, path: Path) -> tuple[list[int], list[int]]:
    """The tokens before and after those of every text.

    Raises:
        InvalidCheckpoint: they are not the same for every text.
    """
    tokenizer.no_padding()
    tokenizer.no_truncation()
    bare = tokenizer.encode(_PROBE, add_special_tokens=False).ids
    framed = tokenizer.encode(_PROBE).ids
    for start in range(len(framed) - len(bare) + 1):
        if framed[start : start + len(bare)] == bare:
            return framed[:start], framed[start + len(bare) :]
    raise InvalidCheckpoint(f"{path} changes a text's own tokens when it adds start and end.")
