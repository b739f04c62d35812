"""Our compiled tokenizer against OpenCLIP's, token by token."""

import random
import time
from collections.abc import Sequence

import open_clip.tokenizer
import pytest

from adapters.models.clip_tokenizer import (
    END_OF_TEXT,
    START_OF_TEXT,
    ClipTokenizer,
)
from domain.limits import MAX_TEXT_CHARACTERS

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


MOJIBAKE = [
    "cafÃ© â€œquotedâ€\x9d it&rsquo;s voilÃ  le travail",
    "ÃƒÂ©tÃƒÂ© wrongly decoded twice",
    "&lt;b&gt; &amp;amp;lt; &amp;eacute; &copy; &#233; &#xe9;&nbsp;x",
    "<b> &amp;amp;lt; </b>",
    "ＦＵＬＬ width ﬁ ﬂ \x1b[31mred\x1b[0m \x00\x07 \ufeff",
    "\ud83d\ude00 surrogates",
    "é" * 20 + "e\u0301" * 20,
    "Ð¿Ñ€Ð¸Ð²ÐµÑ‚ Ð¼Ð¸Ñ€",
    "two &lt; lines\n<b> and\n&lt; a third Â \n",
    "¯\\_(ã\x83\x84)_/¯ ✔ âœ”",
]


@pytest.mark.parametrize("text", MOJIBAKE)
def test_mended_like_openclip(tokenizer: ClipTokenizer, text: str) -> None:
    assert tokenizer([text]) == [reference(text)]


def test_two_thousand_random_texts_in_need_of_mending(tokenizer: ClipTokenizer) -> None:
    rng = random.Random(8)
    pieces = [
        *"aé ß&;<Â©Ã¢€™“”",
        "&amp;",
        "&lt;",
        "&#233;",
        "Ã©",
        "â€œ",
        "cafÃ©",
        "\n",
        "\x1b[1m",
        "ﬁ",
        "Ａ",
    ]
    texts = ["".join(rng.choices(pieces, k=rng.randint(0, 25))) for _ in range(2000)]
    assert tokenizer(texts) == [reference(text) for text in texts]


@pytest.mark.parametrize("length", [400, 1000, 2400])
def test_long_texts_in_several_languages_lose_nothing(
    tokenizer: ClipTokenizer, length: int
) -> None:
    for sentence in (
        "the international organization of television photography in Washington ",
        "Übergrößenträgerbekleidungsgeschäft und Straßenbahnhaltestellen ",
        "Быстрая коричневая лиса прыгает через ленивую собаку ",
        "白い猫が窓のそばに座っている",
        "caf&eacute; &amp; cr&egrave;me br&ucirc;l&eacute;e ",
    ):
        text = (sentence * 100)[:length]
        assert tokenizer([text]) == [reference(text)]


WORST = {
    "entities in entities": lambda n: "&" + "amp;" * (n // 4),
    "numbers in numbers": lambda n: "&" + "#38;" * (n // 4),
    "full-width entities": lambda n: "＆" + "amp;" * (n // 4),
    "digits": lambda n: "&#" + "1" * n,
    "mojibake of mojibake": lambda n: "Â" * n + "©",
    "mojibake in pieces": lambda n: "жÐ¶" * (n // 3),
    "marks": lambda n: "é" + "\u0301\u0316" * (n // 2),
    "marks as entities": lambda n: "e" + "&#769;&#790;" * (n // 12),
    "controls": lambda n: "\x1b[" * (n // 2),
    "surrogates": lambda n: "\ud83d" * n,
    "ampersands": lambda n: "&" * n,
    "white space": lambda n: " \n" * (n // 2) + "é",
    "one word": lambda n: "a" * n,
    "dashes": lambda n: "-" * n + "é",
    "half entities": lambda n: "&ampamp" * (n // 7),
    "lossy": lambda n: "â€\ufffd" * (n // 3),
}


@pytest.mark.parametrize("name", WORST)
def test_time_grows_no_faster_than_a_text_and_ends_growing(
    tokenizer: ClipTokenizer, name: str
) -> None:
    def cost(length: int) -> float:
        texts = [WORST[name](length)] * 8
        times = []
        for _ in range(3):
            started = time.thread_time()
            assert all(len(tokens) <= 77 for tokens in tokenizer(texts))
            times.append(time.thread_time() - started)
        return min(times)

    full = cost(MAX_TEXT_CHARACTERS)
    # Twice the characters: at most twice the time, generously; and beyond the limit, no more.
    assert cost(MAX_TEXT_CHARACTERS) <= 8 * cost(MAX_TEXT_CHARACTERS // 2) + 0.02
    assert cost(8 * MAX_TEXT_CHARACTERS) <= 4 * full + 0.02


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


class Recorded(ClipTokenizer):
    """Keeps what it had to split."""

    def __init__(self) -> None:
        super().__init__()
        self.tokenized: list[str] = []

    def _split(self, texts: Sequence[str]) -> list[list[int]]:
        self.tokenized.extend(texts)
        return super()._split(texts)


def test_what_was_just_tokenized_is_not_tokenized_again_to_be_counted(
    tokenizer: ClipTokenizer,
) -> None:
    recorded = Recorded()
    seen = [f"counted once, {number}" for number in range(100)] + ["\ud83d alone"]
    expected = sum(map(len, recorded(seen)))
    recorded.tokenized.clear()
    assert recorded.count(seen).read == expected
    assert recorded.tokenized == []
    new = "a text that nobody has asked for"
    texts = [seen[0], new, new]
    assert recorded.count(texts).read == sum(map(len, tokenizer(texts)))
    assert set(recorded.tokenized) == {new}
    recorded.tokenized.clear()
    assert recorded.count([new, *seen]).read > expected
    assert recorded.tokenized == []


def test_counts_are_kept_of_so_many_texts_and_no_more() -> None:
    recorded = Recorded()
    recorded(["the first of very many"])
    recorded([f"{number}" for number in range(20_000)])
    recorded.tokenized.clear()
    recorded.count(["the first of very many", "19999"])
    assert recorded.tokenized == ["the first of very many"]
