"""Hostile requests by name, each with the response that it must get."""

import base64
import functools
import gzip
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from domain.limits import MAX_BODY_BYTES, MAX_INPUTS
from tests.support import hostile_files as files
from tests.support.hostile_files import MEGABYTE, SIDE
from tests.support.photos import as_base64, as_file, photo

JSON: Final = {"Content-Type": "application/json"}
BYTES: Final = {"Content-Type": "application/octet-stream"}

IMAGE: Final = as_base64(photo("cat"))
BASELINE: Final = [1.0] + [0.0] * 767

VALID_REQUESTS: Final[dict[str, dict[str, Any]]] = {
    "/embed": {"image": IMAGE},
    "/anomaly-score": {"image": IMAGE, "baseline_embedding": BASELINE},
    "/classify": {"image": IMAGE, "labels": ["a cat", "a dog"]},
    "/similarity": {"image": IMAGE, "text": "a cat"},
    "/batch-similarity": {"image": IMAGE, "texts": ["a cat"]},
    "/embed/batch": {"images": [IMAGE]},
    "/embed/text": {"texts": ["a cat"]},
    "/compare": {"image_a": IMAGE, "image_b": IMAGE},
    "/baseline": {"images": [IMAGE]},
    "/v1/embeddings": {"input": [f"data:image/jpeg;base64,{IMAGE}", "a cat"]},
}
"""For every endpoint with a body, the fields of a valid request."""


@dataclass(frozen=True, slots=True)
class Hostile:
    """A hostile request.

    Attributes:
        name: what it tries.
        body: makes what is sent.
        status: the response's status.
        code: the error's code; None if the response is not an error.
        path: where it is sent.
        method: how it is sent.
        headers: what is sent with it.
        item: the code is that of the batch's first item, the response itself being 200.
        costly: it takes seconds to decode, so a slow machine may say `image_too_expensive` instead.
    """

    name: str
    body: Callable[[], bytes]
    status: int = 200
    code: str | None = None
    path: str = "/embed"
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=lambda: dict(JSON))
    item: bool = False
    costly: bool = False


def corpus() -> list[Hostile]:
    """All of it; bodies are made when they are sent."""
    return [*_images(), *_ways_in(), *_other_formats(), *_bodies(), *_texts(), *_forms(), *_paths()]


def image(
    name: str, file: Callable[[], bytes], code: str | None = None, *, costly: bool = False
) -> Hostile:
    """A file as the whole body."""
    return Hostile(name, file, 422 if code else 200, code, headers=dict(BYTES), costly=costly)


def text(name: str, path: str, body: Callable[[], bytes], code: str | None = None) -> Hostile:
    """JSON, well-formed."""
    status = 200 if code is None else 400 if path.startswith("/v1/") else 422
    return Hostile(name, body, status, code, path=path)


def not_json(name: str, path: str, body: Callable[[], bytes]) -> Hostile:
    return Hostile(name, body, 400, "invalid_json", path=path)


def request_body(path: str, **fields: Any) -> bytes:
    """The body of a valid request, with other or further fields."""
    return json.dumps(VALID_REQUESTS[path] | fields).encode()


def spliced(path: str, name: str, raw: bytes) -> bytes:
    """The body of a valid request in which one field has a raw value."""
    fields = VALID_REQUESTS[path].items()
    others = b"".join(
        json.dumps(key).encode() + b":" + json.dumps(value).encode() + b","
        for key, value in fields
        if key != name
    )
    return b"{" + others + b'"' + name.encode() + b'":' + raw + b"}"


def filled(start: bytes, unit: bytes, end: bytes) -> bytes:
    """A unit repeated until the body is as large as is allowed."""
    return start + unit * ((MAX_BODY_BYTES - len(start) - len(end)) // len(unit)) + end


@functools.cache
def many_empty_scans() -> bytes:
    """10 MiB of scans at the largest size."""
    return files.progressive(64)[:-2] + files.scan(1, 63, 0, b"") * 1_000_000


def _images() -> Iterator[Hostile]:
    pixels, parts, broken = "too_many_pixels", "too_many_parts", "damaged_image"
    largest = 2**31 - 1
    yield from (
        # Decompression bombs: what is claimed
        image("PNG of 65535 x 65535", lambda: files.png_that_claims(65535, 65535), pixels),
        image("PNG of the largest size", lambda: files.png_that_claims(largest, largest), pixels),
        image("PNG of 0 x 0", lambda: files.png_that_claims(0, 0), broken),
        image("JPEG of 65535 x 65535", lambda: files.jpeg_that_claims(65535, 65535), pixels),
        image("JPEG of 0 x 0", lambda: files.jpeg_that_claims(0, 0), broken),
        image("GIF of 65535 x 65535", lambda: files.gif(65535, 65535, (16, 16)), pixels),
        image("GIF frame outside its screen", lambda: files.gif(1, 1, (65535, 65535)), pixels),
        image("GIF frame on a tiny screen", lambda: files.gif(1, 1, (SIDE, SIDE)), broken),
        image("GIF of 0 x 0", lambda: files.gif(0, 0, (0, 0)), broken),
        image("BMP of 65535 x 65535", lambda: files.bmp(65535, 65535, 24), pixels),
        image("BMP of negative size", lambda: files.bmp(-1, -(2**31), 24), broken),
        image("BMP without its 64 MiB", lambda: files.bmp(SIDE, SIDE, 32), broken),
        image("WebP canvas of 2^24", lambda: files.webp_animation(1, 2**24), pixels),
        image("WebP canvas without a picture", lambda: files.webp_canvas(2**24, 2**24), broken),
        image(
            "WebP of 16384 x 16384",
            lambda: files.webp_lossless_that_claims(16384, 16384),
            pixels,
        ),
        image(
            "WebP frame larger than its canvas",
            lambda: files.webp_canvas(
                SIDE, SIDE, files.webp_lossless_that_claims(16384, 16384)[12:]
            ),
            pixels,
        ),
        image("WebP without pixels", lambda: files.webp_lossless_that_claims(SIDE, SIDE), broken),
        image("WebP of 4 GiB", lambda: b"RIFF" + b"\xff" * 4 + files.tiny("WEBP")[8:]),
        # Decompression bombs: 4096 x 4096 in a few kilobytes
        image("PNG of zeros, RGB", lambda: files.png(SIDE, SIDE)),
        image("PNG of zeros, palette", lambda: files.png(SIDE, SIDE, colour=3)),
        image("PNG of zeros, 16-bit grey", lambda: files.png(SIDE, SIDE, depth=16, colour=0)),
        image(
            "PNG of zeros, 16-bit RGBA interlaced",
            lambda: files.png(SIDE, SIDE, depth=16, colour=6, interlaced=True),
        ),
        image("PNG of one row", lambda: files.png(SIDE, 1)),
        image("GIF of zeros", lambda: as_file(files.full("P"), "GIF")),
        image("WebP of zeros", lambda: as_file(files.full("RGB"), "WEBP", lossless=True)),
        image("WebP of noise, transparent", files.noisy_webp),
        image("WebP of 50,000 frames", lambda: files.webp_animation(50_000, SIDE)),
        image("BMP of 1 bit", lambda: files.bmp(SIDE, SIDE, 1, data=bytes(SIDE * SIDE // 8))),
        image(
            "JPEG of 4096 x 4096 in 632 bytes", lambda: files.jpeg_that_claims(SIDE, SIDE), broken
        ),
        image("JPEG of a number of bytes FF", lambda: b"\xff\xd8" + b"\xff" * 40_000, broken),
        image("JPEG of 10 MB of FF", lambda: b"\xff\xd8" + b"\xff" * 10 * MEGABYTE, broken),
        image("GIF of 43 bytes and 4 GiB", files.gif_that_disposes, pixels),
        # What is slow to read
        image("JPEG of a million scans", many_empty_scans, parts),
        image("JPEG of 101 scans", lambda: files.progressive(101), parts),
        image("JPEG of 100 scans", lambda: files.progressive(100)),
        image("JPEG of 100 scans of noise", lambda: files.repeated_scans(100), broken),
        image("JPEG of scans in its metadata", files.thumbnail_of_scans),
        image(
            "JPEG of 65,000 segments",
            lambda: files.jpeg_with(files.segment(0xE4, b"") * 65_000),
            parts,
        ),
        image(
            "JPEG of EXIF in pieces",
            lambda: files.jpeg_with(files.segment(0xE1, b"Exif\0\0" + bytes(10)) * 500_000),
            parts,
        ),
        image(
            "JPEG of 8 MB of comments",
            lambda: files.jpeg_with(files.segment(0xFE, bytes(9000)) * 900),
        ),
        image("JPEG of junk", lambda: files.jpeg_with(bytes(10 * MEGABYTE))),
        image("JPEG of fill bytes", lambda: files.jpeg_with(b"\xff" * 10 * MEGABYTE)),
        image("JPEG of restarts", lambda: files.jpeg_with(b"\xff\xd0" * 5 * MEGABYTE)),
        image(
            "BMP in runs of one pixel",
            lambda: files.bmp(SIDE, SIDE, 8, compression=1, data=b"\x01\x05" * 5 * MEGABYTE),
            broken,
            costly=True,
        ),
        image(
            "BMP of rows that end at once",
            lambda: files.bmp(SIDE, SIDE, 8, compression=1, data=b"\x01\x05\0\0" * SIDE),
            costly=True,
        ),
        image(
            "BMP of half bytes",
            lambda: files.bmp(
                SIDE, SIDE, 4, compression=2, data=(b"\xff\x12" * 17 + b"\0\0") * SIDE
            ),
        ),
        image(
            "BMP of moves to nowhere",
            lambda: files.bmp(SIDE, SIDE, 8, compression=1, data=b"\0\2\0\0" * 2_500_000),
            broken,
        ),
        image(
            "GIF of 5 million comments", lambda: files.gif_with_tiny_blocks(0xFE, 5_000_000), parts
        ),
        image(
            "GIF of 5 million blocks", lambda: files.gif_with_tiny_blocks(0xFF, 5_000_000), parts
        ),
        # Few enough, so that its pixels are looked at.
        image("GIF of 9,000 comments", lambda: files.gif_with_tiny_blocks(0xFE, 9000), broken),
        image("GIF of junk", lambda: files.gif(16, 16, (16, 16), extra=bytes(10_000_000)), parts),
        image(
            "PNG of 800,000 chunks",
            lambda: files.png_with(files.chunk(b"teSt", b"") * 800_000),
            parts,
        ),
        image("PNG of 9,000 chunks", lambda: files.png_with(files.chunk(b"teSt", b"") * 9000)),
        image(
            "PNG of 800,000 empty IDATs",
            lambda: files.png_with(files.chunk(b"IDAT", b"") * 800_000),
            parts,
        ),
        # Metadata
        *(
            image(
                f"PNG with a bomb in {kind.decode()}",
                lambda kind=kind: files.png_with(  # type: ignore[misc]
                    files.compressed_text(kind, 200 * MEGABYTE)
                ),
            )
            for kind in (b"zTXt", b"iTXt", b"iCCP")
        ),
        image(
            "PNG with 70 texts of 1 MB",
            lambda: files.png_with(files.compressed_text(b"zTXt", MEGABYTE, 70)),
        ),
        image(
            "PNG with 9,900 colour profiles",
            lambda: files.png_with(files.compressed_text(b"iCCP", MEGABYTE, 9900)),
        ),
        image(
            "APNG of 2^31 frames",
            lambda: files.png_with(files.chunk(b"acTL", b"\x7f\xff\xff\xff" * 2)),
        ),
        image("EXIF of 300 GB", lambda: files.exif_in_png(files.overlapping_exif())),
        image("EXIF that loops", lambda: files.exif_in_png(files.looping_exif())),
        image("EXIF of 2^32 numbers", lambda: files.exif_in_png(files.counting_exif())),
        image(
            "JPEG with 8 MB of colour profile",
            lambda: files.jpeg_with(
                b"".join(
                    files.segment(0xE2, b"ICC_PROFILE\0" + bytes((place, 255)) + bytes(30_000))
                    for place in range(1, 256)
                )
            ),
        ),
        image("MPO of 2^32 pictures", lambda: files.multi_picture(2**32 - 1, offset=0)),
        image("MPO that loops", lambda: files.multi_picture(2, offset=0)),
        image("MPO of 4000 pictures", lambda: files.multi_picture(4000, offset=1, entries=4000)),
        # Two things at once
        image(
            "GIF and JavaScript",
            lambda: b"GIF89a/*" + files.gif(16, 16, (16, 16))[8:] + b"*/=1;alert(1)",
            broken,
        ),
        image("JPEG and ZIP", lambda: files.with_a_zip(files.tiny("JPEG"))),
        image("PDF and JPEG", lambda: b"%PDF-1.7\n" + files.tiny("JPEG"), "unsupported_format"),
        image("JPEG and HTML", lambda: files.jpeg_with(files.segment(0xFE, b"<script>"))),
        image("PNG and 5 MB", lambda: files.tiny("PNG") + os.urandom(5 * MEGABYTE)),
        image("PNG and PNG", lambda: files.tiny("PNG") * 2),
        image("JPEG compressed again", lambda: gzip.compress(files.tiny("JPEG")), "not_an_image"),
        image("nothing", lambda: b"", "not_an_image"),
        image("10 MiB of zeros", lambda: bytes(10 * 1024 * 1024), "not_an_image"),
    )


def _ways_in() -> Iterator[Hostile]:
    """The worst files by every way that an image comes in."""
    for name, file, code in (
        ("scans", many_empty_scans, "too_many_parts"),
        ("pixels", lambda: files.png_that_claims(65535, 65535), "too_many_pixels"),
        ("another format", lambda: files.header("TIFF"), "unsupported_format"),
    ):
        for path in VALID_REQUESTS:
            if path == "/embed/text":
                continue

            def body(path: str = path, file: Callable[[], bytes] = file) -> bytes:
                encoded = base64.b64encode(file()).decode()
                if path == "/v1/embeddings":
                    return request_body(path, input=f"data:image/png;base64,{encoded}")
                if path in {"/embed/batch", "/baseline"}:
                    return request_body(path, images=[encoded])
                return request_body(path, **{"image_b" if path == "/compare" else "image": encoded})

            status = 400 if path.startswith("/v1/") else 422
            item = path == "/embed/batch"
            yield Hostile(f"{name}: {path}", body, 200 if item else status, code, path, item=item)

        def form(file: Callable[[], bytes] = file) -> bytes:
            return part("image", file()) + END

        yield Hostile(f"{name}: form", form, 422, code, headers=dict(FORM))


def _other_formats() -> Iterator[Hostile]:
    named = ("AVIF", "HEIC", "ICO", "JPEG2000", "JPEG XL", "PDF", "PSD header", "SVG", "TIFF")
    for name, data in files.others():
        code = "unsupported_format" if name in named else "not_an_image"
        yield image(f"format {name}", lambda data=data: data, code)  # type: ignore[misc]


def _bodies() -> Iterator[Hostile]:
    deep, deeper = 100_000, 1_000_000
    for path, fields in VALID_REQUESTS.items():
        first = next(iter(fields))
        for where, name in (("a known", first), ("an unknown", "unknown")):
            yield not_json(
                f"nested in {where} field: {path}",
                path,
                lambda path=path, name=name: spliced(  # type: ignore[misc]
                    path, name, b"[" * deep + b"]" * deep
                ),
            )
        yield text(
            f"nested a million times: {path}",
            path,
            lambda path=path, name=first: spliced(  # type: ignore[misc]
                path, name, b"[" * deeper + b"]" * deeper
            ),
            "too_many_values",
        )
    yield not_json("nested objects", "/embed", lambda: b'{"a":' * deeper)
    embed = functools.partial(spliced, "/embed", "image")
    base64_code = "invalid_base64"
    long = 13 * MEGABYTE
    yield from (
        text("13 MB of padding", "/embed", lambda: embed(b'"' + b"=" * long + b'"'), base64_code),
        text("13 MB of spaces", "/embed", lambda: embed(b'"' + b" " * long + b'"'), "not_an_image"),
        text(
            "13 MB of escaped line breaks",
            "/embed",
            lambda: embed(b'"' + b"\\n" * (long // 2) + b'"'),
            "not_an_image",
        ),
        text(
            "data URI of 13 MB of spaces",
            "/embed",
            lambda: embed(b'"data:' + b" " * long + b'"'),
            base64_code,
        ),
        text(
            "spaces, data:, spaces",
            "/embed",
            lambda: embed(b'"' + b" " * (long // 2) + b"data:" + b" " * (long // 2) + b'"'),
            base64_code,
        ),
        text(
            "data URI of percent signs",
            "/embed",
            lambda: embed(b'"data:;base64,' + b"%" * long + b'"'),
            base64_code,
        ),
        text(
            "data URI of what is no base64",
            "/embed",
            lambda: embed(b'"data:;base64,' + "%ffé".encode() * (long // 5) + b'"'),
            base64_code,
        ),
        text(
            "data URI of escaped letters",
            "/embed",
            lambda: embed(b'"data:;base64,' + b"%41" * (long // 3 // 4 * 4) + b'"'),
            "not_an_image",
        ),
        text(
            "2048 data URIs of spaces",
            "/v1/embeddings",
            lambda: request_body("/v1/embeddings", input=["data:" + " " * 8000] * MAX_INPUTS),
        ),
        text("a key twice", "/embed", lambda: b'{"image":"!",' + request_body("/embed")[1:]),
        text(
            "a key twice, the other way",
            "/embed",
            lambda: request_body("/embed")[:-1] + b',"image":"!"}',
            base64_code,
        ),
        text(
            "a key a hundred thousand times",
            "/embed",
            lambda: b"{" + b'"image":"AAAA",' * 100_000 + request_body("/embed")[1:],
        ),
        text(
            "a million unknown keys and line breaks",
            "/embed",
            lambda: (
                b"{"
                + b",".join(b'"%d":0' % place for place in range(1_000_000))
                + b',"image":" AAAA"}'
            ),
            "not_an_image",
        ),
        not_json("empty body", "/embed", lambda: b""),
        not_json("NUL bytes", "/embed", lambda: bytes(1000)),
        not_json("NUL after the end", "/embed", lambda: request_body("/embed") + b"\0"),
        not_json("byte-order mark", "/embed", lambda: b"\xef\xbb\xbf" + request_body("/embed")),
        not_json("UTF-16", "/embed", lambda: request_body("/embed").decode().encode("utf-16")),
        not_json("16 MiB of spaces", "/embed", lambda: b" " * MAX_BODY_BYTES),
        not_json("16 MiB of quotation marks", "/embed", lambda: b'"' * MAX_BODY_BYTES),
        not_json("16 MiB of backslashes", "/embed", lambda: b'{"image":"' + b"\\" * MEGABYTE),
        not_json("comments", "/embed", lambda: b"/* */" + request_body("/embed")),
        text("null", "/embed", lambda: b"null", "invalid_field"),
        text("a list", "/embed", lambda: b"[]", "invalid_field"),
        text(
            "5 million empty lists",
            "/baseline",
            lambda: filled(b'{"embeddings":[', b"[],", b"[]]}"),
            "too_many_values",
        ),
        text(
            "5 million empty inputs",
            "/v1/embeddings",
            lambda: filled(b'{"input":[', b"[],", b"[]]}"),
            "too_many_values",
        ),
        text(
            "1.5 million numbers that are slow to read",
            "/baseline",
            lambda: b'{"embeddings":[[' + b"1.5e300," * 1_500_000 + b"1]]}",
            "too_many_values",
        ),
        text(
            "2 million empty lists",
            "/baseline",
            lambda: b'{"embeddings":[' + b"[]," * 1_999_999 + b"[]]}",
            "too_many_values",
        ),
        text(
            "200,000 empty lists",
            "/baseline",
            lambda: b'{"embeddings":[' + b"[]," * 199_998 + b"[]]}",
            "too_many_frames",
        ),
        text(
            "2 million images",
            "/embed/batch",
            lambda: b'{"images":[' + b'"!",' * 1_999_999 + b'"!"]}',
            "too_many_images",
        ),
        text(
            "2 million inputs",
            "/v1/embeddings",
            lambda: b'{"input":[' + b'"a",' * 1_999_999 + b'"a"]}',
            "too_many_inputs",
        ),
        text(
            "2 million labels",
            "/classify",
            lambda: spliced("/classify", "labels", b"[" + b'"ab",' * 1_999_990 + b'"a"]'),
            "too_many_labels",
        ),
        text(
            "2 million numbers",
            "/anomaly-score",
            lambda: spliced(
                "/anomaly-score", "baseline_embedding", b"[" + b"0.1," * 1_999_990 + b"1]"
            ),
            "baseline_wrong_length",
        ),
        text(
            "65 images, one of them there",
            "/embed/batch",
            lambda: request_body("/embed/batch", images=[""] * 65),
            "too_many_images",
        ),
        Hostile(
            "compressed JSON",
            lambda: gzip.compress(request_body("/embed")),
            415,
            "unsupported_content_encoding",
            headers=JSON | {"Content-Encoding": "gzip"},
        ),
        Hostile(
            "a charset that it is not in",
            lambda: request_body("/embed"),
            headers={"Content-Type": "application/json; charset=utf-16"},
        ),
        Hostile(
            "a content type of 8 KB",
            lambda: request_body("/embed"),
            415,
            "unsupported_media_type",
            headers={"Content-Type": "application/" + "x" * 8000},
        ),
    )
    for literal, code in (
        ("NaN", None),
        ("Infinity", None),
        ("-Infinity", None),
        ("1e999", "invalid_field"),
        ("-1e999", "invalid_field"),
        ("1e" + "9" * MEGABYTE, "invalid_field"),
        ("9" * MEGABYTE, "invalid_field"),
        ("0." + "1" * MEGABYTE, "baseline_wrong_length"),
        ("1e-999", "baseline_wrong_length"),
    ):

        def body(literal: str = literal) -> bytes:
            return spliced("/anomaly-score", "baseline_embedding", f"[{literal}]".encode())

        name = f"number {literal[:9]} of {len(literal)} characters"
        if code is None:
            yield not_json(name, "/anomaly-score", body)
        else:
            yield text(name, "/anomaly-score", body, code)
    yield from (
        text(
            "baseline of zeros",
            "/anomaly-score",
            lambda: request_body("/anomaly-score", baseline_embedding=[0.0] * 768),
        ),
        text(
            "baseline of the largest numbers",
            "/anomaly-score",
            lambda: request_body("/anomaly-score", baseline_embedding=[1.7e308] * 768),
        ),
        text(
            "baseline of the smallest numbers",
            "/anomaly-score",
            lambda: request_body("/anomaly-score", baseline_embedding=[5e-324] * 768),
        ),
        text(
            "frames that cancel out",
            "/baseline",
            lambda: json.dumps({"embeddings": [BASELINE, [-x for x in BASELINE]]}).encode(),
            "frames_cancel_out",
        ),
    )


UNICODE: Final = {
    "combining marks": "\u0301",
    "stacked marks": "\u0301\u0316",
    "letters with marks": "e\u0301",
    "right to left": "\u202e\u05d0",
    "zero width": "\u200b",
    "joined emoji": "👨\u200d👩\u200d",
    "long s": "ſ",
    "dotted I": "İ",
    "one letter of many": "\ufdfa",
    "entities": "&amp;amp;lt;",
    "cut entities": "&#",
    "mojibake": "schÃ¶n ",
    "mojibake of mojibake": "Ã¢â‚¬Å“",
    "mojibake without end": "Ã\u00a0",
    "control characters": "\u0080\u009f",
    "terminal escapes": "\x1b[31m",
    "private use": "\U0010fffd",
    "non-characters": "\uffff",
}
"""What is hard on ftfy, on Unicode's normal forms or on the byte-pair encoding."""


def _texts() -> Iterator[Hostile]:
    for name, unit in UNICODE.items():
        yield text(
            f"text: {name}",
            "/embed/text",
            lambda unit=unit: request_body(  # type: ignore[misc]
                "/embed/text", texts=[(unit * 8192)[:8192]] * 50
            ),
        )
    for name, escaped in (("high", b"\\ud800"), ("low", b"\\udc00"), ("turned", b"\\udc00\\ud800")):
        yield not_json(
            f"lone surrogate, {name}",
            "/embed/text",
            lambda escaped=escaped: b'{"texts":["' + escaped + b'"]}',  # type: ignore[misc]
        )
    large = MEGABYTE * 10
    yield from (
        not_json("lone surrogate as bytes", "/embed/text", lambda: b'{"texts":["\xed\xa0\x80"]}'),
        not_json("overlong UTF-8", "/embed/text", lambda: b'{"texts":["\xc0\x80"]}'),
        text("only NUL", "/embed/text", lambda: request_body("/embed/text", texts=["\0"])),
        text(
            "only zero width", "/embed/text", lambda: request_body("/embed/text", texts=["\u200b"])
        ),
        text(
            "only no-break spaces",
            "/embed/text",
            lambda: request_body("/embed/text", texts=["\u00a0\u3000"]),
            "blank_text",
        ),
        text(
            "a label of 10 MB", "/classify", lambda: request_body("/classify", labels=["a" * large])
        ),
        text(
            "a label of 10 MB of spaces",
            "/classify",
            lambda: request_body("/classify", labels=[" " * large]),
            "blank_label",
        ),
        text(
            "100 labels of 100 KB",
            "/classify",
            lambda: request_body("/classify", labels=[f"{n} " + "x" * 100_000 for n in range(100)]),
        ),
        text(
            "100 labels through an ensemble",
            "/classify",
            lambda: request_body(
                "/classify",
                labels=[f"{n} " + "\u0301\u0316" * 4000 for n in range(100)],
                use_ensemble=True,
            ),
        ),
        text(
            "a label twice, of 4 MB",
            "/classify",
            lambda: request_body("/classify", labels=["a" * 4 * MEGABYTE] * 2),
            "repeated_label",
        ),
        text(
            "a camera type of 10 MB",
            "/classify",
            lambda: request_body("/classify", camera_type="x" * large),
            "unknown_camera_type",
        ),
        text(
            "a model of 10 MB",
            "/v1/embeddings",
            lambda: request_body("/v1/embeddings", input="a", modality="x" * large),
            "unknown_modality",
        ),
        text(
            "2048 inputs of 8 KB",
            "/v1/embeddings",
            lambda: request_body(
                "/v1/embeddings", input=[f"{n} dog".ljust(7900, "x") for n in range(MAX_INPUTS)]
            ),
        ),
        text(
            "1000 inputs of stacked marks",
            "/v1/embeddings",
            lambda: json.dumps(
                {"input": [f"{n} " + "\u0301\u0316" * 2000 for n in range(1000)]},
                ensure_ascii=False,
            ).encode(),
        ),
    )


BOUNDARY: Final = "b"
FORM: Final = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
END: Final = b"\r\n--b--\r\n"


def part(name: str, data: bytes, *, more: str = "", filename: str = "x.jpg") -> bytes:
    """One part of a form."""
    disposition = f'Content-Disposition: form-data; name="{name}"; filename="{filename}"'
    return f"\r\n--b\r\n{disposition}\r\n{more}\r\n".encode() + data


def _forms() -> Iterator[Hostile]:
    picture = files.tiny("JPEG")

    def form(
        name: str, body: Callable[[], bytes], status: int = 200, code: str | None = None
    ) -> Hostile:
        return Hostile(f"form: {name}", body, status, code, headers=dict(FORM))

    malformed = (400, "invalid_form")
    yield from (
        form("100,000 parts", lambda: part("a", b"") * 100_000 + END, *malformed),
        form(
            "a header of 10 MB",
            lambda: part("image", b"", more="a: " + "x" * 10 * MEGABYTE) + END,
            *malformed,
        ),
        form(
            "a million headers",
            lambda: part("image", picture, more="a: b\r\n" * MEGABYTE) + END,
            *malformed,
        ),
        form("no end", lambda: part("image", picture), *malformed),
        form("no beginning", lambda: END, 422, "missing_field"),
        form("nothing", lambda: b"", *malformed),
        form("10 MB of line breaks", lambda: b"\r\n" * 5 * MEGABYTE, *malformed),
        form("10 MB of dashes", lambda: b"--" * 5 * MEGABYTE, *malformed),
        form(
            "another form inside",
            lambda: part("image", part("image", picture).replace(b"--b", b"--c")) + END,
            422,
            "not_an_image",
        ),
        form("two images", lambda: part("image", picture) * 2 + END, 422, "invalid_field"),
        form("no image", lambda: part("x", picture) + END, 422, "missing_field"),
        form(
            "a file name that climbs",
            lambda: part("image", picture, filename="../../../etc/passwd\0.jpg") + END,
        ),
        form("a field name of 1 MB", lambda: part("a" * MEGABYTE, picture) + END, *malformed),
        form(
            "a transfer encoding",
            lambda: part("image", picture, more="Content-Transfer-Encoding: base64\r\n") + END,
        ),
        Hostile(
            "form: no boundary",
            lambda: part("image", picture) + END,
            *malformed,
            headers={"Content-Type": "multipart/form-data"},
        ),
        Hostile(
            "form: a boundary of 8 KB",
            lambda: part("image", picture) + END,
            *malformed,
            headers={"Content-Type": "multipart/form-data; boundary=" + "b" * 8000},
        ),
        Hostile(
            "form: a charset that is none",
            lambda: part("image", picture, filename="é") + END,
            headers={"Content-Type": FORM["Content-Type"] + "; charset=nonsense"},
        ),
    )


def _paths() -> Iterator[Hostile]:
    def get(name: str, path: str, status: int = 404, code: str | None = "not_found") -> Hostile:
        return Hostile(f"path: {name}", lambda: b"", status, code, path, "GET", {})

    yield from (
        get("NUL", "/%00"),
        get("climbing", "/../../../../etc/passwd"),
        get("climbing, escaped", "/%2e%2e%2f%2e%2e%2fetc%2fpasswd"),
        get("climbing out of the documentation", "/docs/assets/..%2f..%2f..%2fpyproject.toml"),
        get("climbing out of the page", "/page/%2e%2e/app.py"),
        get("not UTF-8", "/%ff%fe"),
        get("of 30 KB", "/" + "a" * 30_000),
        get("of slashes", "/" * 30_000 + "x"),
        get("another host", "//example.com/embed"),
        get("a line of the log", "/%0d%0a%7b%22event%22%3a%22answered%22%7d"),
        get("a model that climbs", "/v1/models/..%2f..%2fetc%2fpasswd", 404, "model_not_found"),
        get("a query of 30 KB", "/health/live?" + "a=1&" * 7_500, 200, None),
        Hostile("method: GET", lambda: b"", 405, "method_not_allowed", "/embed", "GET", {}),
        Hostile("method: TRACE", lambda: b"", 405, "method_not_allowed", "/embed", "TRACE", {}),
        Hostile(
            "header: a request id of 8 KB",
            lambda: request_body("/embed"),
            headers=JSON | {"X-Request-ID": "x" * 8000},
        ),
        Hostile(
            "header: a request id of bytes",
            lambda: request_body("/embed"),
            headers=JSON | {"X-Request-ID": "\x80\xff<script>", "traceparent": "\xff" * 100},
        ),
        Hostile(
            "header: what it accepts",
            lambda: request_body("/embed"),
            headers=JSON | {"Accept": "x/" * 4000, "Accept-Encoding": "gzip;q=nan"},
        ),
    )
