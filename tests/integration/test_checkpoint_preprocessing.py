"""A checkpoint's own preprocessing: served as transformers does it, or refused by name."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from adapters.encoders.image_tower_export import export_image_tower
from adapters.encoders.onnxruntime.towers import OnnxImageTower
from adapters.encoders.openvino.encoder import OpenVinoEncoder
from adapters.encoders.torch.encoder import TorchEncoder
from adapters.export.bundles import write_bundle
from adapters.images.preprocessing import MEAN, STD, preprocess
from adapters.models.bundle import read_bundle
from adapters.models.checkpoint_files import InvalidCheckpoint
from adapters.models.precision import Precision
from adapters.models.reading import read_checkpoint
from application.ports import Device
from tests.support.photos import photos
from tests.support.rows import smallest_cosine, unit

CPU = Device("cpu", cuda_available=False)
LAIONS = {
    "crop_size": 224,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "resample": 3,
    "size": 224,
}
"""As in laion/CLIP-ViT-L-14-laion2B-s32B-b82K."""


@pytest.fixture
def copy(hugging_face_directory: Path, tmp_path: Path) -> Path:
    """A Hugging Face directory to be changed."""
    return shutil.copytree(hugging_face_directory, tmp_path / "copy")


@pytest.fixture
def open_clip_copy(open_clip_directory: Path, tmp_path: Path) -> Path:
    """An OpenCLIP directory to be changed."""
    return shutil.copytree(open_clip_directory, tmp_path / "open-clip-copy")


def write(directory: Path, config: dict[str, Any], *, nested: bool = False) -> None:
    if nested:
        path, content = "processor_config.json", {"image_processor": config}
    else:
        path, content = "preprocessor_config.json", config
    (directory / path).write_text(json.dumps(content))


def write_open_clip(directory: Path, **settings: Any) -> None:
    path = directory / "open_clip_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "preprocess_cfg": settings}))


def refusal(source: Path) -> str:
    with pytest.raises(InvalidCheckpoint) as caught:
        read_checkpoint(str(source))
    return str(caught.value)


@torch.inference_mode()
def by_transformers(directory: Path) -> np.ndarray:
    processor = CLIPImageProcessorPil.from_pretrained(directory)
    pixels = processor(list(photos().values()), return_tensors="pt")["pixel_values"]
    output = CLIPModel.from_pretrained(directory).eval().get_image_features(pixels)
    return unit(np.asarray(getattr(output, "pooler_output", output)))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"image_mean": [0.5] * 3, "image_std": [0.5] * 3},
        {"image_mean": [0.3, 0.4, 0.5], "image_std": [0.2, 0.3, 0.4]},
        {"do_normalize": False},
        {"rescale_factor": 1 / 127.5},
        {"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [127.5] * 3},
        {"resample": 2},
        {"resample": 1},
        {"size": {"height": 224, "width": 224}, "do_center_crop": False},
    ],
)
def test_every_runtime_prepares_as_transformers_does_with_the_same_directory(
    settings: dict[str, Any], copy: Path, tmp_path: Path
) -> None:
    CLIPImageProcessorPil(**settings).save_pretrained(copy)
    expected = by_transformers(copy)
    checkpoint = read_checkpoint(str(copy))
    image_input = checkpoint.preprocessing.image_input
    batch = np.stack([preprocess(photo, image_input) for photo in photos().values()])
    torch_rows = TorchEncoder(checkpoint, CPU, precision=Precision.FP32).encode_images(batch)
    assert smallest_cosine(torch_rows, expected) > 0.99999
    bundle = write_bundle(checkpoint, tmp_path / "bundle")
    openvino = OpenVinoEncoder(bundle, precision=Precision.FP32)
    assert smallest_cosine(openvino.encode_images(batch), expected) > 0.99999
    for precision, needed in ((Precision.FP32, 0.99999), (Precision.FP16, 0.999)):
        path = tmp_path / f"{precision}.onnx"
        export_image_tower(checkpoint, path, precision=precision)
        assert smallest_cosine(OnnxImageTower(path).encode_images(batch), expected) > needed


def test_the_normalisation_makes_a_difference(copy: Path) -> None:
    plain = by_transformers_after(copy, {})
    other = by_transformers_after(copy, {"image_mean": [0.5] * 3, "image_std": [0.5] * 3})
    assert smallest_cosine(plain, other) < 0.9999


def by_transformers_after(directory: Path, settings: dict[str, Any]) -> np.ndarray:
    CLIPImageProcessorPil(**settings).save_pretrained(directory)
    return by_transformers(directory)


def test_a_traced_tower_is_normalised_too(tmp_path: Path) -> None:
    from tests.support.checkpoints import save_resnet

    source = save_resnet(tmp_path / "resnet")
    plain = read_checkpoint(str(source))
    write_open_clip(source, mean=[0.5] * 3, std=[0.25] * 3)
    checkpoint = read_checkpoint(str(source))
    batch = np.stack([preprocess(photo) for photo in photos().values()])
    expected = TorchEncoder(checkpoint, CPU, precision=Precision.FP32).encode_images(batch)
    path = tmp_path / "tower.onnx"
    export_image_tower(checkpoint, path, precision=Precision.FP32)
    assert smallest_cosine(OnnxImageTower(path).encode_images(batch), expected) > 0.9999
    other = TorchEncoder(plain, CPU, precision=Precision.FP32).encode_images(batch)
    assert not np.allclose(other, expected)


def test_clips_own_preprocessing_keeps_the_fingerprint(
    copy: Path, hugging_face_directory: Path, open_clip_copy: Path
) -> None:
    plain = read_checkpoint(str(hugging_face_directory)).fingerprint
    CLIPImageProcessorPil().save_pretrained(copy)
    assert read_checkpoint(str(copy)).fingerprint == plain
    write(copy, {**LAIONS, "image_mean": list(MEAN), "image_std": list(STD)})
    assert read_checkpoint(str(copy)).fingerprint == plain
    write_open_clip(
        open_clip_copy,
        size=224,
        mode="RGB",
        mean=list(MEAN),
        std=list(STD),
        interpolation="bicubic",
        resize_mode="shortest",
        fill_color=0,
    )
    assert read_checkpoint(str(open_clip_copy)).fingerprint == plain


def test_another_normalisation_is_another_fingerprint_and_the_same_in_every_layout(
    copy: Path, open_clip_copy: Path, hugging_face_directory: Path, tmp_path: Path
) -> None:
    plain = read_checkpoint(str(hugging_face_directory)).fingerprint
    write(copy, LAIONS)
    half = read_checkpoint(str(copy))
    assert half.fingerprint != plain
    assert half.preprocessing.mean == (0.5, 0.5, 0.5)
    write_open_clip(open_clip_copy, mean=0.5, std=[0.5, 0.5, 0.5])
    assert read_checkpoint(str(open_clip_copy)).fingerprint == half.fingerprint
    assert write_bundle(half, tmp_path / "bundle").fingerprint == half.fingerprint
    write(copy, {**LAIONS, "image_std": [0.25] * 3})
    assert read_checkpoint(str(copy)).fingerprint not in (plain, half.fingerprint)


def test_the_file_that_transformers_takes_first_counts(copy: Path) -> None:
    write(copy, {**LAIONS, "size": 336})
    write(copy, LAIONS, nested=True)
    assert read_checkpoint(str(copy)).preprocessing.mean == (0.5, 0.5, 0.5)
    (copy / "processor_config.json").write_text('{"processor_class": "CLIPProcessor"}')
    assert "size 336" in refusal(copy)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"size": 336}, "size 336"),
        ({"size": 2048, "crop_size": 2048}, "size is 2048"),
        ({"size": {"shortest_edge": 256}}, "size 256"),
        ({"size": {"height": 224, "width": 448}}, "size is {'height': 224"),
        ({"size": {"longest_edge": 224}}, "longest_edge"),
        ({"size": [[224], 224]}, "size is [[224], 224]"),
        ({"crop_size": {"height": 336, "width": 336}}, "crop_size is {'height': 336"),
        ({"resample": "sinc"}, "filter 'sinc'"),
        ({"resample": 17}, "filter '17'"),
        ({"do_resize": False}, "do_resize is False"),
        ({"do_center_crop": False}, "do_center_crop is False"),
        ({"do_pad": True}, "do_pad is True"),
        ({"feature_extractor_type": "ViTImageProcessor"}, "ViTImageProcessor"),
        ({"image_std": [0.5, 0.0, 0.5]}, "std"),
        ({"image_mean": [0.5, 0.5]}, "image_mean is [0.5, 0.5]"),
        ({"image_mean": ["x", 0.5, 0.5]}, "image_mean has 'x'"),
        ({"image_mean": [float("nan"), 0.5, 0.5]}, "image_mean has 'nan'"),
        ({"rescale_factor": 0}, "rescale_factor"),
        ({"rescale_factor": "x" * 10_000}, "rescale_factor has 'xxx"),
    ],
)
def test_what_is_not_served_exactly_is_refused_by_name(
    settings: dict[str, Any], named: str, nested: bool, copy: Path
) -> None:
    write(copy, {**LAIONS, **settings}, nested=nested)
    message = refusal(copy)
    assert named in message
    assert ("processor_config.json" if nested else "preprocessor_config.json") in message
    assert len(message) < 500


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"size": 336}, "336 x 336"),
        ({"size": [224, 336]}, "size is [224, 336]"),
        ({"resize_mode": "stretch"}, "'stretch'"),
        ({"resize_mode": "longest", "fill_color": 300}, "fill_color is 300"),
        ({"interpolation": "random"}, "'random'"),
        ({"mode": "L"}, "read as L"),
        ({"std": 0}, "std"),
        ({"mean": {}}, "mean has"),
    ],
)
def test_open_clips_settings_are_refused_by_name_too(
    settings: dict[str, Any], named: str, open_clip_copy: Path
) -> None:
    write_open_clip(open_clip_copy, **settings)
    assert named in refusal(open_clip_copy)


@pytest.mark.parametrize("content", ["[]", "3", '{"image_processor": []}'])
def test_a_description_of_something_else_is_refused(content: str, copy: Path) -> None:
    name = "processor_config.json" if "image" in content else "preprocessor_config.json"
    (copy / name).write_text(content)
    assert "does not describe an image processor" in refusal(copy)


@pytest.mark.parametrize(
    ("settings", "named"), [({"size": 0}, "size is 0"), ({"fit": "wide"}, "fit is wide")]
)
def test_a_bundle_of_another_preprocessing_is_refused(
    settings: dict[str, Any], named: str, hugging_face_directory: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "bundle"
    write_bundle(read_checkpoint(str(hugging_face_directory)), directory)
    described = json.loads((directory / "bundle.json").read_text())
    described["preprocessing"].update(settings)
    (directory / "bundle.json").write_text(json.dumps(described))
    with pytest.raises(InvalidCheckpoint) as caught:
        read_bundle(directory)
    assert named in str(caught.value)
