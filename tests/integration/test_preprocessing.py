"""The one preprocessing against transformers' two."""

import numpy as np
import pytest
from transformers import CLIPImageProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from adapters.images.preprocessing import STD, levels_of, normalised, preprocess
from tests.support.photos import photo, photos

ONE_LEVEL = 1 / 255 / min(STD)
"""One step of an 8-bit channel after normalisation: 0.0151."""

SIZES = [(224, 224), (640, 427), (225, 300), (301, 224), (50, 80), (223, 223), (3, 500), (1, 1)]


@pytest.mark.parametrize("name", list(photos()))
def test_photos_are_prepared_as_transformers_does_with_pillow(name: str) -> None:
    ours = preprocess(photo(name))
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
    ours = preprocess(image)
    pillow = CLIPImageProcessorPil()(image, return_tensors="np")["pixel_values"][0]
    torchvision = CLIPImageProcessor()(image, return_tensors="np")["pixel_values"][0]
    assert np.abs(ours - pillow).max() <= ONE_LEVEL * 1.01
    assert np.abs(ours - torchvision).max() <= 2 * ONE_LEVEL * 1.01
    assert np.abs(ours - torchvision).mean() < 1e-4


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
