"""Every encoder, each made once."""

from pathlib import Path

import pytest

from adapters.encoders.fake_encoder import FakeEncoder
from application.ports import Device, EncoderPort

CPU = Device("cpu", cuda_available=False)


@pytest.fixture(
    scope="session",
    params=["fake", "torch-fp32", "torch-fp16", "torch-demo"],
)
def encoder(request: pytest.FixtureRequest, hugging_face_directory: Path) -> EncoderPort:
    """One encoder after the other.

    Half precision runs on the CPU here: slow, but the same code that runs on a GPU.
    """
    if request.param == "fake":
        return FakeEncoder(embedding_dimension=768)
    import torch

    from adapters.checkpoints.reading import DEMO, read_checkpoint
    from adapters.encoders.torch_encoder import TorchEncoder

    source = DEMO if request.param == "torch-demo" else str(hugging_face_directory)
    dtype = torch.float16 if request.param == "torch-fp16" else torch.float32
    return TorchEncoder(read_checkpoint(source), CPU, dtype=dtype)
