"""Bundles: the written-out graphs against PyTorch, and what may be wrong with a bundle."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from adapters.encoders.openvino.encoder import OpenVinoEncoder
from adapters.encoders.selection import EncoderChoice, EncoderSelection
from adapters.encoders.torch.encoder import TorchEncoder
from adapters.export.bundles import write_bundle
from adapters.images.preprocessing import preprocess
from adapters.models.bundle import Bundle, is_bundle, read_bundle
from adapters.models.checkpoint_files import InvalidCheckpoint
from adapters.models.precision import Precision
from adapters.models.reading import DEMO, read_checkpoint
from application.ports import Device, EncoderUnavailable
from tests.support.checkpoints import save_hugging_face, small_clip
from tests.support.photos import photos
from tests.support.rows import smallest_cosine

CPU = Device("cpu", cuda_available=False)
TEXTS = ["a dog", "a delivery truck in the rain at night", "dog " * 75, "dog cat " * 60, "日本 🎉"]


@pytest.fixture(scope="module")
def bundle(hugging_face_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    directory = tmp_path_factory.mktemp("bundles") / "small"
    return write_bundle(read_checkpoint(str(hugging_face_directory)), directory)


def check_against_torch(source: Path | str, bundle: Bundle) -> None:
    reference = TorchEncoder(read_checkpoint(str(source)), CPU, precision=Precision.FP32)
    encoder = OpenVinoEncoder(bundle, precision=Precision.FP32)
    batch = np.stack([preprocess(photo) for photo in photos().values()])
    images = encoder.encode_images(batch)
    assert smallest_cosine(images, reference.encode_images(batch)) > 0.999999
    texts = encoder.encode_texts(TEXTS)
    assert smallest_cosine(texts, reference.encode_texts(TEXTS)) > 0.999999
    assert encoder.description.logit_scale == reference.description.logit_scale
    assert encoder.description.fingerprint == reference.description.fingerprint
    assert encoder.description.model == reference.description.model


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
@pytest.mark.parametrize("layout", ["hugging-face", "open-clip"])
def test_graphs_compute_what_pytorch_does(activation: str, layout: str, tmp_path: Path) -> None:
    source = save_hugging_face(small_clip(hidden_act=activation), tmp_path / "checkpoint")
    if layout == "open-clip":
        from tests.support.checkpoints import save_open_clip

        source = save_open_clip(source, tmp_path / "open-clip")
    made = write_bundle(read_checkpoint(str(source)), tmp_path / "bundle", link=True)
    check_against_torch(source, made)


def test_the_embedded_model_is_a_bundle_of_itself() -> None:
    from adapters.models.reading import DEMO_DIRECTORY

    bundle = read_bundle(DEMO_DIRECTORY)
    assert bundle.fingerprint == read_checkpoint(DEMO).fingerprint
    check_against_torch(DEMO, bundle)


def test_a_pickle_can_be_bundled_too(hugging_face_directory: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    source = shutil.copytree(hugging_face_directory, tmp_path / "checkpoint")
    torch.save(load_file(source / "model.safetensors"), source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    made = write_bundle(read_checkpoint(str(source)), tmp_path / "bundle")
    check_against_torch(source, made)


def test_graphs_are_valid_onnx_with_named_dynamic_inputs(bundle: Bundle) -> None:
    for path, name, output in (
        (bundle.image_tower, "pixel_values", "image_embeds"),
        (bundle.text_tower, "input_ids", "text_embeds"),
    ):
        onnx.checker.check_model(str(path), full_check=True)
        model = onnx.load(path, load_external_data=False)
        assert [value.name for value in model.graph.input] == [name]
        assert [value.name for value in model.graph.output] == [output]
        assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        assert metadata["fingerprint"] == bundle.fingerprint


def test_a_bundle_needs_only_its_own_directory(bundle: Bundle, tmp_path: Path) -> None:
    moved = shutil.copytree(bundle.directory, tmp_path / "elsewhere")
    encoder = OpenVinoEncoder(read_bundle(moved), precision=Precision.FP32)
    assert encoder.encode_texts(["a dog"]).shape == (1, 768)


def test_two_at_once_make_one_bundle(hugging_face_directory: Path, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    checkpoint = read_checkpoint(str(hugging_face_directory))
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: write_bundle(checkpoint, tmp_path / "b"), range(4)))
    assert len({bundle.fingerprint for bundle in made}) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_what_is_no_bundle_is_none(tmp_path: Path, bundle: Bundle) -> None:
    assert not is_bundle(tmp_path)
    broken = shutil.copytree(bundle.directory, tmp_path / "broken")
    described = json.loads((broken / "bundle.json").read_text())
    (broken / "bundle.json").write_text(json.dumps({**described, "format": 0}))
    assert not is_bundle(broken)
    with pytest.raises(InvalidCheckpoint, match="format 0"):
        read_bundle(broken)
    (broken / "bundle.json").write_text(json.dumps({"format": described["format"]}))
    with pytest.raises(InvalidCheckpoint, match="incomplete"):
        read_bundle(broken)
    (broken / "bundle.json").write_text("[]")
    with pytest.raises(InvalidCheckpoint, match="does not describe a bundle"):
        read_bundle(broken)


def test_a_truncated_weights_file_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    broken = shutil.copytree(bundle.directory, tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1_000_000])
    with pytest.raises(InvalidCheckpoint, match=r"model\.safetensors has 1000000 bytes"):
        read_bundle(broken)


def test_an_unknown_device_names_those_there_are(bundle: Bundle) -> None:
    with pytest.raises(EncoderUnavailable, match=r"CLIP_OPENVINO_DEVICE=XPU.*CPU"):
        OpenVinoEncoder(bundle, device="XPU", precision=Precision.FP32)


AVX2 = ("FP32", "INT8", "BIN", "EXPORT_IMPORT")
"""What OpenVINO says of a processor without AVX-512."""


@pytest.mark.parametrize("lacking", [Precision.BF16, Precision.FP16])
def test_a_precision_that_the_device_lacks_is_refused(bundle: Bundle, lacking: Precision) -> None:
    with pytest.raises(
        EncoderUnavailable, match=f"CLIP_PRECISION={lacking} is not possible.*BIN.*FP32"
    ):
        OpenVinoEncoder(bundle, precision=lacking, capabilities=lambda device: AVX2)


@pytest.mark.parametrize(
    ("capabilities", "taken"), [(AVX2, "fp32"), ((*AVX2, "BF16", "FP16"), "bf16")]
)
def test_the_fastest_precision_that_the_processor_has_is_taken(
    bundle: Bundle, capabilities: tuple[str, ...], taken: str
) -> None:
    encoder = OpenVinoEncoder(bundle, capabilities=lambda device: capabilities)
    assert encoder.description.precision == taken
    assert encoder.encode_texts(["a dog"]).shape == (1, 768)


def test_without_its_bf16_this_processor_serves_the_same(bundle: Bundle) -> None:
    exact = OpenVinoEncoder(bundle, precision=Precision.FP32).encode_texts(TEXTS)
    taken = OpenVinoEncoder(bundle, capabilities=lambda device: AVX2).encode_texts(TEXTS)
    assert smallest_cosine(exact, taken) > 0.999999


def test_a_tower_of_another_kind_is_left_to_torch(
    open_clip_directory: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(open_clip_directory, tmp_path / "copy")
    config = json.loads((copy / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"]["attentional_pool"] = True
    (copy / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(InvalidCheckpoint, match="attentional_pool"):
        write_bundle(read_checkpoint(str(copy)), tmp_path / "bundle")


def test_a_cache_that_cannot_be_written_is_done_without(
    hugging_face_directory: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "a-file"
    blocked.write_text("no directory")
    selection = EncoderSelection(
        EncoderChoice.OPENVINO, str(hugging_face_directory), 768, cache=blocked / "cache"
    )
    assert selection.load().encode_texts(["a dog"]).shape == (1, 768)
    assert "cannot be used" in caplog.text


def test_a_second_start_uses_the_bundle_that_was_made(
    hugging_face_directory: Path, tmp_path: Path
) -> None:
    selection = EncoderSelection(
        EncoderChoice.OPENVINO, str(hugging_face_directory), 768, cache=tmp_path
    )
    first = selection.load().encode_texts(["a dog"])
    (made,) = (tmp_path / "bundles").iterdir()
    written = (made / "image_tower.onnx").stat().st_mtime_ns
    np.testing.assert_array_equal(first, selection.load().encode_texts(["a dog"]))
    assert (made / "image_tower.onnx").stat().st_mtime_ns == written


def test_without_a_cache_nothing_is_left_behind(
    hugging_face_directory: Path, tmp_path: Path
) -> None:
    program = (
        "from adapters.encoders.selection import *\n"
        f"source = {str(hugging_face_directory)!r}\n"
        "for _ in range(2):\n"
        "    EncoderSelection(EncoderChoice.OPENVINO, source, 768).load()\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    assert list(tmp_path.iterdir()) == []


def test_openvino_tells_nobody_of_its_start(tmp_path: Path) -> None:
    program = (
        "from adapters.encoders.openvino.runtime import openvino\n"
        "from openvino.tools.ovc import telemetry_utils\n"
        "print(telemetry_utils.tm.__name__)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "openvino.tools.ovc.telemetry_stub"
    assert list(tmp_path.iterdir()) == []
