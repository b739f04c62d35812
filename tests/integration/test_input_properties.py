"""What holds for all image files and all base64, whatever their size or shape."""

import base64
import random
import subprocess
import sys
import urllib.parse

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from adapters.images.formats import checked_format
from adapters.images.pillow_preparation import prepare_picture
from adapters.images.preprocessing import preprocess
from adapters.models.clip_tokenizer import ClipTokenizer
from domain.errors import InvalidImage
from domain.limits import MAX_JPEG_SCANS
from entrypoints.http.bodies.base64_images import NotBase64, decode_image, is_data_uri
from tests.support import hostile_files as files
from tests.support.photos import as_file, plain

sides = st.integers(1, 4096)
spaces = st.text(alphabet=" \t\r\n\v\f", min_size=1, max_size=3)


@given(st.binary(max_size=200), st.lists(st.tuples(st.integers(0, 300), spaces), max_size=8))
def test_white_space_anywhere_in_base64_is_ignored(
    data: bytes, gaps: list[tuple[int, str]]
) -> None:
    text = base64.b64encode(data).decode()
    for place, gap in gaps:
        text = text[:place] + gap + text[place:]
    assert decode_image(text, name="image") == data
    assert decode_image(" data:image/png;base64 ," + text, name="image") == data


@given(st.binary(max_size=200), st.randoms(use_true_random=False), st.booleans())
def test_what_a_data_uri_escapes_is_read_as_it_was(
    data: bytes, rng: random.Random, upper: bool
) -> None:
    text = base64.b64encode(data).decode()
    escaped = "".join(
        (f"%{ord(letter):02X}" if upper else f"%{ord(letter):02x}")
        if rng.random() < 0.3
        else letter
        for letter in text
    )
    assert urllib.parse.unquote(escaped) == text
    assert decode_image("data:;base64," + escaped, name="image") == data


@pytest.mark.parametrize("end", ["%", "%4", "%zz", "%%41", "AAA%3", "%C3%A9", "%FF", "AAA%"])
def test_escapes_that_are_none_are_refused(end: str) -> None:
    with pytest.raises(NotBase64, match="input"):
        decode_image("data:;base64,AAAA" + end, name="input")


@given(st.text(alphabet="data:;base64,/imge \n%", max_size=300))
def test_telling_a_data_uri_from_a_text_never_fails(text: str) -> None:
    assert is_data_uri(text) in {True, False}
    assert is_data_uri("data:image/png;base64 ," + text)


@given(sides, sides)
@settings(max_examples=25, deadline=None)
def test_any_size_is_made_224_by_224(width: int, height: int) -> None:
    # Of one colour, which must be what remains of it.
    pixels = preprocess(plain(200, 100, 50, (width, height)))
    assert pixels.shape == (3, 224, 224)
    assert (pixels == preprocess(plain(200, 100, 50))).all()


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(["PNG", "JPEG", "GIF", "BMP"]))
@settings(deadline=None)
def test_any_small_file_is_seen(width: int, height: int, file_format: str) -> None:
    image = Image.fromarray(np.full((height, width, 3), 128, dtype=np.uint8))
    data = as_file(image, file_format)
    assert checked_format(data) == file_format
    assert np.isfinite(prepare_picture(data)).all()


def test_as_many_scans_as_are_allowed_and_one_more() -> None:
    assert prepare_picture(files.progressive(MAX_JPEG_SCANS, side=64)).shape == (3, 224, 224)
    # What follows the picture is not decoded and so not counted.
    trailing = files.progressive(MAX_JPEG_SCANS, side=64) + b"\xff\xda" * 1000
    assert prepare_picture(trailing).shape == (3, 224, 224)
    with pytest.raises(InvalidImage, match="at most 100") as caught:
        prepare_picture(files.progressive(MAX_JPEG_SCANS + 1, side=64))
    assert caught.value.code == "too_many_parts"


@given(st.integers(31, 200))
@settings(max_examples=5, deadline=None)
def test_marks_without_end_are_read_as_thirty(count: int) -> None:
    tokenizer = ClipTokenizer()
    assert tokenizer(["e" + "\u0301" * count]) == tokenizer(["e" + "\u0301" * 30])


OUT_OF_MEMORY = """
import resource
from adapters.images.pillow_preparation import prepare_picture
from tests.support import hostile_files as files

data = files.png(4096, 4096, colour=6)
prepare_picture(files.tiny("PNG"))
with open("/proc/self/statm") as statm:
    used = int(statm.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 50_000_000, resource.RLIM_INFINITY))
try:
    prepare_picture(data)
except MemoryError:
    print("out of memory")
"""


def test_a_lack_of_memory_is_not_the_images_fault() -> None:
    told = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY], capture_output=True, text=True, timeout=60
    )
    assert told.stdout == "out of memory\n", told.stderr
