"""Models beside plain CLIP: the same embeddings as their own libraries make, on every runtime."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
from open_clip.hf_model import HFTextEncoder
from open_clip.tokenizer import HFTokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from transformers import CLIPModel, SiglipModel, XLMRobertaConfig
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.siglip2.tokenization_siglip2 import Siglip2Tokenizer

from adapters.encoders.image_tower_export import export_image_tower
from adapters.encoders.onnxruntime.towers import OnnxImageTower, OnnxTextTower
from adapters.encoders.openvino.encoder import OpenVinoEncoder
from adapters.encoders.torch.encoder import TorchEncoder
from adapters.export.bundles import write_bundle
from adapters.export.image_tower_file import data_file
from adapters.images.preprocessing import preprocess
from adapters.models.architecture import Family, normalised
from adapters.models.bundle import read_bundle
from adapters.models.checkpoint import Checkpoint
from adapters.models.checkpoint_files import InvalidCheckpoint
from adapters.models.precision import Precision
from adapters.models.reading import read_checkpoint
from adapters.models.tokenization import Cleaning
from application.ports import Device, Fit
from tests.support.checkpoints import save_hugging_face, small_clip
from tests.support.families import (
    TEXTS,
    save_open_clips,
    save_siglip,
    save_xlm_roberta_tokenizer,
    small_siglip,
)
from tests.support.photos import photos
from tests.support.rows import smallest_cosine, unit

CPU = Device("cpu", cuda_available=False)
EXACT = 0.99999
BF16 = 0.999
FEW = [photos()["cat"]]
"""For full-size models."""
SHAPES = [*photos().values(), *(Image.new("RGB", size, "teal") for size in ((500, 3), (1, 1)))]


@dataclass(frozen=True)
class Reference:
    """What another library makes of images and of `TEXTS`, each row of length 1."""

    images: np.ndarray
    texts: np.ndarray


def pixels_of(checkpoint: Checkpoint, images: Sequence[Image.Image] = SHAPES) -> np.ndarray:
    image_input = checkpoint.preprocessing.image_input
    return np.stack([preprocess(image.convert("RGB"), image_input) for image in images])


def check_every_runtime(
    checkpoint: Checkpoint,
    expected: Reference,
    scratch: Path,
    images: Sequence[Image.Image] = SHAPES,
) -> None:
    batch = pixels_of(checkpoint, images)
    for precision, needed in ((Precision.FP32, EXACT), (Precision.BF16, BF16)):
        on_torch = TorchEncoder(checkpoint, CPU, precision=precision)
        assert smallest_cosine(on_torch.encode_images(batch), expected.images) > needed
        assert smallest_cosine(on_torch.encode_texts(TEXTS), expected.texts) > needed
        description = on_torch.description
        del on_torch
    bundle = write_bundle(checkpoint, scratch / "bundle")
    assert bundle == read_bundle(scratch / "bundle")
    openvino = OpenVinoEncoder(bundle, precision=Precision.FP32)
    assert smallest_cosine(openvino.encode_images(batch), expected.images) > EXACT
    assert smallest_cosine(openvino.encode_texts(TEXTS), expected.texts) > EXACT
    for name in ("fingerprint", "logit_scale", "logit_bias", "image_input", "context_length"):
        assert getattr(openvino.description, name) == getattr(description, name)
    del openvino
    assert smallest_cosine(OnnxTextTower(bundle).encode_texts(TEXTS), expected.texts) > EXACT
    shutil.rmtree(scratch / "bundle")  # a full-size model would fill a small disk with its copies
    for precision, needed in ((Precision.FP32, EXACT), (Precision.FP16, BF16)):
        path = scratch / f"{precision}.onnx"
        export_image_tower(checkpoint, path, precision=precision)
        assert smallest_cosine(OnnxImageTower(path).encode_images(batch), expected.images) > needed
        for file in (path, data_file(path)):
            file.unlink(missing_ok=True)


def rows(output: Any) -> np.ndarray:
    return unit(np.asarray(getattr(output, "pooler_output", output)))


@pytest.fixture(scope="module")
def siglip_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_siglip(small_siglip(), tmp_path_factory.mktemp("siglip"), size=64)


@pytest.fixture
def copy(siglip_directory: Path, tmp_path: Path) -> Path:
    return shutil.copytree(siglip_directory, tmp_path / "copy")


@torch.inference_mode()
def siglip_by_transformers(directory: Path) -> Reference:
    model = SiglipModel.from_pretrained(directory).eval()
    tokenizer = Siglip2Tokenizer.from_pretrained(directory)
    tokens = tokenizer(
        list(TEXTS), padding="max_length", max_length=64, truncation=True, return_tensors="pt"
    )
    pixels = SiglipImageProcessorPil.from_pretrained(directory)(SHAPES, return_tensors="pt")
    return Reference(
        rows(model.get_image_features(pixels["pixel_values"])),
        rows(model.get_text_features(tokens["input_ids"])),
    )


def test_siglip_2_as_transformers_has_it(siglip_directory: Path, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(str(siglip_directory))
    assert checkpoint.family is Family.SIGLIP
    assert checkpoint.embedding_dimension == 96
    assert checkpoint.logit_bias == pytest.approx(-12.9)
    assert checkpoint.preprocessing.image_input.fit is Fit.SQUASH
    check_every_runtime(checkpoint, siglip_by_transformers(siglip_directory), tmp_path)


def test_siglips_older_activation_and_padding_on_the_left(tmp_path: Path) -> None:
    directory = save_siglip(small_siglip(hidden_act="gelu"), tmp_path / "gelu", size=64, resample=3)
    path = directory / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "padding_side": "left"}))
    check_every_runtime(
        read_checkpoint(str(directory)), siglip_by_transformers(directory), tmp_path
    )


def test_siglip_without_an_image_processor_takes_siglips_own(copy: Path) -> None:
    (copy / "preprocessor_config.json").unlink()
    preprocessing = read_checkpoint(str(copy)).preprocessing
    assert preprocessing.mean == preprocessing.std == (0.5, 0.5, 0.5)
    assert (preprocessing.image_input.size, preprocessing.image_input.filter) == (64, "bicubic")


@torch.inference_mode()
def test_clip_at_another_size_as_transformers_has_it(tmp_path: Path) -> None:
    torch.manual_seed(3)
    small = small_clip()
    config = small.config
    config.vision_config.image_size = 96
    model = CLIPModel(config).eval()
    directory = save_hugging_face(model, tmp_path / "clip")
    CLIPImageProcessorPil(size=96, crop_size=96).save_pretrained(directory)
    pixels = CLIPImageProcessorPil.from_pretrained(directory)(SHAPES, return_tensors="pt")
    checkpoint = read_checkpoint(str(directory))
    assert checkpoint.preprocessing.image_input.size == 96
    expected = rows(model.get_image_features(pixels["pixel_values"]))
    on_torch = TorchEncoder(checkpoint, CPU, precision=Precision.FP32)
    assert smallest_cosine(on_torch.encode_images(pixels_of(checkpoint)), expected) > EXACT
    texts = unit(on_torch.encode_texts(TEXTS))
    check_every_runtime(checkpoint, Reference(expected, texts), tmp_path)


@pytest.mark.long
@torch.inference_mode()
def test_siglip_2_as_open_clip_has_it(tmp_path: Path) -> None:
    torch.manual_seed(4)
    config = open_clip.get_model_config("ViT-B-16-SigLIP2")
    model = open_clip.create_model("ViT-B-16-SigLIP2", pretrained=None).eval()
    preprocess_cfg = {
        **{"size": 224, "mode": "RGB", "mean": [0.5] * 3, "std": [0.5] * 3},
        **{"interpolation": "bicubic", "resize_mode": "squash"},
    }
    directory = save_open_clips(model, config, preprocess_cfg, tmp_path / "siglip2")
    save_siglip(small_siglip(), tmp_path / "tokenizer", size=64)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tmp_path / "tokenizer" / name, directory)
    transform = image_transform_v2(PreprocessCfg(**preprocess_cfg), is_train=False)
    tokenizer = HFTokenizer(str(directory), context_length=64, clean="canonicalize")
    expected = Reference(
        rows(model.encode_image(torch.stack([transform(image) for image in FEW]))),
        rows(model.encode_text(tokenizer(list(TEXTS)))),
    )
    del model
    checkpoint = read_checkpoint(str(directory))
    assert checkpoint.model == "siglip2-base-patch16-224"
    check_every_runtime(checkpoint, expected, tmp_path, FEW)


@pytest.mark.long
@torch.inference_mode()
def test_clip_with_an_xlm_roberta_as_open_clip_has_it(tmp_path: Path) -> None:
    torch.manual_seed(5)
    config = open_clip.get_model_config("xlm-roberta-base-ViT-B-32")
    plain = {**config, "text_cfg": {"width": 64, "heads": 2, "layers": 1}}
    model = open_clip.model.CustomTextCLIP(**plain).eval()
    # By its name, it would be fetched from the hub.
    model.text = HFTextEncoder(
        "xlm-roberta-base",
        512,
        config=XLMRobertaConfig(
            vocab_size=250_002, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5
        ),
        pooler_type="mean_pooler",
        proj_type="mlp",
    ).eval()
    model.text.transformer.pooler = None  # not among the weights either
    directory = save_open_clips(model, config, {}, tmp_path / "xlm")
    save_xlm_roberta_tokenizer(directory)
    checkpoint = read_checkpoint(str(directory))
    assert checkpoint.family is Family.XLM_ROBERTA
    tokens = HFTokenizer(str(directory), context_length=77)(list(TEXTS))
    images = rows(model.encode_image(torch.from_numpy(_in_clips_normalisation(checkpoint))))
    expected = Reference(images, rows(model.encode_text(tokens)))
    del model
    check_every_runtime(checkpoint, expected, tmp_path, FEW)


def _in_clips_normalisation(checkpoint: Checkpoint) -> np.ndarray:
    """The same pixels for both: how a picture is cropped is compared with transformers."""
    assert checkpoint.preprocessing.conversion is None
    return pixels_of(checkpoint, FEW)


@pytest.mark.parametrize("mode", ["squash", "longest"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pictures_become_square_as_in_open_clip(
    mode: str, interpolation: str, open_clip_directory: Path, tmp_path: Path
) -> None:
    directory = shutil.copytree(open_clip_directory, tmp_path / "copy")
    path = directory / "open_clip_config.json"
    settings = {"resize_mode": mode, "interpolation": interpolation, "fill_color": 100}
    path.write_text(json.dumps({**json.loads(path.read_text()), "preprocess_cfg": settings}))
    checkpoint = read_checkpoint(str(directory))
    transform = image_transform_v2(PreprocessCfg(size=224, **settings), is_train=False)
    for image, ours in zip(SHAPES, pixels_of(checkpoint), strict=True):
        difference = np.abs(np.asarray(transform(image)) - ours)
        # torchvision rounds the short side down where it is less than a pixel
        if min(image.size) > 3:
            # Two levels, as far as the SIMD resizer may be from Pillow; on average far below one.
            assert difference.max() < 0.031
            assert difference.mean() < 0.0005


@pytest.mark.parametrize(
    ("name", "size"),
    [("ViT-B-16-SigLIP", 224), ("ViT-SO400M-14-SigLIP-384", 384), ("ViT-L-16-SigLIP2-512", 512)],
)
def test_open_clips_names_are_described_by_sizes(name: str, size: int) -> None:
    config = open_clip.get_model_config(name)
    described = normalised(config)
    vision, text = described["vision_cfg"], described["text_cfg"]
    assert (vision["image_size"], text["width"]) == (size, config["text_cfg"]["width"])
    with torch.device("meta"):
        trunk: Any = timm.create_model(config["vision_cfg"]["timm_model_name"], num_classes=0)
    assert trunk.blocks[0].mlp.fc1.out_features == round(vision["width"] * vision["mlp_ratio"])
    assert len(trunk.blocks) == vision["layers"]
    assert trunk.blocks[0].attn.num_heads == vision["heads"]
    is_tanh = trunk.blocks[0].mlp.act.__class__.__name__ == "GELUTanh"
    assert is_tanh == ("act_kwargs" in vision)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("A red Car, parked;  in the\tRAIN!", "a red car parked in the rain"),
        ("a_dog -- {at} night.", "adog at night"),
        (" «Ёж» ", "«ёж»"),  # only ASCII's punctuation
    ],
)
def test_siglips_texts_lose_case_and_punctuation(text: str, cleaned: str, copy: Path) -> None:
    """As `canonicalize_text` of transformers' SiglipTokenizer (tokenization_siglip.py) does it."""
    edit(copy / "tokenizer_config.json", lambda c: c.update(tokenizer_class="SiglipTokenizer"))
    tokenization = read_checkpoint(str(copy)).tokenization
    assert tokenization.cleaning is Cleaning.SIGLIP
    as_it_is = replace(tokenization, cleaning=Cleaning.NONE).tokenizer()
    assert tokenization.tokenizer()([text]) == as_it_is([cleaned])


def test_special_tokens_in_a_text_are_text(siglip_directory: Path) -> None:
    tokenizer = read_checkpoint(str(siglip_directory)).tokenization.tokenizer()
    (tokens,) = tokenizer(["a <eos> b <pad>"])
    assert tokens.count(1) == 1
    assert tokens[-1] == 1
    assert 0 not in tokens


@pytest.mark.parametrize("text", ["", "\ud83d alone", "\0", "!" * 100_000, "日本語 🎉"])
def test_odd_texts_have_tokens(text: str, siglip_directory: Path) -> None:
    (tokens,) = read_checkpoint(str(siglip_directory)).tokenization.tokenizer()([text])
    assert 1 <= len(tokens) <= 64


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def refusal(source: Path) -> str:
    with pytest.raises(InvalidCheckpoint) as caught:
        read_checkpoint(str(source)).tokenization.tokenizer()
    return str(caught.value)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", lambda c: c.update(model_type="siglip2"), "no fixed resolution (NaFlex)"),
        (
            "config.json",
            lambda c: c.update(model_type="align"),
            "'align'; this service serves CLIP",
        ),
        (
            "config.json",
            lambda c: c["vision_config"].update(vision_use_head=False),
            "no pooling head",
        ),
        ("config.json", lambda c: c["text_config"].update(hidden_act="relu"), "activation relu"),
        (
            "config.json",
            lambda c: c["text_config"].update(projection_size=80),
            "makes embeddings of 80 numbers, its image tower of 96",
        ),
        (
            "config.json",
            lambda c: c["text_config"].update(max_position_embeddings=5000),
            "context_length is 5000",
        ),
        ("config.json", lambda c: c["vision_config"].update(hidden_size=True), "whole number"),
        (
            "preprocessor_config.json",
            lambda c: c.update(size={"height": 224, "width": 224}),
            "224 x 224 pixels large, but the image tower takes 64 x 64",
        ),
        ("tokenizer.json", lambda c: c.update(model=3), "holds no tokenizer"),
        (
            "tokenizer_config.json",
            lambda c: c.update(pad_token="<never>"),
            "which token fills up short texts",
        ),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(
    file: str, change: Callable[[dict[str, Any]], object], message: str, copy: Path
) -> None:
    edit(copy / file, change)
    assert message in refusal(copy)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[" * 100_000,
        b'{"model": {"type": "BPE", "vocab": {}, "merges": []}}',
        b"\xff\xfe",
    ],
)
def test_a_damaged_tokenizer_is_refused(content: bytes, copy: Path) -> None:
    (copy / "tokenizer.json").write_bytes(content)
    message = refusal(copy)
    assert "tokenizer.json" in message
    assert len(message) < 600


def test_a_tokenizer_of_gigabytes_is_not_read(copy: Path) -> None:
    with (copy / "tokenizer.json").open("r+b") as file:
        file.truncate(3 * 10**9)
    assert "has more than 134217728 bytes" in refusal(copy)


def test_a_missing_tokenizer_is_named(copy: Path) -> None:
    (copy / "tokenizer.json").unlink()
    assert "lacks tokenizer.json" in refusal(copy)


def test_a_tokenizer_that_is_changed_meanwhile_is_not_served(copy: Path) -> None:
    checkpoint = read_checkpoint(str(copy))
    path = copy / "tokenizer.json"
    path.write_text(path.read_text() + " ")
    with pytest.raises(InvalidCheckpoint, match="changed on disk"):
        checkpoint.tokenization.tokenizer()


def test_every_part_of_a_model_is_in_its_fingerprint(copy: Path) -> None:
    changes: Sequence[tuple[str, Callable[[dict[str, Any]], object]]] = [
        ("preprocessor_config.json", lambda c: c.update(resample=3)),
        ("preprocessor_config.json", lambda c: c.update(image_std=[0.4] * 3)),
        ("tokenizer_config.json", lambda c: c.update(tokenizer_class="PreTrainedTokenizerFast")),
        ("tokenizer_config.json", lambda c: c.update(padding_side="left")),
        ("tokenizer.json", lambda c: c["normalizer"].update(content="_")),
        ("config.json", lambda c: c["vision_config"].update(hidden_act="gelu")),
        ("config.json", lambda c: c["text_config"].update(layer_norm_eps=1e-5)),
    ]
    found = [read_checkpoint(str(copy)).fingerprint]
    for file, change in changes:
        edit(copy / file, change)
        found.append(read_checkpoint(str(copy)).fingerprint)
    assert len(set(found)) == len(changes) + 1
