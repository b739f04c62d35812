"""What `doctor` says would be faster, for machines that are not here."""

import dataclasses

import pytest

from adapters.encoders.advice import Surroundings, faster
from application.ports import Device, EncoderDescription

CPU = Device("cpu", cuda_available=False)
ENCODER = EncoderDescription(
    model="clip-vit-large-patch14",
    fingerprint="f",
    backend="openvino",
    precision="bf16",
    device=CPU,
    embedding_dimension=768,
    logit_scale=100.0,
)
AROUND = Surroundings(
    nvidia_driver=False,
    installed={"openvino", "torch", "nncf"},
    openvino_devices=["CPU"],
    instructions=["avx512_vnni", "avx512_bf16"],
)


@pytest.mark.parametrize(
    ("encoder", "around", "told"),
    [
        ({}, {}, ["set CLIP_PRECISION=int8"]),
        ({}, {"installed": {"openvino"}}, ["[int8]"]),
        ({"precision": "int8"}, {}, []),
        ({}, {"instructions": ["avx512_bf16", "amx_bf16", "amx_int8"]}, []),
        ({"precision": "fp32"}, {}, ["set CLIP_PRECISION=auto", "CLIP_PRECISION=int8"]),
        ({"precision": "fp32"}, {"instructions": ["avx2"]}, []),
        ({"precision": "fp32"}, {"instructions": ["avx2", "avx_vnni"]}, ["faster than fp32"]),
        ({"precision": "int8"}, {"instructions": ["avx2"]}, ["is no faster than"]),
        (
            {"precision": "int8"},
            {"openvino_devices": ["CPU", "GPU"]},
            ["finds GPU: try CLIP_OPENVINO_DEVICE=GPU"],
        ),
        ({"backend": "torch"}, {}, ["set CLIP_ENCODER=auto"]),
        ({"backend": "torch"}, {"installed": {"torch"}}, ["[cpu]"]),
        ({"backend": "fake"}, {}, ["unset it"]),
        (
            {"precision": "int8"},
            {"nvidia_driver": True, "installed": {"openvino"}},
            ["[torch]"],
        ),
        (
            {"precision": "int8"},
            {"nvidia_driver": True},
            ["check that the installed PyTorch has CUDA"],
        ),
        ({"backend": "torch", "device": Device("cuda:0", cuda_available=True)}, {}, []),
    ],
)
def test_advice_fits_the_machine(
    encoder: dict[str, object], around: dict[str, object], told: list[str]
) -> None:
    advice = faster(
        dataclasses.replace(ENCODER, **encoder),  # type: ignore[arg-type]
        dataclasses.replace(AROUND, **around),  # type: ignore[arg-type]
    )
    assert len(advice) == len(told), advice
    for sentence, part in zip(advice, told, strict=True):
        assert part in sentence
