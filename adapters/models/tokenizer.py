"""CLIP's byte-pair tokenizer: lower-cased, at most 77 tokens, end-of-text always kept."""

import functools
import gzip
import hashlib
import html
import itertools
import re
import threading
import unicodedata
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import ftfy
import numpy as np
from ftfy import fixes
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.pre_tokenizers import Sequence as PreTokenizers

from application.ports import TokenCount
from domain.limits import MAX_MENDED_CHARACTERS, MAX_TEXT_CHARACTERS

CONTEXT_LENGTH: Final = 77
"""Tokens of the longest text that CLIP's text tower takes, start and end included."""
START_OF_TEXT: Final = 49406
END_OF_TEXT: Final = 49407

VOCABULARY_SIZE: Final = 49408
"""Tokens of the byte-pair vocabulary, the two special ones included."""

VOCABULARY: Final = Path(__file__).with_name("clip_vocabulary.txt.gz")
"""CLIP's merges, ``bpe_simple_vocab_16e6.txt.gz`` of openai/CLIP (MIT licence)."""

_MERGES: Final = 49152 - 256 - 2
_WORDS: Final = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"

_MAX_MARKS: Final = 30
"""Combining marks in a row that are looked at, as in Unicode's Stream-Safe Text Format (UAX #15).

No language needs as many. Putting them in order takes time that grows with their square: a request
of 2 MB kept the tokenizer busy for 40 s.
"""

_PASSES: Final = 6
"""Times that a text is mended; ``&amp;amp;lt;``, escaped three times, needs four."""

_ENCODING_STEPS: Final = 8
"""Times that the encoding of a text is put right; text that was wrongly decoded twice needs three.

Each is linear. Two thousand letters ``Â`` would need as many steps, for minutes.
"""

_ONE_STEP: Final = ftfy.TextFixerConfig(explain=False)

_FIXERS: Final[tuple[Callable[[str], str], ...]] = (
    fixes.fix_c1_controls,
    fixes.fix_latin_ligatures,
    fixes.fix_character_width,
    fixes.uncurl_quotes,
    fixes.fix_line_breaks,
    fixes.fix_surrogates,
    fixes.remove_terminal_escapes,
    fixes.remove_control_chars,
)
"""What `ftfy.fix_and_explain` does in one pass, in its order, after entities and encoding."""

_ABSURD_REFERENCE: Final = re.compile(r"&#[0-9]{100,};?")
"""A numeric character reference that is no character; of 4,300 digits Python makes no number."""

_TEXTS_AT_ONCE: Final = 16
"""Texts that are split together; each letter of one takes about 200 bytes meanwhile."""

_LARGEST_VOCABULARY: Final = 16 * 1024 * 1024
"""Bytes of the unpacked file; CLIP's has 3.2 MB."""


_COUNTS_KEPT: Final = 16_384
"""Texts whose number of tokens is remembered, 150 bytes each: those of eight large requests."""


class InvalidVocabulary(Exception):
    """The file of merges is not CLIP's, or damaged."""


class ClipTokenizer:
    """Radford et al.'s tokenizer (openai/CLIP, ``simple_tokenizer.py``) on a compiled BPE.

    Special tokens are not recognised inside a text: what a client sends is only ever text.
    """

    def __init__(self, vocabulary: Path = VOCABULARY) -> None:
        """Build from the file of merges that CLIP came with.

        Raises:
            InvalidVocabulary: it is not there, damaged, or something else.
        """
        merges = _merges(vocabulary)
        characters = _byte_characters()
        tokens = [
            *characters,
            *(character + "</w>" for character in characters),
            *(first + second for first, second in merges),
        ]
        self._tokenizer = Tokenizer(
            BPE(
                vocab={token: number for number, token in enumerate(tokens)},
                merges=merges,
                end_of_word_suffix="</w>",
            )
        )
        self._tokenizer.pre_tokenizer = PreTokenizers(
            [
                Split(Regex(_WORDS), behavior="removed", invert=True),
                ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Token numbers of each text, start- and end-of-text included: 2 to 77 of them."""
        whole = [
            encoding.ids
            for start in range(0, len(texts), _TEXTS_AT_ONCE)
            for encoding in self._tokenizer.encode_batch_fast(
                [_clean(text) for text in texts[start : start + _TEXTS_AT_ONCE]]
            )
        ]
        _recent_counts.keep(texts, (len(ids) + 2 for ids in whole))
        return [[START_OF_TEXT, *ids[: CONTEXT_LENGTH - 2], END_OF_TEXT] for ids in whole]


class _RecentCounts:
    """How many tokens the texts have that were tokenized last; thread-safe.

    An encoder tokenizes the texts of a request anyway, so they need not be tokenized again to be
    counted.
    """

    def __init__(self) -> None:
        self._counts: OrderedDict[bytes, int] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, texts: Sequence[str], counts: Iterable[int]) -> None:
        digests = [_digest(text) for text in texts]
        with self._lock:
            for digest, count in zip(digests, counts, strict=True):
                self._counts[digest] = count
                self._counts.move_to_end(digest)
            while len(self._counts) > _COUNTS_KEPT:
                self._counts.popitem(last=False)

    def of(self, texts: Sequence[str]) -> list[int | None]:
        """Tokens of each whole text, start and end included; None: not known."""
        digests = [_digest(text) for text in texts]
        with self._lock:
            return [self._counts.get(digest) for digest in digests]


_recent_counts: Final = _RecentCounts()
"""Of the whole process: encoders come and go, each with a tokenizer of its own."""


def _digest(text: str) -> bytes:
    # A digest, so that a megabyte of text takes no more room than a word.
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class ClipTokenCounter:
    """Counts as the encoders' tokenizers do.

    What one of them has just tokenized is not tokenized again. For the rest there is a tokenizer
    here, made when it is first needed.
    """

    def __init__(
        self, make_tokenizer: Callable[[], Callable[[Sequence[str]], list[list[int]]]] | None = None
    ) -> None:
        """Make one.

        Args:
            make_tokenizer: makes the tokenizer for texts whose count is not known; None:
                `ClipTokenizer`.
        """
        self._make_tokenizer = make_tokenizer or ClipTokenizer

    @functools.cached_property
    def _tokenizer(self) -> Callable[[Sequence[str]], list[list[int]]]:
        return self._make_tokenizer()

    def count(self, texts: Sequence[str]) -> TokenCount:
        """See `CountTokens` of `application.ports`."""
        counts = _recent_counts.of(texts)
        unknown = [text for text, count in zip(texts, counts, strict=True) if count is None]
        lengths = [count for count in counts if count is not None]
        if unknown:
            made = self._tokenizer(unknown)
            whole = _recent_counts.of(unknown)
            lengths += [
                len(tokens) if count is None else count
                for tokens, count in zip(made, whole, strict=True)
            ]
        read = sum(min(length, CONTEXT_LENGTH) for length in lengths)
        return TokenCount(read, sum(lengths) - read)


def batches_by_length(
    tokens: Sequence[Sequence[int]], *, at_once: int = 64, full_length: bool = False
) -> Iterator[tuple[list[int], NDArray[np.int64]]]:
    """Cut token lists into batches of alike lengths, each padded to its own longest.

    CLIP's text tower is causal and read out at the end-of-text token, so what follows that token
    cannot change the result, and a batch of short texts need not be 77 long.

    Args:
        tokens: one list per text.
        at_once: texts per batch; bounds the memory that a batch needs.
        full_length: pad to 77 all the same, for towers of another kind.

    Yields:
        The texts' places in ``tokens``, and int64 ``[n, length]`` filled up with zeros.
    """
    by_length = sorted(range(len(tokens)), key=lambda place: len(tokens[place]))
    for start in range(0, len(by_length), at_once):
        places = by_length[start : start + at_once]
        longest = CONTEXT_LENGTH if full_length else max(len(tokens[place]) for place in places)
        padded = np.zeros((len(places), longest), dtype=np.int64)
        for row, place in zip(padded, places, strict=True):
            row[: len(tokens[place])] = tokens[place]
        yield places, padded


def _merges(vocabulary: Path) -> list[tuple[str, str]]:
    try:
        with gzip.open(vocabulary) as packed:  # no more of it than CLIP's own could have
            content = packed.read(_LARGEST_VOCABULARY + 1)
        if len(content) > _LARGEST_VOCABULARY:
            raise ValueError(f"it unpacks to more than {_LARGEST_VOCABULARY} bytes")
        lines = content.decode("utf-8").split("\n")[1 : _MERGES + 1]
        merges = [(first, second) for first, second in map(str.split, lines)]
        if len(merges) != _MERGES:
            raise ValueError(f"it has {len(merges)} merges, not {_MERGES}")
    except (OSError, EOFError, zlib.error, ValueError) as damaged:
        raise InvalidVocabulary(f"{vocabulary} cannot be used: {damaged}.") from damaged
    return merges


def _clean(text: str) -> str:
    """As CLIP does: mojibake mended, HTML entities resolved twice, single spaces, lower case."""
    bounded = " ".join(text.split(maxsplit=MAX_TEXT_CHARACTERS))[:MAX_TEXT_CHARACTERS]
    if bounded.isascii() and bounded.isprintable() and "&" not in bounded:
        return bounded.lower()  # nothing to mend
    # White space may be half of a wrongly decoded character: kept where there is not too much.
    short = text if len(text) <= MAX_MENDED_CHARACTERS else bounded[:MAX_MENDED_CHARACTERS]
    mended = _ABSURD_REFERENCE.sub("\ufffd", _mended(short))
    plain = html.unescape(html.unescape(mended))
    return " ".join(plain.split()).lower()


def _mended(text: str) -> str:
    """What `ftfy.fix_text` makes of a text, line by line, but in bounded time.

    ftfy repeats its steps until nothing changes, and so does a text of nested entities
    (``&amp;amp;amp;``) or of mojibake of mojibake thousands of times. Here that ends after
    `_PASSES` and `_ENCODING_STEPS`, which no text needs that a person or a program wrote.
    """
    with_entities = True
    lines = []
    for line in text.split("\n"):
        # As ftfy has it: from the first tag on, entities are markup and not mistakes.
        with_entities = with_entities and "<" not in line
        lines.append(_mended_line(line, with_entities=with_entities))
    return "\n".join(lines)


def _mended_line(text: str, *, with_entities: bool) -> str:
    steps = _ENCODING_STEPS
    for _ in range(_PASSES):
        before = text
        if with_entities:
            text = fixes.unescape_html(text)
        unfixed = None
        while text != unfixed and steps:
            unfixed = text
            text, _explained = ftfy._fix_encoding_one_step_and_explain(text, _ONE_STEP)
            steps -= 1
        for fix in _FIXERS:
            text = fix(text)
        text = unicodedata.normalize("NFC", _without_endless_marks(text))
        if text == before:
            break
    return text


def _without_endless_marks(text: str) -> str:
    if text.isascii():
        return text
    runs = itertools.groupby(text, key=lambda character: unicodedata.combining(character) > 0)
    return "".join(
        character
        for are_marks, run in runs
        for character in (itertools.islice(run, _MAX_MARKS) if are_marks else run)
    )


def _byte_characters() -> list[str]:
    """The 256 printable characters that stand for bytes in the vocabulary, in its order."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    printable += range(ord("®"), ord("ÿ") + 1)
    others = len(set(range(256)) - set(printable))
    return [chr(code) for code in printable] + [chr(256 + extra) for extra in range(others)]
