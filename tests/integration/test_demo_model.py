"""The embedded model through the server's own encoders, on artwork it was never trained on."""

import io
import json
from pathlib import Path

import numpy as np

from adapters.encoders.selection import EncoderChoice, EncoderSelection
from adapters.images.photos import samples
from adapters.images.preprocessing import as_pixels, preprocess
from adapters.models.precision import Precision
from adapters.models.reading import DEMO, DEMO_DIRECTORY
from application.ports import EncoderPort
from tests.support.rows import unit
from training.evaluate import evaluate


def test_zero_shot_on_unseen_artwork_reaches_its_goal(tmp_path: Path) -> None:
    from PIL import Image

    encoder: EncoderPort = EncoderSelection(
        EncoderChoice.OPENVINO, DEMO, 768, cache=tmp_path
    ).load()
    result = evaluate(
        lambda images: unit(
            encoder.encode_images(np.stack([preprocess(Image.fromarray(i)) for i in images]))
        ),
        lambda texts: unit(encoder.encode_texts(texts)),
        scenes_per_concept=6,
    )
    assert result.clean.top1 >= 0.8
    assert result.camera.top1 >= 0.6
    assert result.camera.top5 >= 0.85
    assert result.chance_top1 == 0.02


def test_both_runtimes_give_the_same_embeddings(tmp_path: Path) -> None:
    """So that what one of them reaches above is reached by the other."""
    texts = ["a delivery truck", "a cat on a sofa"]
    torch, openvino = (
        EncoderSelection(choice, DEMO, 768, cache=tmp_path, precision=Precision.FP32).load()
        for choice in (EncoderChoice.TORCH, EncoderChoice.OPENVINO)
    )
    images = [unit(each.encode_images(samples())) for each in (torch, openvino)]
    assert (images[0] * images[1]).sum(axis=1).min() > 0.9999
    assert (unit(torch.encode_texts(texts)) * unit(openvino.encode_texts(texts))).sum() > 1.9998


def test_the_file_is_small_and_the_figures_are_recorded() -> None:
    assert (DEMO_DIRECTORY / "open_clip_model.safetensors").stat().st_size <= 20_000_000
    recorded = json.loads((DEMO_DIRECTORY.parent / "evaluation.json").read_text())
    assert recorded["camera"]["top1"] >= 0.6


def test_reduced_decoding_of_large_jpegs_changes_no_embedding(tmp_path: Path) -> None:
    from PIL import Image

    from adapters.images.pillow_preparation import PillowImagePreparation
    from tests.support.photos import as_file, photos

    encoder = EncoderSelection(EncoderChoice.TORCH, DEMO, 768, cache=tmp_path).load()
    rng = np.random.default_rng(3)
    reduced, whole = [], []
    for image in photos().values():
        large = np.asarray(image.resize((2560, 1440), Image.Resampling.LANCZOS), dtype=np.float32)
        noisy = (large + rng.normal(0, 12, large.shape)).clip(0, 255).astype(np.uint8)
        data = as_file(Image.fromarray(noisy), quality=90)
        reduced.append(as_pixels(PillowImagePreparation().prepare(data)))
        with Image.open(io.BytesIO(data)) as file:
            whole.append(preprocess(file.convert("RGB")))
    a, b = (unit(encoder.encode_images(np.stack(batch))) for batch in (reduced, whole))
    assert not np.array_equal(reduced[0], whole[0]), "nothing was reduced"
    assert (a * b).sum(axis=1).min() > 0.999
