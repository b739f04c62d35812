"""Every encoder, each made once."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.encoders.fake import FakeEncoder
from adapters.encoders.selection import EncoderChoice, EncoderSelection
from adapters.encoders.tensorrt_backend import TensorRtBackend
from adapters.models.precision import Precision
from adapters.models.reading import DEMO
from application.ports import Device, EncoderPort
from tests.support.encoder_processes import encoder_process
from tests.support.engines import Workshop
from tests.support.families import save_siglip, small_siglip

CPU = Device("cpu", cuda_available=False)


def cpu_capabilities() -> list[str]:
    """What OpenVINO says this processor can compute in."""
    from adapters.encoders.openvino.runtime import openvino

    return sorted(openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


@pytest.fixture(
    scope="session",
    params=[
        "fake",
        "process",
        "torch-fp32",
        "torch-fp16",
        "torch-bf16",
        "torch-demo",
        "torch-siglip",
        "openvino-fp32",
        "openvino-bf16",
        "openvino-int8",
        "openvino-streams",
        "openvino-demo",
        "openvino-siglip",
        "tensorrt-fp16",
        "tensorrt-fp32",
        "tensorrt-demo",
        "tensorrt-siglip",
    ],
)
def encoder(
    request: pytest.FixtureRequest,
    hugging_face_directory: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[EncoderPort]:
    """One encoder after the other, the first also in a process of its own.

    Half precision runs on the CPU here: slow, but the same code that runs on a GPU.
    """
    if request.param != "process":
        yield made(request.param, hugging_face_directory, tmp_path_factory)
        return
    with (
        tempfile.TemporaryDirectory() as directory,  # short enough for a Unix socket
        encoder_process(Path(directory), EncoderSelection(EncoderChoice.FAKE, "")) as loader,
    ):
        yield loader.load()


def made(
    name: str, hugging_face_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> EncoderPort:
    """The encoder of this name."""
    if name == "fake":
        return FakeEncoder(embedding_dimension=768)
    backend, _, variant = name.partition("-")
    source = DEMO if variant == "demo" else str(hugging_face_directory)
    dimension = 768
    if variant == "siglip":
        directory = tmp_path_factory.mktemp("siglip")
        source = str(save_siglip(small_siglip(), directory, size=64))
        dimension = 96
    if backend == "openvino":
        if variant == "bf16" and "BF16" not in cpu_capabilities():
            pytest.skip(
                "OpenVINO has no bf16 on this processor, only "
                f"{', '.join(cpu_capabilities())}; torch-bf16 computes in it all the same"
            )
        return EncoderSelection(
            EncoderChoice.OPENVINO,
            source,
            dimension,
            precision=Precision(variant) if variant in set(Precision) else None,
            openvino_streams=3 if variant == "streams" else 1,
            int8_is_faster=lambda: True,  # slow where it is not, and right all the same
            cache=tmp_path_factory.mktemp("cache"),
        ).load()
    if backend == "tensorrt":
        # The encoder as it is, on engines that ONNX Runtime runs.
        workshop = Workshop()
        return TensorRtBackend(
            source,
            dimension,
            precision=Precision(variant) if variant in set(Precision) else None,
            largest_batch=4,
            cache=tmp_path_factory.mktemp("cache"),
            device=CPU,
            engines_at=workshop.engines_at,
            make=workshop.make,
        ).load_or_make()
    from adapters.encoders.torch.encoder import TorchEncoder
    from adapters.models.reading import read_checkpoint

    precision = Precision(variant) if variant in set(Precision) else Precision.FP32
    return TorchEncoder(read_checkpoint(source), CPU, precision=precision)
