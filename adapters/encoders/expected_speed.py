"""How long an image would take on this processor with other models and precisions.

Image towers of this kind are matrix products. So the time of one is its number of operations
divided by the processor's multiplication rate. The rate is measured; the rest is estimated.
"""

import time
from collections.abc import Collection
from typing import Final

import numpy as np

from adapters.models.precision import Precision

_SIDE: Final = 1024
_LONGEST_S: Final = 0.5

_EFFICIENCY: Final = 0.9
"""Share of the measured rate that OpenVINO reached with ViT-L/14 in fp32: 0.86 to 1.0."""


def multiplication_rate() -> float:
    """Floating-point operations a second in products of float32 matrices, on all cores."""
    matrix = np.full((_SIDE, _SIDE), 0.5, dtype=np.float32)
    matrix @ matrix  # the first product starts threads
    best, end = float("inf"), time.perf_counter() + _LONGEST_S
    while (start := time.perf_counter()) < end:
        matrix @ matrix
        best = min(best, time.perf_counter() - start)
    return 2.0 * _SIDE**3 / best


def gains(instructions: Collection[str]) -> dict[Precision, float]:
    """How many times as fast as fp32 each precision is on OpenVINO, without those that gain
    nothing.

    Measured with ViT-L/14 on two cores: AMX 3.7 for bf16 and no more for int8; AVX512-BF16 1.6;
    AVX512-VNNI 2.7 for int8. With AVX2 alone int8 was no faster than fp32.

    Args:
        instructions: the processor's instruction sets, by Linux's names.
    """
    found = {Precision.FP32: 1.0}
    if "amx_bf16" in instructions:
        found[Precision.BF16] = 3.7
    elif "avx512_bf16" in instructions:
        found[Precision.BF16] = 1.6
    if "avx512_vnni" in instructions and "amx_int8" not in instructions:
        found[Precision.INT8] = 2.7
    return found


def seconds_per_image(operations: float, rate: float, gain: float) -> float:
    """The estimate.

    Args:
        operations: for one image, as in `ImageTower.operations`.
        rate: as `multiplication_rate` measures it.
        gain: of the precision, as in `gains`.
    """
    return operations / (rate * _EFFICIENCY * gain)
