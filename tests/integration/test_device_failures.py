"""What PyTorch raises on a GPU: a lack of memory, the fault of one call, a device that is lost."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from adapters.encoders.cuda import OutOfDeviceMemory
from adapters.encoders.fitting import encode_as_it_fits
from adapters.encoders.torch.device import device_failures, loading
from adapters.encoders.torch.text_tower import TorchTextTower
from adapters.models.reading import DEMO, read_checkpoint
from application.ports import EncoderLost, EncoderUnavailable
from domain.errors import ServiceUnavailable


def failure(text: str, code: int | None) -> torch.AcceleratorError:
    made = torch.AcceleratorError(f"CUDA error: {text}\nCUDA kernel errors might be reported late.")
    if code is not None:
        vars(made)["error_code"] = code  # as PyTorch sets it where the error is CUDA's
    return made


@pytest.mark.parametrize(
    ("raised", "becomes"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), OutOfDeviceMemory),
        (failure("out of memory", 2), OutOfDeviceMemory),
        (failure("out of memory", None), OutOfDeviceMemory),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), OutOfDeviceMemory),
        (failure("an illegal memory access was encountered", 700), EncoderLost),
        (failure("an illegal memory access was encountered", None), EncoderLost),
        (failure("device-side assert triggered", 710), EncoderLost),
        (failure("unspecified launch failure", 719), EncoderLost),
        (failure("invalid argument", 1), torch.AcceleratorError),
        (failure("unknown error", 999), torch.AcceleratorError),
        (failure("no kernel image is available for execution on the device", 209), RuntimeError),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), RuntimeError),
    ],
    ids=str,
)
def test_each_failure_is_what_cuda_documents(
    raised: RuntimeError, becomes: type[Exception]
) -> None:
    with pytest.raises(becomes) as caught, device_failures():
        raise raised
    assert type(caught.value) is becomes or becomes is RuntimeError
    assert not isinstance(caught.value, EncoderLost) or becomes is EncoderLost


def test_weights_for_which_there_is_no_memory_say_so() -> None:
    with (
        pytest.raises(EncoderUnavailable, match=r"clip-vit does not fit.*Tried to allocate"),
        loading("clip-vit"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")


def room_for(most: int) -> Callable[[np.ndarray], np.ndarray]:
    def encode(part: np.ndarray) -> np.ndarray:
        sizes.append(len(part))
        if len(part) > most:
            raise OutOfDeviceMemory(f"no room for {len(part)}")
        return np.stack([row[:2] for row in part])

    sizes: list[int] = []
    encode.sizes = sizes  # type: ignore[attr-defined]
    return encode


@pytest.mark.parametrize(
    ("most", "calls"),
    [(9, [9]), (4, [9, 4, 4, 1]), (1, [9, 4, 2, *[1] * 9])],
)
def test_a_batch_is_cut_until_it_fits(most: int, calls: list[int]) -> None:
    batch = np.arange(27, dtype=np.float32).reshape(9, 3)
    encode = room_for(most)
    rows = encode_as_it_fits(batch, encode, dimension=2, at_once=9)
    np.testing.assert_array_equal(rows, batch[:, :2])
    assert encode.sizes == calls  # type: ignore[attr-defined]


def test_what_cannot_fit_is_unavailable_and_no_fault() -> None:
    batch = np.zeros((3, 3), dtype=np.float32)
    with pytest.raises(ServiceUnavailable, match="for one text") as caught:
        encode_as_it_fits(batch, room_for(0), dimension=2, at_once=3, what="text")
    assert caught.value.code == "out_of_device_memory"
    assert caught.value.retry_after_s == 5
    assert encode_as_it_fits(batch[:0], room_for(0), dimension=2, at_once=1).shape == (0, 2)


def test_texts_are_cut_too() -> None:
    calls: list[int] = []

    class Model:
        def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
            calls.append(len(tokens))
            if len(tokens) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return tokens[:, :1].float().repeat(1, demo.embedding_dimension)

    demo = read_checkpoint(DEMO)
    other = replace(demo, architecture={**demo.architecture, "custom_text": True})
    tower = TorchTextTower(Model(), other, torch.device("cpu"))
    tower._is_clips = False
    assert tower.encode_texts(["a dog", "a cat", "a cow", "a hen"]).shape == (
        4,
        demo.embedding_dimension,
    )
    assert calls == [4, 2, 2]
