"""Real engines, built without a GPU by TensorRT for RTX from the exported graphs."""

import logging
import types
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper

from adapters.encoders.cuda import find_gpu
from adapters.encoders.image_tower_export import export_image_tower
from adapters.encoders.tensorrt.building import build_engine, unfuse_attention
from adapters.encoders.tensorrt.engine_file import (
    ANY,
    BatchRange,
    EngineIdentity,
    EngineUnusable,
    read_engine,
)
from adapters.encoders.tensorrt.engines import build_ahead_of_time, find_installation
from adapters.encoders.tensorrt.library import TensorRt, find_tensorrt
from adapters.export.graph import OPSET
from adapters.export.image_tower_file import check_image_tower, data_file
from adapters.models.precision import Precision
from adapters.models.reading import DEMO, read_checkpoint
from application.ports import CLIPS_INPUT, EncoderUnavailable
from tests.support.checkpoints import save_resnet
from tests.support.families import save_siglip, save_xlm_roberta_image_tower, small_siglip

BOTH = [Precision.FP32, Precision.FP16]
ADA = "8.9"


@pytest.fixture(scope="module")
def tensorrt() -> TensorRt:
    found = find_tensorrt()
    assert found.for_rtx, "these tests are for TensorRT for RTX, which needs no GPU"
    return found


@pytest.fixture(scope="module", params=BOTH)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / f"{request.param}.onnx"
    export_image_tower(read_checkpoint(DEMO), path, precision=request.param)
    return path


def diagnosis(tensorrt: TensorRt, data: bytes) -> set[str]:
    """What TensorRT finds wrong with an engine's header, the missing GPU apart."""
    trt: Any = tensorrt.module
    runtime = trt.Runtime(trt.Logger(trt.Logger.INTERNAL_ERROR))
    _, found = runtime.get_engine_validity(data[: runtime.engine_header_size])
    kinds = trt.EngineInvalidityDiagnostics.__members__
    return {name for name, kind in kinds.items() if int(kind) & found} - {"CUDA_ERROR"}


def check_engine(engine: Path, exported: Path, precision: Precision, tensorrt: TensorRt) -> None:
    fingerprint = find_fingerprint(exported)
    wanted = EngineIdentity(
        fingerprint, precision, tensorrt.identity, ADA, ANY, ANY, OPSET, largest_batch=8
    )
    record, data = read_engine(engine, wanted)
    assert record.batch == BatchRange(8)
    assert record.judgement is None
    assert diagnosis(tensorrt, data) == set()
    assert "MALFORMED_ENGINE" in diagnosis(tensorrt, b"junk" * 100)
    assert "MALFORMED_ENGINE" in diagnosis(tensorrt, data[:16])
    # A full read-back needs a GPU; the names of input and output can be seen all the same.
    assert b"pixel_values" in data
    assert b"image_embeds" in data
    # The weights are in it, in the precision they were exported in.
    assert len(data) > 0.95 * data_file(exported).stat().st_size


def find_fingerprint(exported: Path) -> str:
    return check_image_tower(exported)["fingerprint"]


def test_an_engine_is_built_without_a_gpu(
    exported: Path, tmp_path: Path, tensorrt: TensorRt
) -> None:
    engine = tmp_path / "tower.engine"
    told: list[str] = []
    build_ahead_of_time(exported, engine, architecture=ADA, largest_batch=8, progress=told.append)
    check_engine(engine, exported, Precision(exported.stem), tensorrt)
    assert told[0] == "Building engine"
    assert any(line.endswith("100 %") for line in told)
    built = engine.stat().st_mtime_ns
    build_ahead_of_time(exported, engine, architecture=ADA, largest_batch=8)
    assert engine.stat().st_mtime_ns == built


def test_siglips_image_tower_becomes_an_engine_too(tmp_path: Path, tensorrt: TensorRt) -> None:
    directory = save_siglip(small_siglip(), tmp_path / "siglip", size=64)
    for precision in BOTH:
        exported = tmp_path / f"{precision}.onnx"
        export_image_tower(read_checkpoint(str(directory)), exported, precision=precision)
        engine = tmp_path / f"{precision}.engine"
        build_ahead_of_time(exported, engine, architecture=ADA, largest_batch=8)
        check_engine(engine, exported, precision, tensorrt)


@pytest.mark.long
def test_full_size_engines(full_size_directory: Path, tmp_path: Path, tensorrt: TensorRt) -> None:
    checkpoint = read_checkpoint(str(full_size_directory))
    for precision, smallest in ((Precision.FP16, 575), (Precision.FP32, 1150)):
        exported, engine = tmp_path / f"{precision}.onnx", tmp_path / f"{precision}.engine"
        export_image_tower(checkpoint, exported, precision=precision)
        build_ahead_of_time(exported, engine, architecture=ADA, largest_batch=8)
        check_engine(engine, exported, precision, tensorrt)
        assert engine.stat().st_size > smallest * 2**20
        for file in (exported, data_file(exported), engine):
            file.unlink()


def test_the_network_is_strongly_typed_with_float32_at_both_ends(
    exported: Path, tensorrt: TensorRt
) -> None:
    from polygraphy.backend.trt import NetworkFromOnnxPath

    trt: Any = tensorrt.module
    _, network, _ = NetworkFromOnnxPath(str(exported), strongly_typed=True)()
    assert network.get_flag(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    (image,) = (network.get_input(n) for n in range(network.num_inputs))
    (embeds,) = (network.get_output(n) for n in range(network.num_outputs))
    assert (image.name, image.dtype, tuple(image.shape)) == (
        "pixel_values",
        trt.float32,
        (-1, 3, 224, 224),
    )
    assert (embeds.name, embeds.dtype, tuple(embeds.shape)) == (
        "image_embeds",
        trt.float32,
        (-1, 768),
    )
    layers = [network.get_layer(n) for n in range(network.num_layers)]
    products = {
        layer.get_output(0).dtype for layer in layers if layer.type == trt.LayerType.MATRIX_MULTIPLY
    }
    half = exported.stem == "fp16"
    assert products == {trt.float16 if half else trt.float32}
    norms = {
        layer.get_output(0).dtype for layer in layers if layer.type == trt.LayerType.NORMALIZATION
    }
    assert norms == {trt.float32}


@pytest.mark.parametrize("precision", BOTH)
def test_an_engine_that_takes_levels_is_built(
    precision: Precision, tmp_path: Path, tensorrt: TensorRt
) -> None:
    """As the server exports it: uint8 at one end, float32 at the other."""
    from polygraphy.backend.trt import NetworkFromOnnxPath

    checkpoints = {
        "clip": DEMO,
        "siglip": str(save_siglip(small_siglip(), tmp_path / "siglip", size=64)),
        "xlm-roberta": str(save_xlm_roberta_image_tower(tmp_path / "xlm-roberta")),
        "traced": str(save_resnet(tmp_path / "resnet")),
    }
    for name, source in checkpoints.items():
        exported, engine = tmp_path / f"{name}.onnx", tmp_path / f"{name}.engine"
        export_image_tower(
            read_checkpoint(source), exported, precision=precision, takes_levels=True
        )
        trt: Any = tensorrt.module
        _, network, _ = NetworkFromOnnxPath(str(exported), strongly_typed=True)()
        assert network.get_input(0).dtype == trt.uint8
        assert network.get_output(0).dtype == trt.float32
        build_ahead_of_time(exported, engine, architecture=ADA, largest_batch=32)
        assert diagnosis(tensorrt, engine.read_bytes()) == set()


def test_attention_can_be_built_unfused(exported: Path, tmp_path: Path, tensorrt: TensorRt) -> None:
    from polygraphy.backend.trt import NetworkFromOnnxPath

    trt: Any = tensorrt.module
    _, network, _ = NetworkFromOnnxPath(str(exported), strongly_typed=True)()
    changed = unfuse_attention(trt, network)
    softmaxes = [
        layer
        for layer in (network.get_layer(n) for n in range(network.num_layers))
        if layer.type == trt.LayerType.SOFTMAX
    ]
    assert changed == (len(softmaxes) if exported.stem == "fp16" else 0)
    assert {layer.get_output(0).dtype for layer in softmaxes} == {trt.float32}
    engine = tmp_path / "unfused.engine"
    build_engine(
        tensorrt,
        exported,
        engine,
        batch=BatchRange(8),
        architecture=ADA,
        fused_attention=False,
    )
    assert diagnosis(tensorrt, engine.read_bytes()) == set()


def test_an_architecture_that_it_does_not_know_is_refused(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(EncoderUnavailable, match=r"could not build an engine"):
        build_ahead_of_time(exported, tmp_path / "x.engine", architecture="3.5", largest_batch=8)
    assert not (tmp_path / "x.engine").exists()


def test_what_is_no_graph_is_refused(tmp_path: Path, tensorrt: TensorRt) -> None:
    junk = tmp_path / "junk.onnx"
    junk.write_bytes(b"junk")
    with pytest.raises(EncoderUnavailable, match="could not build an engine"):
        build_engine(tensorrt, junk, tmp_path / "x.engine", batch=BatchRange(8), architecture=ADA)


def test_tensorrt_itself_builds_for_this_machine_only(tmp_path: Path, exported: Path) -> None:
    full = TensorRt("tensorrt", "11.4.0", find_tensorrt().module)
    with pytest.raises(EncoderUnavailable, match="only for the GPU of the machine"):
        build_engine(full, exported, tmp_path / "x.engine", batch=BatchRange(8), architecture=ADA)


@pytest.mark.skipif(find_gpu() is not None, reason="this machine has a GPU")
def test_a_machine_without_a_gpu_is_recognised() -> None:
    with pytest.raises(EncoderUnavailable, match="needs an NVIDIA GPU"):
        find_installation()


def test_identities_tell_the_two_apart() -> None:
    module = types.ModuleType("x")
    assert (
        TensorRt("tensorrt", "1.7", module).identity
        != TensorRt("tensorrt_rtx", "1.7", module).identity
    )


def test_an_engine_that_was_never_compared_is_not_served(exported: Path, tmp_path: Path) -> None:
    from adapters.encoders.tensorrt.engines import Installation
    from tests.support.engines import GPU, Workshop

    engine = tmp_path / "tower.engine"
    build_ahead_of_time(exported, engine, architecture=GPU.architecture, largest_batch=8)
    here = Workshop(Installation(find_tensorrt(), GPU))
    engines = here.engines_at(engine, Precision(exported.stem), 8)
    with pytest.raises(EngineUnusable, match="never compared with PyTorch"):
        engines.load(find_fingerprint(exported), CLIPS_INPUT)


def test_what_the_builder_says_is_in_our_log_and_in_the_reason(
    tmp_path: Path, tensorrt: TensorRt, caplog: pytest.LogCaptureFixture
) -> None:
    image = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 3, 8, 8])
    embeds = helper.make_tensor_value_info("image_embeds", TensorProto.FLOAT, ["batch", 4])
    node = helper.make_node("NoSuchOperation", ["pixel_values"], ["image_embeds"])
    graph = helper.make_graph([node], "tower", [image], [embeds])
    path = tmp_path / "strange.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(EncoderUnavailable, match=r"could not build an engine.*NoSuchOperation"):
        build_engine(tensorrt, path, tmp_path / "x.engine", batch=BatchRange(2), architecture=ADA)
    assert "NoSuchOperation" in caplog.text
    assert {r.name for r in caplog.records} >= {"adapters.encoders.tensorrt.library"}


def test_polygraphy_is_quiet(
    exported: Path, tmp_path: Path, tensorrt: TensorRt, capfd: pytest.CaptureFixture[str]
) -> None:
    build_engine(
        tensorrt,
        exported,
        tmp_path / "x.engine",
        batch=BatchRange(2),
        architecture=ADA,
        progress=logging.getLogger("quiet").debug,
    )
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")
