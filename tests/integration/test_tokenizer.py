"""Our compiled tokenizer against OpenCLIP's, token by token."""

import random
import time

import open_clip.tokenizer
import pytest

from adapters.models.tokenizer import END_OF_TEXT, START_OF_TEXT, ClipTokenizer

ALPHABET = "abcdefghij XYZ0123'\"!?.,;-_&<>éüß漢😀\n\t\u00a0\u3000Ωж"
TEXTS = [
    "a photo of a cat",
    "",
    "Person's  walking\n dog!!!",
    "日本語のテキスト",
    "😀😀😀 hi",
    "&amp;lt;b&gt; x",
    "don't we'll I'm I'VE",
    "schÃ¶n",
    "1234 56.7%",
    "naïve café",
    "\u200bzero ﬁne İstanbul ß ẞ",
    "x" * 300,
    "word " * 100,
]


@pytest.fixture(scope="module")
def tokenizer() -> ClipTokenizer:
    return ClipTokenizer()


def reference(text: str) -> list[int]:
    tokens: list[int] = open_clip.tokenizer.tokenize([text])[0].tolist()
    return tokens[: tokens.index(END_OF_TEXT) + 1]


@pytest.mark.parametrize("text", TEXTS)
def test_known_texts(tokenizer: ClipTokenizer, text: str) -> None:
    assert tokenizer([text]) == [reference(text)]


def test_two_thousand_random_texts(tokenizer: ClipTokenizer) -> None:
    rng = random.Random(7)
    texts = ["".join(rng.choices(ALPHABET, k=rng.randint(0, 60))) for _ in range(2000)]
    assert tokenizer(texts) == [reference(text) for text in texts]


@pytest.mark.parametrize("words", [74, 75, 76, 500])
def test_at_most_77_tokens_with_the_end_kept(tokenizer: ClipTokenizer, words: int) -> None:
    (tokens,) = tokenizer(["dog " * words])
    assert len(tokens) == min(words, 75) + 2
    assert tokens[0] == START_OF_TEXT
    assert tokens[-1] == END_OF_TEXT


def test_special_tokens_in_a_text_are_only_text(tokenizer: ClipTokenizer) -> None:
    (tokens,) = tokenizer(["<end_of_text> <|endoftext|> dog"])
    assert tokens.count(END_OF_TEXT) == 1
    assert tokens.count(START_OF_TEXT) == 1


@pytest.mark.parametrize("text", ["a" * 10_000_000, "ab " * 3_000_000, " " * 10_000_000 + "dog"])
def test_ten_megabytes_are_cut_and_not_chewed(tokenizer: ClipTokenizer, text: str) -> None:
    started = time.thread_time()
    (tokens,) = tokenizer([text])
    assert len(tokens) <= 77
    # Processor time, not wall time: OpenCLIP's own tokenizer would take hours for the first one.
    assert time.thread_time() - started < 10
