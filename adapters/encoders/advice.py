"""What would make this machine encode faster."""

import importlib.util
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from adapters.encoders.precision import Precision
from adapters.system.hardware import nvidia_driver_present, processor
from application.ports import EncoderDescription


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What there is beside the encoder.

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


def surroundings() -> Surroundings:
    """Look around on this machine. Takes a second where OpenVINO is installed."""
    installed = {
        name for name in ("openvino", "torch", "nncf") if importlib.util.find_spec(name) is not None
    }
    devices: list[str] = []
    if "openvino" in installed:
        from adapters.encoders.openvino.runtime import openvino

        devices = openvino.Core().available_devices
    return Surroundings(
        nvidia_driver=nvidia_driver_present(),
        installed=installed,
        openvino_devices=devices,
        instructions=processor().instructions,
    )


def faster(encoder: EncoderDescription, around: Surroundings) -> list[str]:
    """What to change, the greatest gain first; nothing if it is as fast as can be.

    Args:
        encoder: what is loaded now.
        around: the machine.
    """
    if encoder.device.cuda_available:
        return []
    advice = []
    if around.nvidia_driver:
        advice.append(
            "There is an NVIDIA driver, but the encoder runs on the processor: "
            + (
                "set CLIP_ENCODER=auto, and see that the installed PyTorch has CUDA."
                if "torch" in around.installed
                else "install the extra 'torch'."
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
                else "install the extra 'cpu'."
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
    # With AMX int8 was no faster than bf16 (see the README's figures).
    gains = encoder.device.name == "cpu" and "amx_int8" not in around.instructions
    if gains and encoder.precision != Precision.INT8:
        extra = "" if "nncf" in around.installed else "install the extra 'int8' and "
        advice.append(
            f"int8 may be up to 1.7 times as fast as bf16, at a cosine of at least 0.99: "
            f"{extra}set CLIP_PRECISION=int8. It has a fingerprint of its own: embed your "
            "database anew."
        )
    return advice
