"""The checkpoints that servers are measured with, and the photos they are sent."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from PIL import Image

from domain.limits import IMAGE_SIZE
from tests.support.checkpoints import (
    clip_tokenizer,
    full_size_clip,
    full_size_vit_b,
    save_hugging_face,
)
from tests.support.families import full_size_siglip, save_siglip
from tests.support.photos import photos

SIZES: Final = ((320, 240), (640, 480), (1280, 720), (1920, 1080), (2560, 1440), (450, 300))
"""Pixels of the photos that are sent in turn: crops from trackers up to a camera's full frame."""


VIT_L: Final = "ViT-L/14"
SIGLIP: Final = "SigLIP 2 base"
VIT_B: Final = "ViT-B/32"


def model_at(name: str, work: Path) -> Path:
    """The directory of a model by one of the names above; made where it is not there yet."""
    if name == SIGLIP:
        return siglip_at(work / "siglip2-base")
    if name == VIT_B:
        return checkpoint_at(work / "vit-b-32", full_size_vit_b)
    return checkpoint_at(work / "vit-l-14")


def checkpoint_at(directory: Path, make: Callable[[], Any] = full_size_clip) -> Path:
    """A full-size CLIP, ViT-L/14 unless told, with seeded random weights, made once.

    Speed does not depend on what the weights are. It comes with tokenizer and image processor, as
    a download from a hub would, because transformers and infinity want them;
    in files of the kind that versions of transformers before 5 read as well.
    """
    if not (directory / "tokenizer_config.json").is_file():
        from transformers import CLIPImageProcessor

        directory.mkdir(parents=True, exist_ok=True)
        save_hugging_face(make(), directory)
        CLIPImageProcessor().save_pretrained(directory)
        clip_tokenizer(directory).save_pretrained(directory)
    return directory


def siglip_at(directory: Path) -> Path:
    """A full-size SigLIP 2 base (224 pixels) with seeded random weights, made once."""
    if not (directory / "tokenizer_config.json").is_file():
        directory.mkdir(parents=True, exist_ok=True)
        save_siglip(full_size_siglip(), directory, size=IMAGE_SIZE)
    return directory


def photo_files() -> list[bytes]:
    """Six real photos as JPEG files, each of another size."""
    files = []
    for image, size in zip(photos().values(), SIZES, strict=True):
        buffer = io.BytesIO()
        image.resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files


def frame_file() -> bytes:
    """One 640 x 480 JPEG, the usual frame of a camera's second stream."""
    return photo_files()[1]
