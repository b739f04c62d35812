"""The common part of all tokenizers: turns texts into rows of token numbers."""

import hashlib
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from application.ports import TokenCount

_TEXTS_AT_ONCE: Final = 16
"""Texts that are split together; each of their letters takes about 200 bytes meanwhile."""

_COUNTS_KEPT: Final = 16_384
"""Texts whose token count is cached, 150 bytes each: those of eight large requests."""


class TextTokenizer(ABC):
    """Turns texts into token numbers, cut to the text tower's length; thread-safe.

    Attributes:
        context_length: tokens that the text tower reads, start and end included.
    """

    def __init__(self, context_length: int, *, frame: int) -> None:
        """Make one.

        Args:
            context_length: tokens that the text tower reads.
            frame: number of tokens that `_framed` adds to a text.
        """
        self.context_length = context_length
        self._frame = frame
        self._counts: OrderedDict[bytes, int] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Token numbers of each text, start and end included, at most `context_length` of them."""
        room = self.context_length - self._frame
        framed = []
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            some = texts[start : start + _TEXTS_AT_ONCE]
            whole = self._split(some)
            self._keep(some, [len(tokens) + self._frame for tokens in whole])
            framed += [self._framed(tokens[:room]) for tokens in whole]
        return framed

    def count(self, texts: Sequence[str]) -> TokenCount:
        """The number of tokens of all texts; recent texts are not tokenized again."""
        lengths = self._kept(texts)
        unknown = [text for text, length in zip(texts, lengths, strict=True) if length is None]
        known = [length for length in lengths if length is not None]
        for start in range(0, len(unknown), _TEXTS_AT_ONCE):
            some = unknown[start : start + _TEXTS_AT_ONCE]
            found = [len(tokens) + self._frame for tokens in self._split(some)]
            self._keep(some, found)
            known += found
        read = sum(min(length, self.context_length) for length in known)
        return TokenCount(read, sum(known) - read)

    @abstractmethod
    def _split(self, texts: Sequence[str]) -> list[list[int]]:
        """All token numbers of each text, without start and end."""

    @abstractmethod
    def _framed(self, tokens: list[int]) -> list[int]:
        """The numbers with start and end added."""

    def _keep(self, texts: Sequence[str], lengths: Sequence[int]) -> None:
        digests = [_digest(text) for text in texts]
        with self._lock:
            for digest, length in zip(digests, lengths, strict=True):
                self._counts[digest] = length
                self._counts.move_to_end(digest)
            while len(self._counts) > _COUNTS_KEPT:
                self._counts.popitem(last=False)

    def _kept(self, texts: Sequence[str]) -> list[int | None]:
        digests = [_digest(text) for text in texts]
        with self._lock:
            return [self._counts.get(digest) for digest in digests]


@dataclass(frozen=True, slots=True)
class Padding:
    """How the token lists of a batch are padded to the same length.

    Attributes:
        token: the padding token.
        left: whether padding comes before the text, else after it.
        length: every list is padded to this; None: to the longest of the batch. None is only
            correct for a tower that does not see the tokens after the end of a text.
    """

    token: int = 0
    left: bool = False
    length: int | None = None


AS_NEEDED: Final = Padding()
"""CLIP's text tower is causal and read at the end-of-text token: later tokens have no effect."""


def batches_by_length(
    tokens: Sequence[Sequence[int]], padding: Padding = AS_NEEDED, *, at_once: int = 64
) -> Iterator[tuple[list[int], NDArray[np.int64]]]:
    """Split token lists into batches of similar lengths, each padded to its longest list.

    Args:
        tokens: one list per text.
        padding: how lists are padded.
        at_once: texts per batch; limits the memory that a batch needs.

    Yields:
        The texts' places in ``tokens``, and int64 ``[n, length]``.
    """
    by_length = sorted(range(len(tokens)), key=lambda place: len(tokens[place]))
    for start in range(0, len(by_length), at_once):
        places = by_length[start : start + at_once]
        longest = padding.length or max(len(tokens[place]) for place in places)
        padded = np.full((len(places), longest), padding.token, dtype=np.int64)
        for row, place in zip(padded, places, strict=True):
            count = len(tokens[place])
            row[longest - count if padding.left else 0 :][:count] = tokens[place]
        yield places, padded


def _digest(text: str) -> bytes:
    # A digest, so that a megabyte of text takes no more room than a word.
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
