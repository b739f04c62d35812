"""Texts: 2 to 77 tokens, whatever they hold."""

from collections.abc import Iterator

from adapters.models.clip_tokenizer import END_OF_TEXT, START_OF_TEXT, ClipTokenizer
from domain.limits import CONTEXT_LENGTH
from tests.support.hostile_corpus import UNICODE

_tokenizer = ClipTokenizer()


def run(data: bytes) -> None:
    (tokens,) = _tokenizer([data.decode("utf-8", errors="replace")])
    assert 2 <= len(tokens) <= CONTEXT_LENGTH
    assert (tokens[0], tokens[-1]) == (START_OF_TEXT, END_OF_TEXT)
    assert all(0 <= token < START_OF_TEXT for token in tokens[1:-1])


def seeds() -> Iterator[bytes]:
    yield b"a photo of a cat"
    yield from ((text * 40).encode() for text in UNICODE.values())
