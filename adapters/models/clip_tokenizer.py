"""CLIP's byte-pair tokenizer: lower-cased, end-of-text always kept."""

import gzip
import html
import itertools
import re
import unicodedata
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import ftfy
from ftfy import fixes
from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.pre_tokenizers import Sequence as PreTokenizers

from adapters.models.tokens import TextTokenizer
from domain.limits import CONTEXT_LENGTH, MAX_MENDED_CHARACTERS, MAX_TEXT_CHARACTERS

START_OF_TEXT: Final = 49406
END_OF_TEXT: Final = 49407

VOCABULARY_SIZE: Final = 49408
"""Tokens of the byte-pair vocabulary, the two special ones included."""

VOCABULARY: Final = Path(__file__).with_name("clip_vocabulary.txt.gz")
"""CLIP's merges, ``bpe_simple_vocab_16e6.txt.gz`` of openai/CLIP (MIT licence)."""

_MERGES: Final = 49152 - 256 - 2
_WORDS: Final = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"

_MAX_MARKS: Final = 30
"""Combining marks in a row that are kept, as in Unicode's Stream-Safe Text Format (UAX #15).

No language needs that many. Sorting them takes quadratic time: a request of 2 MB kept the tokenizer
busy for 40 s.
"""

_PASSES: Final = 6
"""Most passes to repair a text; ``&amp;amp;lt;``, escaped three times, needs four."""

_ENCODING_STEPS: Final = 8
"""Most steps to fix a text's encoding; text that was wrongly decoded twice needs three.

Each step is linear. Two thousand letters ``Â`` would need two thousand steps, which take minutes.
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
"""The steps of one pass of `ftfy.fix_and_explain`, in its order, after entities and encoding."""

_ABSURD_REFERENCE: Final = re.compile(r"&#[0-9]{100,};?")
"""A numeric character reference that is not a character; Python cannot convert 4,300 digits."""

_LARGEST_VOCABULARY: Final = 16 * 1024 * 1024
"""Bytes of the unpacked file; CLIP's has 3.2 MB."""


class InvalidVocabulary(Exception):
    """The file of merges is not CLIP's, or damaged."""


class ClipTokenizer(TextTokenizer):
    """Radford et al.'s tokenizer (openai/CLIP, ``simple_tokenizer.py``) on a compiled BPE.

    Special tokens are not recognised inside a text: data from a client is always plain text.
    """

    def __init__(
        self, vocabulary: Path = VOCABULARY, *, context_length: int = CONTEXT_LENGTH
    ) -> None:
        """Build from the file of merges that CLIP came with.

        Args:
            vocabulary: the file.
            context_length: tokens that the text tower reads.

        Raises:
            InvalidVocabulary: it is missing, damaged, or another file.
        """
        super().__init__(context_length, frame=2)
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

    def _split(self, texts: Sequence[str]) -> list[list[int]]:
        found = self._tokenizer.encode_batch_fast([clean(text) for text in texts])
        return [encoding.ids for encoding in found]

    def _framed(self, tokens: list[int]) -> list[int]:
        return [START_OF_TEXT, *tokens, END_OF_TEXT]


def _merges(vocabulary: Path) -> list[tuple[str, str]]:
    try:
        with gzip.open(vocabulary) as packed:  # never more than CLIP's own size
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


def clean(text: str) -> str:
    """Clean a text as CLIP does: fix mojibake, unescape HTML twice, single spaces, lower case."""
    return mended(text).lower()


def bounded(text: str) -> str:
    """As much of a text as any model reads, with single spaces."""
    return " ".join(text.split(maxsplit=MAX_TEXT_CHARACTERS))[:MAX_TEXT_CHARACTERS]


def mended(text: str) -> str:
    """The first cleaning step of OpenAI's and OpenCLIP's tokenizers, which keeps upper case."""
    start = bounded(text)
    if start.isascii() and start.isprintable() and "&" not in start:
        return start  # nothing to repair
    # White space may be half of a wrongly decoded character, so it is kept if there is not too
    # much.
    short = text if len(text) <= MAX_MENDED_CHARACTERS else start[:MAX_MENDED_CHARACTERS]
    whole = _ABSURD_REFERENCE.sub("\ufffd", _mended(short))
    plain = html.unescape(html.unescape(whole))
    return " ".join(plain.split())


def _mended(text: str) -> str:
    """The result of `ftfy.fix_text`, line by line, but in bounded time.

    ftfy repeats its steps until nothing changes. Nested entities (``&amp;amp;amp;``) or repeated
    mojibake can make that thousands of times. Here it ends after `_PASSES` and `_ENCODING_STEPS`;
    no text written by a person or a program needs more.
    """
    with_entities = True
    lines = []
    for line in text.split("\n"):
        # As in ftfy: after the first tag, entities are markup, not mistakes.
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
    """The 256 printable characters that represent bytes in the vocabulary, in its order."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    printable += range(ord("®"), ord("ÿ") + 1)
    others = len(set(range(256)) - set(printable))
    return [chr(code) for code in printable] + [chr(256 + extra) for extra in range(others)]
