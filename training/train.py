"""Trains the demo model: `python -m training.train --seed 7`.

The artwork comes first: `npm ci --prefix training`. With glibc, large blocks
of memory are best kept by the process: the last stage runs twice as fast with
`GLIBC_TUNABLES=glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=8589934592:\
glibc.malloc.trim_threshold=17179869184:glibc.malloc.top_pad=268435456`.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from training.artwork import (
    MONOCHROME_FAMILIES,
    ConceptName,
    SpriteSheet,
    load_training_sheet,
    read_catalogue,
    write_held_out,
)
from training.captions import EMPTY_SCENE, CaptionWriter, Vocabulary
from training.scenes import (
    TRAINING_STYLE,
    SceneComposer,
    SceneStyle,
    cut_backgrounds,
    paint_backgrounds,
    premultiply,
)
from training.towers import (
    IMAGE_MEAN,
    IMAGE_STD,
    MODEL_CONFIG,
    compact_model,
    image_features,
    text_features,
)

_LOG = logging.getLogger(__name__)
HOME = Path(__file__).resolve().parents[1] / "adapters" / "models" / "demo"
CAMERA_SHARE = 0.5
EMPTY_SHARE = 0.02
UNKNOWN_SHARE = 0.025
CAPTION_TOKENS = 24
COMPOSE_AT_ONCE = 32
# How far the early stages go along the cosine's arc from 1 to 0.
EARLY_ARC = 26 / 31
LATE_STAGES = 2
# Small pictures show less, so their scenes are easier: larger sprites, fewer degradations.
EASY_STYLE = SceneStyle(
    scale=(0.6, 1.0),
    rotation=6.0,
    plain_background=0.5,
    hue_shift=0.1,
    distractor=0.0,
    grey=0.05,
    night=0.0,
    blur=0.1,
    low_resolution=0.05,
    noise=0.03,
    lighting=0.25,
)
MIDDLE_STYLE = SceneStyle(scale=(0.45, 1.0), low_resolution=0.15, blur=0.2, noise=0.05)
RELATED = frozenset(
    {
        *("animal", "bird", "bug", "fish", "insect", "mammal", "pet", "flower", "plant", "tree"),
        *("building", "door", "furniture", "home", "house", "food", "clothing"),
        *("car", "emergency", "plane", "train", "transport", "transportation", "truck", "vehicle"),
        *("job", "occupation", "police", "profession", "security", "uniform", "work", "worker"),
        *("fire", "light", "rain", "storm", "weather", "sport", "tool", "weapon"),
    }
)


@dataclass(frozen=True, slots=True)
class Stage:
    """Part of the schedule: a number of steps at one image size.

    `classifier` weighs the classification loss, which speeds up the early stages.
    """

    steps: int
    size: int
    batch: int
    style: SceneStyle
    classifier: float


def _schedule(scale: float) -> tuple[Stage, ...]:
    return (
        Stage(round(900 * scale), 80, 128, EASY_STYLE, 0.5),
        Stage(round(900 * scale), 80, 128, MIDDLE_STYLE, 0.5),
        Stage(round(800 * scale), 112, 128, MIDDLE_STYLE, 0.5),
        Stage(round(40 * scale), 224, 128, TRAINING_STYLE, 0.0),
        Stage(round(160 * scale), 224, 64, TRAINING_STYLE, 0.0),
    )


class SpriteSampler:
    """Draws sprites balanced by concept, then by artwork family, then by variant.

    The camera concepts make up CAMERA_SHARE of all draws.
    """

    def __init__(self, sheet: SpriteSheet, catalogue: dict[str, ConceptName]) -> None:
        self.concepts: list[str] = [*dict.fromkeys(sheet.concepts), EMPTY_SCENE]
        numbers = {name: number for number, name in enumerate(self.concepts)}
        self.concept_of = np.array([numbers[name] for name in sheet.concepts])
        counts: dict[tuple[str, str], int] = {}
        for key in zip(sheet.concepts, sheet.families, strict=True):
            counts[key] = counts.get(key, 0) + 1
        weights = np.zeros(len(sheet.concepts))
        for place, (name, family) in enumerate(zip(sheet.concepts, sheet.families, strict=True)):
            weight = 0.5 if family in MONOCHROME_FAMILIES else 1.0
            weights[place] = weight / counts[name, family]
        totals = np.bincount(self.concept_of, weights, len(self.concepts))
        shares = np.array([self._interest(catalogue[n]) for n in self.concepts[:-1]] + [0.0])
        camera = np.array([n in catalogue and catalogue[n].camera for n in self.concepts])
        shares[camera] = CAMERA_SHARE / camera.sum()
        shares[~camera] *= (1 - CAMERA_SHARE) / shares[~camera].sum()
        self._weights = weights / totals[self.concept_of] * shares[self.concept_of]
        self._weights /= self._weights.sum()
        self._edges = np.cumsum(self._weights)

    @staticmethod
    def _interest(concept: ConceptName) -> float:
        words = {*concept.name.split(), *concept.keywords}
        if "face" in words:
            return 0.5
        return 2.0 if words & RELATED else 1.0

    def draw(self, count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """Draws rows of the sheet, int64 [count]; -1 stands for an empty scene."""
        found = np.searchsorted(self._edges, rng.random(count) * self._edges[-1])
        rows: npt.NDArray[np.int64] = np.minimum(found, len(self._edges) - 1).astype(np.int64)
        rows[rng.random(count) < EMPTY_SHARE] = -1
        return rows


class MasterWeights:
    """fp32 weights with their optimisers, mirrored by a bfloat16 model that computes."""

    def __init__(self, model: nn.Module, classifier: nn.Linear, rate: float) -> None:
        self.model = model
        self.classifier = classifier
        self.worker = copy.deepcopy(model).to(torch.bfloat16)
        hidden: list[nn.Parameter] = []
        other: list[nn.Parameter] = []
        for name, parameter in model.named_parameters():
            matrix = "resblocks" in name and parameter.ndim == 2
            (hidden if matrix else other).append(parameter)
        # Muon orthogonalises the updates of the towers' matrices; it needs far fewer steps here
        # than AdamW (https://kellerjordan.github.io/posts/muon/).
        self._optimisers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(hidden, lr=rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(
                [
                    {"params": [p for p in other if p.ndim >= 2], "weight_decay": 0.05},
                    {"params": [p for p in other if p.ndim < 2], "weight_decay": 0.0},
                    {"params": list(classifier.parameters()), "weight_decay": 0.01},
                ],
                lr=rate,
                betas=(0.9, 0.98),
            ),
        ]
        self._rate = rate

    def load(self, checkpoint: Path) -> None:
        """Takes the weights of a checkpoint with the same token rows."""
        state = load_file(checkpoint / "open_clip_model.safetensors")
        del state["token_embedding.rows"]
        self.model.load_state_dict({name: tensor.float() for name, tensor in state.items()})
        self.worker.load_state_dict(self.model.state_dict())

    def step(self, share: float) -> None:
        """Takes one step at `share` of the full learning rate, from the worker's gradients."""
        for master, worker in zip(self.model.parameters(), self.worker.parameters(), strict=True):
            if worker.grad is not None:
                master.grad = worker.grad.float()
        parameters = [*self.model.parameters(), *self.classifier.parameters()]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimiser in self._optimisers:
            for group in optimiser.param_groups:
                group["lr"] = self._rate * share
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        with torch.no_grad():
            scale: Tensor = self.model.logit_scale  # type: ignore[assignment]
            scale.clamp_(0, math.log(100))
            pairs = zip(self.model.parameters(), self.worker.parameters(), strict=True)
            for master, worker in pairs:
                worker.copy_(master)
                worker.grad = None


def contrastive_loss(
    images: Tensor, texts: Tensor, scale: Tensor, concepts: Tensor
) -> tuple[Tensor, Tensor]:
    """CLIP's symmetric loss, where all pairs of one concept are positives.

    Args:
        images: float32 [n, 768] unit vectors.
        texts: float32 [n, 768] unit vectors.
        scale: the logit scale, a scalar (not its logarithm).
        concepts: int64 [n], the concept of each pair.

    Returns:
        The loss, and the share of images whose best text in the batch is of their concept.
    """
    logits = scale * images @ texts.T
    same = concepts[:, None] == concepts[None, :]
    targets = same.float() / same.sum(1, keepdim=True)
    loss = (
        functional.cross_entropy(logits, targets) + functional.cross_entropy(logits.T, targets)
    ) / 2
    return loss, same.gather(1, logits.argmax(1, keepdim=True)).float().mean()


def _rate_share(step: int, early: int, late: int) -> float:
    """The share of the full learning rate at a step.

    Args:
        step: from 0.
        early: steps of all stages but the last two: linear warm-up, then a cosine down to 7 %.
        late: steps of the last two stages, which get used to full-size images: a second
            warm-up to 25 %, then linearly down to 0.
    """
    if step < early:
        warm = min(1.0, (step + 1) / 100)
        return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / early * EARLY_ARC)))
    done = step - early
    return 0.25 * min(1.0, (done + 1) / 20) * (1 - done / late)


def read_photos() -> list[Tensor]:
    """Reads permissively licensed sample photos without people or objects of our concepts.

    Returns:
        uint8 [3, h, w] each: a temple, a flower, and textures of bricks, grass and gravel.
    """
    from skimage import data
    from sklearn.datasets import load_sample_images

    arrays = [np.asarray(image) for image in load_sample_images().images]
    arrays += [np.asarray(texture()) for texture in (data.brick, data.grass, data.gravel)]
    photos = []
    for array in arrays:
        colour = array if array.ndim == 3 else np.stack([array] * 3, axis=-1)
        photos.append(torch.from_numpy(colour[..., :3].copy()).permute(2, 0, 1).contiguous())
    return photos


def save_checkpoint(
    model: nn.Module, rows: npt.NDArray[np.int64], folder: Path, metadata: dict[str, str]
) -> None:
    """Writes `open_clip_config.json` and `open_clip_model.safetensors` (fp16).

    The token table holds only the trained rows; `token_embedding.rows` (int32, sorted) says
    which rows of the full table they are. All other rows are zero.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.detach().to(torch.float16).contiguous()
        for name, tensor in model.state_dict().items()
    }
    tensors["token_embedding.rows"] = torch.from_numpy(rows.astype(np.int32))
    partial = folder / "open_clip_model.safetensors.partial"
    save_file(tensors, partial, metadata={"format": "pt", **metadata})
    partial.chmod(0o644)
    partial.replace(folder / "open_clip_model.safetensors")
    config = {
        "model_cfg": MODEL_CONFIG,
        "preprocess_cfg": {
            "size": [224, 224],
            "mode": "RGB",
            "mean": list(IMAGE_MEAN),
            "std": list(IMAGE_STD),
            "interpolation": "bicubic",
            "resize_mode": "shortest",
            "fill_color": 0,
        },
    }
    text = json.dumps(config, indent=2) + "\n"
    (folder / "open_clip_config.json").write_text(text, encoding="utf-8")


@dataclass(slots=True)
class Trainer:
    """Everything that a training step needs."""

    weights: MasterWeights
    sampler: SpriteSampler
    writer: CaptionWriter
    vocabulary: Vocabulary
    composer: SceneComposer
    variants: Sequence[str]
    rng: np.random.Generator

    def step(self, stage: Stage, share: float) -> tuple[float, float, float]:
        """Takes one step; returns the contrastive loss, the classifier's, and the accuracy."""
        rows = self.sampler.draw(stage.batch, self.rng)
        empty = len(self.sampler.concepts) - 1
        concepts = np.where(rows >= 0, self.sampler.concept_of[rows], empty)
        captions = [
            self.writer.write(self.sampler.concepts[concept], self.variants[row], self.rng)
            for concept, row in zip(concepts, rows, strict=True)
        ]
        places, ends = self.vocabulary.batch(captions, CAPTION_TOKENS)
        tokens, stops = torch.from_numpy(places), torch.from_numpy(ends)
        known = torch.from_numpy(self.rng.random(places.shape) >= UNKNOWN_SHARE)
        known |= (tokens == len(self.vocabulary.rows) - 1) | (
            tokens == len(self.vocabulary.rows) - 2
        )
        targets = torch.from_numpy(concepts)
        pixels = self._scenes(torch.from_numpy(rows), stage)
        worker: Any = self.weights.worker
        master: Any = self.weights.model
        raw = image_features(worker.visual, pixels).float()
        texts = functional.normalize(text_features(worker, tokens, stops, known).float(), dim=-1)
        loss, accuracy = contrastive_loss(
            functional.normalize(raw, dim=-1), texts, master.logit_scale.exp(), targets
        )
        classes = torch.zeros(())
        if stage.classifier:
            logits = self.weights.classifier(raw)
            classes = functional.cross_entropy(logits, targets, label_smoothing=0.05)
        (loss + stage.classifier * classes).backward()  # type: ignore[no-untyped-call]
        self.weights.step(share)
        return float(loss.detach()), float(classes.detach()), float(accuracy)

    def _scenes(self, rows: Tensor, stage: Stage) -> Tensor:
        """Composes normalised bfloat16 scenes, a few at a time so that they stay in the cache."""
        mean = torch.tensor(IMAGE_MEAN)[:, None, None]
        deviation = torch.tensor(IMAGE_STD)[:, None, None]
        parts = [
            ((self.composer.compose(part, stage.size, stage.style) - mean) / deviation).bfloat16()
            for part in torch.split(rows, COMPOSE_AT_ONCE)
        ]
        return torch.cat(parts)


def _without(
    sheet: SpriteSheet, families: frozenset[str], catalogue: dict[str, ConceptName]
) -> SpriteSheet:
    """Removes some families' drawings of the camera concepts, to validate on them."""
    kept = [
        place
        for place, (name, family) in enumerate(zip(sheet.concepts, sheet.families, strict=True))
        if not (family in families and catalogue[name].camera)
    ]
    return SpriteSheet(
        sheet.pixels[kept],
        tuple(sheet.concepts[k] for k in kept),
        tuple(sheet.variants[k] for k in kept),
        tuple(sheet.families[k] for k in kept),
    )


def build_trainer(
    sheet: SpriteSheet, catalogue: dict[str, ConceptName], seed: int, rate: float
) -> Trainer:
    """Prepares the data, the model and its optimisers, all from one seed."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    sampler = SpriteSampler(sheet, catalogue)
    writer = CaptionWriter(catalogue, sampler.concepts)
    tokenizer: Any = open_clip.SimpleTokenizer()
    vocabulary = Vocabulary.of(
        writer.phrases(sorted(set(sheet.variants))),
        tokenizer.encode,
        tokenizer.sot_token_id,
        tokenizer.eot_token_id,
    )
    backgrounds = torch.cat(
        [
            paint_backgrounds(2500, generator),
            cut_backgrounds(read_photos(), 1500, generator),
        ]
    )
    monochrome = torch.tensor([family in MONOCHROME_FAMILIES for family in sheet.families])
    composer = SceneComposer(
        premultiply(torch.from_numpy(sheet.pixels)), monochrome, backgrounds, generator
    )
    model = compact_model(len(vocabulary.rows))
    classifier = nn.Linear(768, len(sampler.concepts))
    weights = MasterWeights(model, classifier, rate)
    rng = np.random.default_rng(seed)
    return Trainer(weights, sampler, writer, vocabulary, composer, sheet.variants, rng)


def run_schedule(
    trainer: Trainer,
    stages: Sequence[Stage],
    save: Callable[[int], None],
    every: int,
    first: int = 0,
) -> None:
    """Runs all stages, logging progress, and calls `save` every so many steps and at the end.

    Stages before `first` are skipped because they are already done.
    """
    late = sum(stage.steps for stage in stages[-LATE_STAGES:])
    steps = sum(stage.steps for stage in stages)
    step, begun = sum(stage.steps for stage in stages[:first]), time.monotonic()
    for stage in stages[first:]:
        for _ in range(stage.steps):
            share = _rate_share(step, steps - late, late)
            loss, classes, accuracy = trainer.step(stage, share)
            step += 1
            if step % 10 == 0:
                _LOG.info(
                    "step %d/%d size %d loss %.3f classes %.3f accuracy %.3f %.0f s",
                    *(step, steps, stage.size, loss, classes, accuracy),
                    time.monotonic() - begun,
                )
            if step % every == 0:
                save(step)
    save(step)


def main() -> None:
    """Trains by the command line's options and writes the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--scale", type=float, default=1.0, help="length of the schedule")
    parser.add_argument("--rate", type=float, default=2e-3, help="highest learning rate")
    parser.add_argument(
        "--artwork", type=Path, default=Path(__file__).resolve().parent / "node_modules"
    )
    parser.add_argument("--sprites", type=Path, help="folder to cache sprites in")
    parser.add_argument("--output", type=Path, default=HOME / "checkpoint")
    parser.add_argument("--held-out", type=Path, help="also write the held-out sprites here")
    parser.add_argument("--leave-out", nargs="*", default=[], help="families to validate on")
    parser.add_argument("--save-every", type=int, default=200)
    parser.add_argument(
        "--start-from", type=Path, help="a checkpoint of step 2640, to run the last stage alone"
    )
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    if options.threads:
        torch.set_num_threads(options.threads)
    catalogue = read_catalogue(options.artwork)
    if options.held_out:
        write_held_out(options.artwork, options.held_out)
    sheet = load_training_sheet(options.artwork, options.sprites or options.artwork / ".sprites")
    if options.leave_out:
        sheet = _without(sheet, frozenset(options.leave_out), catalogue)
    trainer = build_trainer(sheet, catalogue, options.seed, options.rate)
    sizes = (len(sheet.concepts), len(trainer.sampler.concepts), len(trainer.vocabulary.rows))
    _LOG.info("%d sprites, %d concepts, %d tokens", *sizes)

    def save(step: int) -> None:
        metadata = {"seed": str(options.seed), "step": str(step)}
        save_checkpoint(trainer.weights.model, trainer.vocabulary.rows, options.output, metadata)

    stages, first = _schedule(options.scale), 0
    if options.start_from:
        first = len(stages) - 1
        trainer.weights.load(options.start_from)
    run_schedule(trainer, stages, save, options.save_every, first)


if __name__ == "__main__":
    main()
