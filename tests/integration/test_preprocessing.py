"""The one preprocessing against transformers' two."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageDraw
from transformers import CLIPImageProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from adapters.encoders.selection import EncoderChoice, EncoderSelection
from adapters.images.preprocessing import (
    STD,
    levels_of,
    normalise,
    normalised,
    preprocess,
    square,
)
from adapters.images.resizing import has_simd, with_pillow
from adapters.models.precision import Precision
from adapters.models.reading import DEMO
from application.ports import CLIPS_INPUT, Fit, ImageInput, Pixels
from domain.embedding import Embedding
from tests.support.photos import photo, photos

ONE_LEVEL = 1 / 255 / min(STD)
"""One step of an 8-bit channel after normalisation: 0.0151."""


def prepared_with_pillow(image: Image.Image, image_input: ImageInput = CLIPS_INPUT) -> Pixels:
    """As `preprocess` does where the SIMD resizer is not installed."""
    return normalise(square(np.asarray(image), image_input, with_pillow))


SIZES = [(224, 224), (640, 427), (225, 300), (301, 224), (50, 80), (223, 223), (3, 500), (1, 1)]


@pytest.mark.parametrize("name", list(photos()))
def test_photos_are_prepared_as_transformers_does_with_pillow(name: str) -> None:
    ours = prepared_with_pillow(photo(name))
    theirs = CLIPImageProcessorPil()(photo(name), return_tensors="np")["pixel_values"][0]
    assert ours.shape == theirs.shape == (3, 224, 224)
    assert ours.dtype == np.float32
    assert ours.flags.c_contiguous
    # Pillow rounds to 8 bits between its passes: fewer than one value in a thousand differs, by
    # one level.
    assert np.abs(ours - theirs).max() <= ONE_LEVEL * 1.01
    assert (np.abs(ours - theirs) > 1e-5).mean() < 1e-3


@pytest.mark.parametrize("size", SIZES)
def test_all_shapes_are_prepared_as_transformers_does(size: tuple[int, int]) -> None:
    image = photo("china").resize(size)
    ours = prepared_with_pillow(image)
    pillow = CLIPImageProcessorPil()(image, return_tensors="np")["pixel_values"][0]
    torchvision = CLIPImageProcessor()(image, return_tensors="np")["pixel_values"][0]
    assert np.abs(ours - pillow).max() <= ONE_LEVEL * 1.01
    assert np.abs(ours - torchvision).max() <= 2 * ONE_LEVEL * 1.01
    assert np.abs(ours - torchvision).mean() < 1e-4


@pytest.mark.skipif(not has_simd(), reason="no SIMD resizer is installed: Pillow resizes")
@pytest.mark.parametrize("fit", list(Fit))
@pytest.mark.parametrize("name", ["bicubic", "bilinear", "lanczos"])
@pytest.mark.parametrize("size", [*SIZES, (7, 20000), (20000, 3), (2000, 1500)])
def test_simd_resizes_as_pillow_does(size: tuple[int, int], name: str, fit: Fit) -> None:
    picture = np.asarray(photo("china").resize(size))
    image_input = ImageInput(fit=fit, filter=name)
    simd = square(picture, image_input).astype(int)
    pillow = square(picture, image_input, with_pillow).astype(int)
    assert np.abs(simd - pillow).max() <= 2
    assert np.abs(simd - pillow).mean() < 0.03


@pytest.mark.skipif(not has_simd(), reason="no SIMD resizer is installed: Pillow resizes")
@pytest.mark.parametrize("name", ["bicubic", "bilinear", "lanczos"])
@pytest.mark.parametrize("height", [32, 96, 160])
def test_simd_reads_only_the_picture_where_pixels_of_both_lie_on_each_other(
    height: int, name: str
) -> None:
    # In one pass, the library reads elsewhere at some of these widths, and crashes.
    random = np.random.default_rng(0)
    for width in range(height, 2 * height):
        noise = random.integers(0, 256, (height, width, 3), np.uint8)
        simd = square(noise, ImageInput(filter=name)).astype(int)
        pillow = square(noise, ImageInput(filter=name), with_pillow).astype(int)
        assert np.abs(simd - pillow).max() <= 2, width


@pytest.mark.parametrize("name", list(photos()))
def test_photos_are_prepared_as_transformers_does_by_default(name: str) -> None:
    ours = preprocess(photo(name))
    theirs = CLIPImageProcessor()(photo(name), return_tensors="np")["pixel_values"][0]
    assert np.abs(ours - theirs).max() <= 2 * ONE_LEVEL * 1.01
    assert np.abs(ours - theirs).mean() < 0.01 * ONE_LEVEL


def test_both_ways_of_resizing_make_the_same_embeddings() -> None:
    encoder = EncoderSelection(EncoderChoice.TORCH, DEMO, precision=Precision.FP32).load()
    # Fine text is the hardest: 40 lines of letters of 8 pixels.
    page = Image.new("RGB", (1280, 720), "white")
    for line in range(40):
        ImageDraw.Draw(page).text((4, 18 * line), "the quick brown fox 0123456789 " * 6, "black")
    for image in (page, *photos().values()):
        rows = encoder.encode_images(np.stack([preprocess(image), prepared_with_pillow(image)]))
        one, another = map(Embedding.from_encoder, rows)
        assert one.cosine(another) >= 0.999999


def test_a_resizer_that_is_not_there_is_not_needed() -> None:
    program = (
        "import sys; sys.modules['cykooz_resizer'] = None\n"
        "from adapters.images.resizing import has_simd\n"
        "from adapters.images.preprocessing import preprocess\n"
        "from tests.support.photos import photo\n"
        "assert not has_simd()\n"
        "assert preprocess(photo()).shape == (3, 224, 224)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_an_extreme_shape_needs_no_extreme_memory() -> None:
    # Resized whole, this would be 917,504 x 224 pixels.
    assert preprocess(photo().resize((4096, 1))).shape == (3, 224, 224)
    assert preprocess(photo().resize((1, 4096))).shape == (3, 224, 224)


def test_the_middle_is_kept_and_not_squashed() -> None:
    wide = photo("china").resize((900, 300))
    middle = wide.crop((300, 0, 600, 300))
    assert np.abs(preprocess(wide) - preprocess(middle)).mean() < 0.02


@pytest.mark.parametrize("name", list(photos()))
def test_pixels_go_back_to_eight_bits_and_return_unchanged(name: str) -> None:
    pixels = preprocess(photo(name))
    levels = levels_of(pixels)
    assert levels is not None
    assert levels.dtype == np.uint8
    np.testing.assert_array_equal(normalised(levels), pixels)


def test_every_level_returns_unchanged_and_anything_else_is_refused() -> None:
    every = np.arange(256, dtype=np.uint8)[None, None, :].repeat(3, axis=0)
    found = levels_of(normalised(every))
    assert found is not None
    np.testing.assert_array_equal(found, every)
    assert levels_of(np.zeros((2, 3, 224, 224), dtype=np.float32)) is None
    assert levels_of(np.full((1, 3, 224, 224), np.nan, dtype=np.float32)) is None
