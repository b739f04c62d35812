"""Advice on how to encode faster on this machine."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from adapters.models.precision import Precision
from adapters.system.hardware import INT8_FEATURES, nvidia_driver_present, processor
from adapters.system.installation import install_command, is_installed
from application.ports import EncoderDescription
from domain.limits import SMALLEST_COSINE


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The machine's hardware and runtimes.

    Attributes:
        nvidia_driver: whether an NVIDIA driver is loaded.
        installed: runtimes that are installed, of ``openvino``, ``torch`` and ``nncf``.
        openvino_devices: OpenVINO's devices, such as ``CPU`` and ``GPU.0``; none without OpenVINO.
        instructions: the processor's instruction sets, by Linux's names.
    """

    nvidia_driver: bool
    installed: Collection[str]
    openvino_devices: Sequence[str]
    instructions: Collection[str]


def _gains_from_int8(instructions: Collection[str]) -> bool:
    """Whether int8 is faster than floating point: it needs instructions for int8 products.

    With AMX, int8 was no faster than bf16; with AVX2 alone, no faster than fp32.
    """
    return not INT8_FEATURES.isdisjoint(instructions) and "amx_int8" not in instructions


def _int8_advice(encoder: EncoderDescription, around: Surroundings) -> str:
    extra = "" if "nncf" in around.installed else f"run {install_command('int8')} and "
    gain = "up to 1.7 times as fast as" if encoder.precision == Precision.BF16 else "faster than"
    return (
        f"int8 may be {gain} {encoder.precision}, at a cosine above {SMALLEST_COSINE}: {extra}set "
        "CLIP_PRECISION=int8. It has its own fingerprint: embed your database again."
    )


def surroundings() -> Surroundings:
    """Inspect this machine. Takes a second if OpenVINO is installed."""
    installed = {name for name in ("openvino", "torch", "nncf") if is_installed(name)}
    devices: list[str] = []
    if "openvino" in installed:
        # Imported here: it takes a second, and may not be installed.
        from adapters.encoders.openvino.runtime import openvino

        devices = openvino.Core().available_devices
    return Surroundings(
        nvidia_driver=nvidia_driver_present(),
        installed=installed,
        openvino_devices=devices,
        instructions=processor().instructions,
    )


def faster(encoder: EncoderDescription, around: Surroundings) -> list[str]:
    """Suggested changes, the greatest gain first; empty if it is already as fast as possible.

    Args:
        encoder: the loaded encoder.
        around: the machine.
    """
    if encoder.device.cuda_available:
        return []
    advice = []
    if around.nvidia_driver:
        advice.append(
            "There is an NVIDIA driver, but the encoder runs on the processor: "
            + (
                "set CLIP_ENCODER=auto, and check that the installed PyTorch has CUDA."
                if "torch" in around.installed
                else f"run {install_command('torch')}"
            )
        )
    if encoder.backend == "fake":
        return [*advice, "CLIP_ENCODER=fake computes nothing; unset it to use a model."]
    if encoder.backend == "torch":
        advice.append(
            "OpenVINO is faster than PyTorch on most processors: "
            + (
                "set CLIP_ENCODER=auto."
                if "openvino" in around.installed
                else f"run {install_command('cpu')}"
            )
        )
        return advice
    accelerators = [name for name in around.openvino_devices if not name.startswith("CPU")]
    if accelerators and encoder.device.name == "cpu":
        advice.append(
            f"OpenVINO also finds {', '.join(accelerators)}: try CLIP_OPENVINO_DEVICE="
            f"{accelerators[0]}."
        )
    if encoder.precision == Precision.FP32 and "avx512_bf16" in around.instructions:
        advice.append("This processor has bfloat16: set CLIP_PRECISION=auto.")
    if _gains_from_int8(around.instructions) and encoder.device.name == "cpu":
        if encoder.precision != Precision.INT8:
            advice.append(_int8_advice(encoder, around))
    elif encoder.precision == Precision.INT8 and encoder.device.name == "cpu":
        advice.append(
            "int8 is no faster than CLIP_PRECISION=auto on this processor, and less exact."
        )
    return advice
