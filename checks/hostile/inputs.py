"""What the search for the costliest input tries: structured inputs, and how each can be changed."""

import dataclasses
import io
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import numpy as np
from PIL import Image

from adapters.images.picture import decode_picture
from adapters.models.clip_tokenizer import ClipTokenizer
from domain.limits import (
    MAX_BODY_BYTES,
    MAX_IMAGE_BYTES,
    MAX_INPUTS,
    MAX_JSON_BRACKETS,
    MAX_JSON_COMMAS,
)
from entrypoints.http.bodies.base64_images import decode_image
from entrypoints.http.bodies.form import decode_form
from entrypoints.http.bodies.json import decode_json
from entrypoints.http.routes.openai import inputs_of
from entrypoints.http.schemas.cameras import BaselineRequest
from entrypoints.http.schemas.images import ClassifyRequest, EmbedRequest
from entrypoints.http.schemas.openai import EmbeddingsRequest
from tests.support import hostile_files as files
from tests.support.hostile_corpus import BYTES, corpus
from tests.support.mutated_pictures import mutated, seeds

_Genome = TypeVar("_Genome")


class Inputs(ABC, Generic[_Genome]):
    """Inputs of one kind. What an input is made from is its genome."""

    @abstractmethod
    def known(self) -> Iterator[tuple[str, _Genome]]:
        """What is known to be costly, by name."""

    @abstractmethod
    def fresh(self, rng: random.Random) -> tuple[str, _Genome]:
        """Something new, by name."""

    @abstractmethod
    def changed(self, genome: _Genome, rng: random.Random) -> _Genome:
        """Something near it."""

    @abstractmethod
    def work(self, genome: _Genome) -> Callable[[], object]:
        """What the server does with it; what is sent has been made before."""

    def whole(self, genome: _Genome) -> _Genome:
        """As much of it as a request of `MAX_BODY_BYTES` can hold.

        The search itself tries less of each, and therefore more of them.
        """
        return genome


# Pictures


class Pictures(Inputs[bytes]):
    """Files of one format, decoded as a worker does it."""

    def __init__(self, file_format: str) -> None:
        self._format = file_format

    def known(self) -> Iterator[tuple[str, bytes]]:
        """The files that hostile requests hold, and small whole ones."""
        for hostile in corpus():
            begins = hostile.name.upper().split()[0]
            if hostile.path == "/embed" and hostile.headers == BYTES and begins == self._format:
                yield hostile.name, hostile.body()
        if self._format == "JPEG":
            yield "100 scans of zeros at 8192 x 8192", files.progressive(100, 8192)
        for place, whole in enumerate(seeds()[self._format]):
            yield f"whole file {place}", whole

    def fresh(self, rng: random.Random) -> tuple[str, bytes]:
        """A picture of some size, pattern and options."""
        if self._format in _BY_HAND and rng.random() < 0.5:
            return _BY_HAND[self._format](rng)
        most = 100e6 if self._format in {"JPEG", "MPO"} else 2**24
        area = most * rng.choice((1, 1, 0.5, rng.random(), 0.001))
        shape = 2 ** rng.choice((0, 0, 0, rng.uniform(-16, 16)))
        width = max(1, min(65_500, int((area * shape) ** 0.5)))
        height = max(1, min(65_500, int(area / width)))
        if self._format == "WEBP":
            width, height = min(width, 16_383), min(height, 16_383)
        pattern = rng.choice(tuple(_PATTERNS))
        mode, options = _options(self._format, rng)
        for _ in range(4):
            data = _saved(
                Image.fromarray(_PATTERNS[pattern](width, height, rng)).convert(mode),
                self._format,
                options,
            )
            if len(data) <= MAX_IMAGE_BYTES:
                break
            height = max(1, int(height * 0.95 * MAX_IMAGE_BYTES / len(data)))
        told = ", ".join(f"{name} {value}" for name, value in options.items() if value is not None)
        return f"{pattern}, {width} x {height}, {mode}, {told}".rstrip(", "), data

    def changed(self, genome: bytes, rng: random.Random) -> bytes:
        """The file with wrong numbers, or parts more or less."""
        return mutated(genome, self._format, rng)[:MAX_IMAGE_BYTES]

    def work(self, genome: bytes) -> Callable[[], object]:
        """Decoding."""
        return lambda: decode_picture(genome)


def _noise(width: int, height: int, rng: random.Random, levels: int = 256) -> Any:
    random_numbers = np.random.default_rng(rng.getrandbits(32))
    step = 255 // (levels - 1)
    shape = (height, width, 3)
    return random_numbers.integers(0, levels, shape, dtype=np.uint16).astype(np.uint8) * step


_PATTERNS: Final[dict[str, Callable[[int, int, random.Random], Any]]] = {
    "noise": _noise,
    "noise of two levels": lambda width, height, rng: _noise(width, height, rng, 2),
    "zeros": lambda width, height, _: np.zeros((height, width, 3), np.uint8),
    "stripes": lambda width, height, _: np.broadcast_to(
        (np.arange(width) % 2 * 255).astype(np.uint8)[None, :, None], (height, width, 3)
    ).copy(),
    "sparse": lambda width, height, rng: (
        _noise(width, height, rng) * (_noise(width, height, rng)[..., :1] > 250)
    ),
}


def _options(file_format: str, rng: random.Random) -> tuple[str, dict[str, Any]]:
    """A mode, and the decoder's arguments for it."""
    if file_format in {"JPEG", "MPO"}:
        options: dict[str, Any] = {
            "quality": rng.choice((1, 20, 75, 95, 100)),
            "subsampling": rng.choice((0, 1, 2)),
        }
        if file_format == "JPEG":
            options["progressive"] = rng.random() < 0.6
            options["restart_marker_blocks"] = rng.choice((0, 0, 1, 16))
        return rng.choice(("RGB", "RGB", "L", "CMYK")), options
    if file_format == "PNG":
        return rng.choice(("RGB", "RGBA", "LA", "L", "P", "1")), {"compress_level": 1}
    if file_format == "WEBP":
        lossless = rng.random() < 0.5
        quality = rng.choice((0, 50, 100))
        return rng.choice(("RGB", "RGBA")), {"lossless": lossless, "quality": quality, "method": 0}
    return ("P" if file_format == "GIF" else rng.choice(("RGB", "L", "P", "1"))), {}


def _saved(picture: Image.Image, file_format: str, options: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    if file_format == "MPO":
        options = {**options, "save_all": True, "append_images": [files.TINY]}
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def _jpeg(rng: random.Random) -> tuple[str, bytes]:
    if rng.random() < 0.3:
        scans = rng.randint(20, 100)
        return f"real scans repeated, {scans}", files.repeated_scans(scans)
    scans, side = rng.randint(64, 100), 2 ** rng.randint(3, 13)
    return f"{scans} scans of zeros at {side} x {side}", files.progressive(scans, side)


def _png(rng: random.Random) -> tuple[str, bytes]:
    depth, colour = rng.choice(((1, 0), (8, 0), (16, 0), (8, 2), (16, 2), (8, 3), (8, 6), (16, 6)))
    interlaced = rng.random() < 0.6
    shape = 2 ** rng.choice((0, 0, 4, -4, 11, -11))
    width, height = int(files.SIDE * shape), int(files.SIDE / shape)
    data = files.png(width, height, depth=depth, colour=colour, interlaced=interlaced)
    named = f"zeros, {width} x {height}, {depth} bits of colour type {colour}"
    return named + (", interlaced" if interlaced else ""), data


def _gif(rng: random.Random) -> tuple[str, bytes]:
    comments = rng.randint(1, 9_999)
    whole = _saved(files.full("P"), "GIF", {})
    extra = b"\x21\xfe" + b"\x01a" * comments + b"\0"
    start = 13 + 3 * (2 << (whole[10] & 7)) * (whole[10] >> 7)
    return f"{comments} comments before 4096 x 4096", whole[:start] + extra + whole[start:]


def _bmp(rng: random.Random) -> tuple[str, bytes]:
    bits, compression = rng.choice(((8, 1), (4, 2)))
    codes = (b"\x01\x05", b"\xff\x12", b"\0\0", b"\0\2\1\0", b"\0\2\0\0", b"\0\4\1\2\3\4", b"\2\5")
    unit = b"".join(rng.choices(codes, k=rng.randint(1, 4)))
    # Runs that fill the picture and no more; half of them, or as many as a file can hold.
    times = rng.choice((files.SIDE, files.SIDE * 16, MAX_IMAGE_BYTES // 2 // len(unit)))
    data = (unit * times)[: MAX_IMAGE_BYTES - 2000]
    named = f"run-length codes {unit.hex(' ')}, {len(data) // len(unit)} times"
    return named, files.bmp(files.SIDE, files.SIDE, bits, compression=compression, data=data)


_BY_HAND: Final[dict[str, Callable[[random.Random], tuple[str, bytes]]]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "GIF": _gif,
    "BMP": _bmp,
}

# Bodies


@dataclass(frozen=True, slots=True)
class Body:
    """A body: between a head and a tail, units again and again.

    Attributes:
        kind: which request it is.
        head: how it begins.
        units: what is repeated.
        tail: how it ends.
        within: whether it has no more commas and brackets than are allowed.
        share: what part of the largest body it is, and of those limits.
    """

    kind: str
    head: bytes
    units: tuple[bytes, ...]
    tail: bytes
    within: bool = True
    share: float = 1 / 8

    @property
    def data(self) -> bytes:
        size = int(MAX_BODY_BYTES * self.share)
        unit = b"".join(self.units)
        times = (size - len(self.head) - len(self.tail) - 8) // len(unit)
        if self.within:
            for sign, limit in ((b",", MAX_JSON_COMMAS), (b"[", MAX_JSON_BRACKETS)):
                times = min(times, (int(limit * self.share) - 100) // max(1, unit.count(sign)))
        body = self.head + unit * times + self.tail
        rest = size - len(body) - 8
        if self.within and body.startswith(b"{") and rest > len(unit):
            body = b'{"x":"' + b"\\n" * ((rest - 10) // 2) + b'",' + body[1:]
        return body


class _Bodies(Inputs[Body]):
    heads: Sequence[tuple[str, bytes, bytes]]
    units: Sequence[bytes]

    def known(self) -> Iterator[tuple[str, Body]]:
        """Each head with each unit."""
        for kind, head, tail in self.heads:
            for unit in self.units:
                yield f"{head[-40:]!r} {unit!r}", Body(kind, head, (unit,), tail)

    def fresh(self, rng: random.Random) -> tuple[str, Body]:
        """Some head with some units."""
        kind, head, tail = rng.choice(self.heads)
        units = tuple(rng.choices(self.units, k=rng.randint(1, 4)))
        return "", Body(kind, head, units, tail, rng.random() < 0.8)

    def changed(self, genome: Body, rng: random.Random) -> Body:
        """One unit more, less or other."""
        units = list(genome.units)
        place = rng.randrange(len(units) + 1)
        units[place : place + rng.randint(0, 1)] = rng.choices(self.units, k=rng.randint(0, 2))
        units = units[:8] or [rng.choice(self.units)]
        return Body(genome.kind, genome.head, tuple(units), genome.tail, rng.random() < 0.8)

    def whole(self, genome: Body) -> Body:
        """The largest body."""
        return dataclasses.replace(genome, share=1)


class JsonBodies(_Bodies):
    """JSON up to the images and texts in it, which runs on the event loop or in a thread."""

    heads = (
        ("embed", b'{"image":"', b'"}'),
        ("embed", b'{"image":"data:;base64,', b'"}'),
        ("embed", b'{"image":"","y":[', b"1]}"),
        ("embed", b'{"image":"","y":{', b'"z":1}}'),
        ("baseline", b'{"embeddings":[[', b"1]]}"),
        ("baseline", b'{"images":[', b'"a"]}'),
        ("openai", b'{"input":[', b'"a"]}'),
        ("openai", b'{"input":"', b'"}'),
    )
    units = (
        b"1,", b"-0.1,", b"0.12345678901234567,", b"1.5e300,", b"12345678901234567890,", b"null,",
        b'"",', b'"a",', b"[],", b"{},", b"[1],", b'{"a":1},', b"[", b'{"a":', b'"a":1,', b'"b":1,',
        b"\\n", b"\\u00e9", b"\\ud83d\\ude00", b"AA AA", b"AAAA", b"%41", b"%4", b" ",
        b"AAAA\\r\\n", b"\xc3\xa9", b"=",
    )  # fmt: skip

    def work(self, genome: Body) -> Callable[[], object]:
        """Read it as the routes do."""
        body, kind = genome.data, genome.kind
        return lambda: _read_json(body, kind)


def _read_json(body: bytes, kind: str) -> object:
    if kind == "baseline":
        baseline = decode_json(body, BaselineRequest).data
        return [decode_image(str(image), name="x") for image in baseline.images]
    if kind == "openai":
        sent = decode_json(body, EmbeddingsRequest).data
        return inputs_of(sent.input or "", None, check_texts=True)
    return decode_json(body, EmbedRequest)


_PART: Final = b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\n'


class Forms(_Bodies):
    """Forms."""

    heads = (
        ("form", _PART, b"\r\n--x--\r\n"),
        ("form", _PART[:-4], b"\r\n\r\n--x--\r\n"),
        ("form", _PART[:-2], b"\r\n\r\n--x--\r\n"),
        ("form", _PART.replace(b"image", b"labels") + b"[", b'"a"]\r\n--x--\r\n'),
        ("form", b"", b"\r\n--x--\r\n"),
    )
    units = (
        b"\r\n--", b"\r\n--x-", b"\r\n", b"\r", b"\n", b"-", b"a", b"; a=b", b"A: b\r\n", b'"',
        b"\\", b"[", b'"a",', b"1,", _PART + b"a\r\n",
        _PART.replace(b"image", b"labels") + b"a\r\n",
    )  # fmt: skip

    def work(self, genome: Body) -> Callable[[], object]:
        """Read it as the routes do."""
        body = genome.data
        return lambda: decode_form(body, ClassifyRequest, "x")


# Texts


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts that are alike, but for a number in front.

    Attributes:
        pieces: what each is made from, again and again.
        length: characters of each.
        end: what it ends with.
        count: how many there are.
    """

    pieces: tuple[str, ...]
    length: int
    end: str = ""
    count: int = 4

    def text(self, number: int) -> str:
        unit = "".join(self.pieces)
        return f"{number} " + (unit * (self.length // len(unit) + 1))[: self.length] + self.end


class TextInputs(Inputs[Texts]):
    """Texts, tokenized as the encoders do it."""

    _pieces = (
        "&amp;", "amp;", "&", "#38;", "&#", "1", "&lt;", "&#233;", "＆", "Â", "Ã©", "â€œ", "€",
        "ж", "Ð¶", "é", "\u0301", "\u0316", "&#769;", "\x1b[", "\n", " ", "a", "-", "'s", "İ",
        "ﷺ", "漢", "😀", "ﬁ", "<", "&ampamp", "â€\ufffd", "\u00ad", "ß", "Ａ", "„", "\x85",
    )  # fmt: skip

    def __init__(self) -> None:
        self._tokenizer = ClipTokenizer()

    def known(self) -> Iterator[tuple[str, Texts]]:
        """Each piece alone, after an ampersand or not."""
        for piece in self._pieces:
            yield repr(piece), Texts((piece,), 7_000, "é")
            yield repr(piece), Texts((piece,), 2_000)

    def fresh(self, rng: random.Random) -> tuple[str, Texts]:
        """Some pieces."""
        pieces = tuple(rng.choices(self._pieces, k=rng.randint(1, 6)))
        return "", Texts(pieces, rng.choice((500, 1_020, 2_400, 7_000)), rng.choice(("", "é", "&")))

    def changed(self, genome: Texts, rng: random.Random) -> Texts:
        """One piece more, less or other."""
        pieces = list(genome.pieces)
        place = rng.randrange(len(pieces) + 1)
        pieces[place : place + rng.randint(0, 1)] = rng.choices(self._pieces, k=rng.randint(0, 2))
        length = rng.choice((genome.length, genome.length, 1_020, 2_400))
        return Texts(tuple(pieces[:40]) or ("&",), length, genome.end)

    def work(self, genome: Texts) -> Callable[[], object]:
        """Tokenizing them."""
        texts = [genome.text(number) for number in range(genome.count)]
        return lambda: self._tokenizer(texts)

    def whole(self, genome: Texts) -> Texts:
        """As many as there may be."""
        size = len(genome.text(MAX_INPUTS).encode("utf-8", "surrogatepass")) + 3
        return dataclasses.replace(genome, count=min(MAX_INPUTS, MAX_BODY_BYTES // size))
