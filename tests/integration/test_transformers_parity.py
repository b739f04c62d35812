"""Our torch encoder against `transformers.CLIPModel` on the same weights."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from adapters.encoders.selection import EncoderChoice, EncoderSelection
from adapters.images.preprocessing import preprocess
from adapters.models.precision import Precision
from application.ports import EncoderPort
from domain.classification import classify
from domain.embedding import Embedding
from tests.support.checkpoints import clip_tokenizer, save_hugging_face, small_clip
from tests.support.photos import large_pictures, photos
from tests.support.reduced_decoding import cosines
from tests.support.rows import unit

# Shorter, exactly (75 words and the two special tokens), and longer than 77 tokens.
TEXTS = ["a dog", "a photo of a delivery truck at night", "dog " * 75, "dog cat " * 60]


class Reference:
    """transformers' own responses, from raw photos and texts."""

    def __init__(self, model: Any, vocabulary: Path, pictures: Sequence[Image.Image]) -> None:
        self.pictures = pictures
        self._model = model
        self._processor = CLIPImageProcessorPil()
        self._tokenizer = clip_tokenizer(vocabulary)

    @cached_property
    @torch.inference_mode()
    def images(self) -> np.ndarray:
        pixels = self._processor(list(self.pictures), return_tensors="pt")["pixel_values"]
        return unit(features(self._model.get_image_features(pixels)))

    @cached_property
    @torch.inference_mode()
    def texts(self) -> np.ndarray:
        tokens = self._tokenizer(
            TEXTS, padding="max_length", truncation=True, max_length=77, return_tensors="pt"
        )
        return unit(features(self._model.get_text_features(tokens["input_ids"])))

    @torch.inference_mode()
    def probabilities(self, labels: list[str]) -> np.ndarray:
        tokens = self._tokenizer(labels, padding=True, return_tensors="pt")
        pixels = self._processor(list(self.pictures), return_tensors="pt")["pixel_values"]
        output = self._model(input_ids=tokens["input_ids"], pixel_values=pixels)
        return np.asarray(output.logits_per_image.softmax(dim=1))


def features(output: Any) -> np.ndarray:
    return np.asarray(getattr(output, "pooler_output", output))


def check_parity(
    model: Any, checkpoint: str, vocabulary: Path, pictures: Sequence[Image.Image]
) -> None:
    reference = Reference(model, vocabulary, pictures)
    encoder = torch_encoder(checkpoint, Precision.FP32)
    check_embeddings(encoder, reference, cosine=0.99999)
    check_scores(encoder, reference)
    check_embeddings(torch_encoder(checkpoint, Precision.BF16), reference, cosine=0.9995)


def torch_encoder(checkpoint: str, precision: Precision) -> EncoderPort:
    return EncoderSelection(EncoderChoice.TORCH, checkpoint, 768, precision=precision).load()


def check_embeddings(encoder: EncoderPort, reference: Reference, *, cosine: float) -> None:
    ours = unit(encoder.encode_images(np.stack([preprocess(p) for p in reference.pictures])))
    assert (ours * reference.images).sum(axis=1).min() >= cosine
    ours = unit(encoder.encode_texts(TEXTS))
    assert (ours * reference.texts).sum(axis=1).min() >= cosine


def check_scores(encoder: EncoderPort, reference: Reference) -> None:
    labels = ["a cat", "a cup of coffee", "a rocket", "a temple", "an astronaut"]
    expected = reference.probabilities(labels)
    texts = dict(
        zip(labels, map(Embedding.from_encoder, encoder.encode_texts(labels)), strict=True)
    )
    for number, image in enumerate(reference.pictures):
        (row,) = encoder.encode_images(preprocess(image)[np.newaxis])
        scores = classify(
            Embedding.from_encoder(row), texts, logit_scale=encoder.description.logit_scale
        ).scores
        np.testing.assert_allclose(list(scores.values()), expected[number], atol=1e-4)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_small_random_checkpoint(activation: str, tmp_path: Path) -> None:
    model = small_clip(hidden_act=activation)
    checkpoint = str(save_hugging_face(model, tmp_path / "checkpoint"))
    check_parity(model, checkpoint, tmp_path, list(photos().values()))


@pytest.mark.long
def test_full_size_random_checkpoint(full_size_directory: Path, tmp_path: Path) -> None:
    checkpoint = str(full_size_directory)
    model = CLIPModel.from_pretrained(checkpoint).eval()
    # Two: of those, bfloat16 takes a minute on processors that have no instructions for it.
    check_parity(model, checkpoint, tmp_path, list(photos().values())[:2])
    encoder = EncoderSelection(EncoderChoice.AUTO, checkpoint, 768).load()
    assert encoder.description.model == "clip-vit-large-patch14"
    # A photo, and the finest text: the demo model's test has more of them.
    large = large_pictures()
    found = cosines(encoder, {name: large[name] for name in ("cat 1280", "text 8 1280")})
    assert min(found.values()) >= 0.9995
