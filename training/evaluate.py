"""Zero-shot evaluation on artwork that was never trained on.

One command runs it: `python -m training.evaluate`.

The fifty camera concepts are drawn by the held-out family (Twemoji), each on plain colours and in
camera-like scenes. Needs neither npm nor a network.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional

from training.concepts import CAMERA_CONCEPTS
from training.scenes import (
    CAMERA_STYLE,
    SceneComposer,
    paint_backgrounds,
    premultiply,
)
from training.towers import IMAGE_MEAN, IMAGE_STD, MODEL_CONFIG

_LOG = logging.getLogger(__name__)
HOME = Path(__file__).resolve().parents[1] / "adapters" / "models" / "demo"
# Far from any training seed, so that no background was seen in training.
SEED = 20_240_229
TEMPLATES: tuple[str, ...] = (
    "a photo of a {}",
    "a security camera image of a {}",
    "a blurry photo of a {}",
    "a {} in the scene",
    "{}",
)
PLAIN_COLOURS: tuple[tuple[int, int, int], ...] = (
    (255, 255, 255),
    (190, 195, 190),
    (120, 130, 140),
    (225, 205, 175),
)
IMAGE_SIZE = 224

EncodeImages = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
EncodeTexts = Callable[[list[str]], npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class ZeroShotResult:
    """Shares in [0, 1] of images whose true label is the best, or among the best five."""

    images: int
    top1: float
    top5: float
    per_concept_top1: dict[str, float]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Results on plain backgrounds and in camera-like scenes, beside chance."""

    clean: ZeroShotResult
    camera: ZeroShotResult
    chance_top1: float
    chance_top5: float


@dataclass(frozen=True, slots=True)
class LabelledScenes:
    """Scenes, uint8 RGB [n, 224, 224, 3], and the index of each one's concept, int64 [n]."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]


def read_held_out(folder: Path = HOME / "held_out") -> npt.NDArray[np.uint8]:
    """Reads the held-out sprites in the order of CAMERA_CONCEPTS: uint8 [50, s, s, 4] RGBA."""
    sprites = []
    for concept in CAMERA_CONCEPTS:
        with Image.open(folder / f"{concept.label.replace(' ', '_')}.png") as image:
            sprites.append(np.asarray(image.convert("RGBA"), dtype=np.uint8))
    return np.stack(sprites)


def clean_scenes(sprites: npt.NDArray[np.uint8], share: float = 0.7) -> LabelledScenes:
    """Puts each sprite in the middle of each plain colour, its side `share` of the image's."""
    side = round(IMAGE_SIZE * share)
    images, labels = [], []
    for label, pixels in enumerate(sprites):
        sprite = Image.fromarray(pixels, "RGBA").resize((side, side), Image.Resampling.BICUBIC)
        corner = (IMAGE_SIZE - side) // 2
        for colour in PLAIN_COLOURS:
            scene = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), colour)
            scene.paste(sprite, (corner, corner), sprite)
            images.append(np.asarray(scene, dtype=np.uint8))
            labels.append(label)
    return LabelledScenes(np.stack(images), np.array(labels, dtype=np.int64))


def camera_scenes(
    sprites: npt.NDArray[np.uint8], per_concept: int = 20, seed: int = SEED
) -> LabelledScenes:
    """Composites each sprite into camera-like scenes: procedural backgrounds, any place, degraded.

    Deterministic for one seed and version of PyTorch.
    """
    generator = torch.Generator().manual_seed(seed)
    composer = SceneComposer(
        premultiply(torch.from_numpy(sprites.copy())),
        torch.zeros(len(sprites), dtype=torch.bool),
        paint_backgrounds(200, generator),
        generator,
    )
    labels = torch.arange(len(sprites)).repeat_interleave(per_concept)
    parts = [
        (composer.compose(part, IMAGE_SIZE, CAMERA_STYLE) * 255).round().to(torch.uint8)
        for part in torch.split(labels, 50)
    ]
    images = torch.cat(parts).permute(0, 2, 3, 1).contiguous().numpy()
    return LabelledScenes(images, labels.numpy())


def label_embeddings(encode_texts: EncodeTexts, labels: Sequence[str]) -> npt.NDArray[np.float32]:
    """Embeds labels as renormalised means over TEMPLATES: unit vectors [n, 768]."""
    total = np.zeros(())
    for template in TEMPLATES:
        total = total + encode_texts([template.format(label) for label in labels])
    unit: npt.NDArray[np.float32] = (total / np.linalg.norm(total, axis=1, keepdims=True)).astype(
        np.float32
    )
    return unit


def classify(
    scenes: LabelledScenes,
    encode_images: EncodeImages,
    texts: npt.NDArray[np.float32],
    batch: int = 50,
) -> ZeroShotResult:
    """Ranks the labels by cosine for every scene and counts."""
    embeddings = np.concatenate(
        [encode_images(scenes.images[i : i + batch]) for i in range(0, len(scenes.images), batch)]
    )
    ranking = np.argsort(-(embeddings @ texts.T), axis=1)
    right = ranking == scenes.labels[:, None]
    per_concept = {
        concept.label: float(right[scenes.labels == number, 0].mean())
        for number, concept in enumerate(CAMERA_CONCEPTS)
    }
    return ZeroShotResult(
        len(right), float(right[:, 0].mean()), float(right[:, :5].any(axis=1).mean()), per_concept
    )


def evaluate(
    encode_images: EncodeImages, encode_texts: EncodeTexts, scenes_per_concept: int = 20
) -> Evaluation:
    """Evaluates any encoder on the held-out artwork.

    Args:
        encode_images: uint8 RGB [n, 224, 224, 3] to float32 unit vectors [n, 768].
        encode_texts: n texts to float32 unit vectors [n, 768].
        scenes_per_concept: camera-like scenes of each concept.
    """
    sprites = read_held_out()
    texts = label_embeddings(encode_texts, [concept.label for concept in CAMERA_CONCEPTS])
    return Evaluation(
        classify(clean_scenes(sprites), encode_images, texts),
        classify(camera_scenes(sprites, scenes_per_concept), encode_images, texts),
        1 / len(CAMERA_CONCEPTS),
        5 / len(CAMERA_CONCEPTS),
    )


def load_model(checkpoint: Path = HOME / "checkpoint") -> Any:
    """Loads the checkpoint into `open_clip.CLIP` (fp32), its token table expanded with zeros."""
    from open_clip.model import CLIP

    with safe_open(checkpoint / "open_clip_model.safetensors", framework="pt") as file:
        state: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    rows = state.pop("token_embedding.rows").long()
    trained = state["token_embedding.weight"]
    full = trained.new_zeros(MODEL_CONFIG["text_cfg"]["vocab_size"], trained.shape[1])
    full[rows] = trained
    state["token_embedding.weight"] = full
    model = CLIP(**MODEL_CONFIG)
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return model.eval()


def encoders(model: Any) -> tuple[EncodeImages, EncodeTexts]:
    """The two callables that `evaluate` needs, for an open_clip model."""
    import open_clip

    mean = torch.tensor(IMAGE_MEAN)[:, None, None]
    deviation = torch.tensor(IMAGE_STD)[:, None, None]

    def encode_images(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            features = functional.normalize(model.encode_image((pixels - mean) / deviation), dim=-1)
        unit: npt.NDArray[np.float32] = features.numpy()
        return unit

    def encode_texts(texts: list[str]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            features = functional.normalize(model.encode_text(open_clip.tokenize(texts)), dim=-1)
        unit: npt.NDArray[np.float32] = features.numpy()
        return unit

    return encode_images, encode_texts


def main() -> None:
    """Evaluates the checkpoint, prints the results and writes them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=HOME / "checkpoint")
    parser.add_argument("--scenes", type=int, default=20, help="camera-like scenes a concept")
    parser.add_argument("--output", type=Path, default=HOME / "evaluation.json")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    result = evaluate(*encoders(load_model(options.checkpoint)), options.scenes)
    options.output.write_text(json.dumps(asdict(result), indent=2) + "\n", encoding="utf-8")
    for name, part in (("clean", result.clean), ("camera", result.camera)):
        shares = f"top-1 {part.top1:.1%}, top-5 {part.top5:.1%}"
        _LOG.info("%s: %s of %d images", name, shares, part.images)
    _LOG.info(
        "chance: top-1 %.1f%%, top-5 %.1f%%", 100 * result.chance_top1, 100 * result.chance_top5
    )
    weakest = sorted(result.camera.per_concept_top1.items(), key=lambda item: item[1])[:10]
    _LOG.info("weakest: %s", ", ".join(f"{label} {share:.0%}" for label, share in weakest))


if __name__ == "__main__":
    main()
