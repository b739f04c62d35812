"""The exported image tower: valid, self-contained, in both precisions, and PyTorch's equal."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from adapters.encoders.image_tower_export import export_image_tower
from adapters.encoders.onnxruntime.towers import open_session
from adapters.encoders.torch.encoder import TorchEncoder
from adapters.export.image_tower_file import check_image_tower, data_file
from adapters.images.preprocessing import normalised, preprocess
from adapters.models.checkpoint_files import InvalidCheckpoint
from adapters.models.precision import Precision
from adapters.models.reading import DEMO, read_checkpoint
from application.ports import Device, PixelBatch
from tests.support.checkpoints import save_hugging_face, save_resnet, small_clip
from tests.support.families import save_siglip, save_xlm_roberta_image_tower, small_siglip
from tests.support.photos import photos
from tests.support.rows import smallest_cosine

CPU = Device("cpu", cuda_available=False)
BOTH = [Precision.FP32, Precision.FP16]
NEEDED = {Precision.FP32: 0.9999, Precision.FP16: 0.999}


@pytest.fixture(scope="module")
def batch() -> PixelBatch:
    noise = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    return np.concatenate([np.stack([preprocess(p) for p in photos().values()]), noise])


def run(path: Path, batch: PixelBatch) -> np.ndarray:
    (rows,) = open_session(path).run(["image_embeds"], {"pixel_values": batch})
    assert rows.dtype == np.float32
    return np.asarray(rows)


def check_parity(source: str, directory: Path, batch: PixelBatch) -> None:
    checkpoint = read_checkpoint(source)
    expected = TorchEncoder(checkpoint, CPU, precision=Precision.FP32).encode_images(batch)
    for precision in BOTH:
        path = directory / f"{precision}.onnx"
        export_image_tower(checkpoint, path, precision=precision)
        metadata = check_image_tower(path)
        assert metadata["fingerprint"] == checkpoint.fingerprint
        assert metadata["precision"] == precision
        assert smallest_cosine(run(path, batch), expected) >= NEEDED[precision]
        assert smallest_cosine(run(path, batch[:1]), expected[:1]) >= NEEDED[precision]


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_small_checkpoint(activation: str, tmp_path: Path, batch: PixelBatch) -> None:
    source = save_hugging_face(small_clip(hidden_act=activation), tmp_path / "checkpoint")
    check_parity(str(source), tmp_path / "export", batch)


def test_embedded_model(tmp_path: Path, batch: PixelBatch) -> None:
    check_parity(DEMO, tmp_path, batch)


@pytest.mark.long
def test_full_size_checkpoint(full_size_directory: Path, tmp_path: Path, batch: PixelBatch) -> None:
    check_parity(str(full_size_directory), tmp_path, batch[-2:])


@pytest.mark.parametrize("precision", BOTH)
def test_a_tower_of_another_kind_is_traced(
    precision: Precision, tmp_path: Path, batch: PixelBatch
) -> None:
    source = str(save_resnet(tmp_path / "resnet"))
    checkpoint = read_checkpoint(source)
    path = tmp_path / "tower.onnx"
    export_image_tower(checkpoint, path, precision=precision)
    metadata = check_image_tower(path)
    assert (metadata["fingerprint"], metadata["precision"]) == (checkpoint.fingerprint, precision)
    expected = TorchEncoder(checkpoint, CPU, precision=Precision.FP32).encode_images(batch)
    assert smallest_cosine(run(path, batch), expected) >= NEEDED[precision]
    assert smallest_cosine(run(path, batch[:1]), expected[:1]) >= NEEDED[precision]


@pytest.mark.parametrize("precision", BOTH)
@pytest.mark.parametrize("family", ["demo", "clip", "siglip", "xlm-roberta", "traced"])
def test_a_graph_that_takes_levels_is_the_same_tower(
    family: str, precision: Precision, tmp_path: Path
) -> None:
    """A quarter of the bytes, normalised in the graph: equal to 1e-6, whatever the family."""
    makers: dict[str, Callable[[], str]] = {
        "demo": lambda: DEMO,
        "clip": lambda: str(save_hugging_face(small_clip(), tmp_path / "clip")),
        "siglip": lambda: str(save_siglip(small_siglip(), tmp_path / "siglip", size=64)),
        "xlm-roberta": lambda: str(save_xlm_roberta_image_tower(tmp_path / "xlm-roberta")),
        "traced": lambda: str(save_resnet(tmp_path / "resnet")),
    }
    checkpoint = read_checkpoint(makers[family]())
    side = checkpoint.preprocessing.image_input.size
    levels = np.random.default_rng(3).integers(0, 256, (5, 3, side, side), dtype=np.uint8)
    places = tmp_path / "pixels.onnx", tmp_path / "levels.onnx"
    for takes_levels, path in enumerate(places):
        export_image_tower(checkpoint, path, precision=precision, takes_levels=bool(takes_levels))
        assert check_image_tower(path)["fingerprint"] == checkpoint.fingerprint
    (expected,) = open_session(places[0]).run(None, {"pixel_values": normalised(levels)})
    (made,) = open_session(places[1]).run(None, {"pixel_values": levels})
    scale = np.abs(np.asarray(expected)).max()
    np.testing.assert_allclose(np.asarray(made) / scale, np.asarray(expected) / scale, atol=1e-6)


@pytest.mark.parametrize("precision", BOTH)
def test_what_the_graph_is_typed_as(
    precision: Precision, hugging_face_directory: Path, tmp_path: Path
) -> None:
    path = tmp_path / "tower.onnx"
    export_image_tower(read_checkpoint(str(hugging_face_directory)), path, precision=precision)
    model = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True, data_prop=True)
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    computed = onnx.TensorProto.FLOAT16 if precision is Precision.FP16 else onnx.TensorProto.FLOAT
    for node in model.graph.node:
        if node.op_type in {"MatMul", "Conv", "Softmax"}:
            assert kinds[node.output[0]] == computed
        if node.op_type == "LayerNormalization":
            assert kinds[node.output[0]] == onnx.TensorProto.FLOAT
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_the_file_stands_alone_and_is_replaced_whole(
    hugging_face_directory: Path, tmp_path: Path, batch: PixelBatch
) -> None:
    path = tmp_path / "export" / "tower.onnx"
    checkpoint = read_checkpoint(str(hugging_face_directory))
    export_image_tower(checkpoint, path, precision=Precision.FP16)
    moved = shutil.copytree(path.parent, tmp_path / "elsewhere") / path.name
    before = run(moved, batch)
    export_image_tower(checkpoint, path, precision=Precision.FP32)
    assert sorted(file.name for file in path.parent.iterdir()) == ["tower.onnx", "tower.onnx.data"]
    assert check_image_tower(path)["precision"] == "fp32"
    np.testing.assert_array_equal(run(moved, batch), before)


def test_weights_beyond_float16_are_refused(tmp_path: Path) -> None:
    import torch

    model = small_clip()
    with torch.no_grad():
        model.vision_model.encoder.layers[1].mlp.fc1.weight[0, 0] = 1e5
    checkpoint = read_checkpoint(str(save_hugging_face(model, tmp_path / "checkpoint")))
    with pytest.raises(InvalidCheckpoint, match=r"weight of 100000; float16 ends at 65504.*fp32"):
        export_image_tower(checkpoint, tmp_path / "tower.onnx", precision=Precision.FP16)
    assert not (tmp_path / "tower.onnx").exists()
    export_image_tower(checkpoint, tmp_path / "tower.onnx", precision=Precision.FP32)


def test_damaged_and_foreign_files_are_refused(
    hugging_face_directory: Path, tmp_path: Path
) -> None:
    checkpoint = read_checkpoint(str(hugging_face_directory))
    path = tmp_path / "tower.onnx"
    export_image_tower(checkpoint, path, precision=Precision.FP32)
    data_file(path).unlink()
    with pytest.raises(InvalidCheckpoint, match="is not a valid ONNX file"):
        check_image_tower(path)
    path.write_bytes(b"junk")
    with pytest.raises(InvalidCheckpoint, match="is not a valid ONNX file"):
        check_image_tower(path)
    from adapters.export.towers import text_tower

    foreign = tmp_path / "text.onnx"
    shutil.copyfile(hugging_face_directory / "model.safetensors", tmp_path / "model.safetensors")
    foreign.write_bytes(text_tower(checkpoint).SerializeToString())
    with pytest.raises(InvalidCheckpoint, match="not an image tower"):
        check_image_tower(foreign)
