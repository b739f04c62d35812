"""Compiled blocks: kept where they are right, and dropped where they are not, on a CPU."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from adapters.encoders.torch.compiling import compile_blocks
from adapters.encoders.torch.encoder import TorchEncoder
from adapters.images.photos import samples
from adapters.models.precision import Precision
from adapters.models.reading import DEMO, read_checkpoint
from application.ports import Device, EncoderLost, PixelBatch, RawEmbeddings

CPU = Device("cpu", cuda_available=False)

Compiled = Callable[..., Any]


@pytest.fixture
def encoder() -> TorchEncoder:
    return TorchEncoder(read_checkpoint(DEMO), CPU, precision=Precision.FP32)


def compile_with(encoder: TorchEncoder, backend: str | Callable[..., Any]) -> bool:
    return compile_blocks(encoder._image_tower, encoder._run, samples()[:4], backend=backend)


def test_compiled_blocks_return_the_same_for_every_batch(encoder: TorchEncoder) -> None:
    graphs: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Compiled:
        graphs.append(len(graph.graph.nodes))
        return graph.forward

    before = encoder.encode_images(samples())
    assert compile_with(encoder, backend)
    compilations = len(graphs)
    assert 1 <= compilations <= 3, "all blocks share what was compiled for one"
    np.testing.assert_allclose(encoder.encode_images(samples()), before, atol=1e-4)
    for count in (2, 5, 7):
        made = encoder.encode_images(samples()[:count])
        np.testing.assert_allclose(made, before[:count], atol=1e-4)
    assert len(graphs) == compilations, "another batch size was compiled again"


def test_what_is_compiled_wrongly_is_dropped(
    encoder: TorchEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Compiled:
        return lambda *given: tuple(-each for each in graph.forward(*given))

    before = encoder.encode_images(samples()[:3])
    assert not compile_with(encoder, backend)
    np.testing.assert_array_equal(encoder.encode_images(samples()[:3]), before)
    assert "going on without compiled blocks: their embeddings differ" in caplog.text


def test_a_compiler_that_fails_is_no_failure(
    encoder: TorchEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Compiled:
        raise RuntimeError("no kernel image is available")

    before = encoder.encode_images(samples()[:3])
    assert not compile_with(encoder, backend)
    np.testing.assert_array_equal(encoder.encode_images(samples()[:3]), before)
    assert "going on without compiled blocks" in caplog.text


def test_a_device_that_is_lost_meanwhile_is_lost(encoder: TorchEncoder) -> None:
    def run(batch: PixelBatch) -> RawEmbeddings:
        raise EncoderLost("the GPU failed")

    with pytest.raises(EncoderLost):
        compile_blocks(encoder._image_tower, run, samples()[:2])


def test_the_real_compiler_computes_the_same(
    encoder: TorchEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    """Inductor, for this processor; on CUDA it writes Triton instead of C++."""
    caplog.set_level(logging.INFO)
    before = encoder.encode_images(samples())
    if not compile_with(encoder, "inductor"):
        pytest.skip(f"this machine cannot compile: {caplog.text}")
    np.testing.assert_allclose(encoder.encode_images(samples()), before, atol=1e-3)
