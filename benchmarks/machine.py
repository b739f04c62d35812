"""What the machine is and how fast it can multiply matrices: the limit of every encoder on it.

Run as a program it prints one JSON object: the peak of each precision in operations a second.
"""

import json
import re
import time
from collections.abc import Callable
from typing import Any, Final

from adapters.models.precision import Precision
from adapters.system.hardware import (
    Processor,
    memory,
    multiplies_bfloat16,
    multiplies_int8,
    processor,
    usable_cores,
)

OPERATIONS_PER_IMAGE: Final = 2 * (
    # Multiplications of CLIP ViT-L/14's image tower: patches, then 24 blocks on 257 tokens of
    # query, key, value and output projections, attention itself, and the MLP.
    256 * (3 * 14 * 14) * 1024
    + 24 * 257 * (4 * 1024 * 1024 + 2 * 257 * 1024 + 2 * 1024 * 4096)
    + 1024 * 768
)
"""Operations of one image, a multiplication and an addition counted as two (162 billion)."""

_SHAPES: Final = ((2056, 1024, 1024), (2056, 1024, 4096), (2048, 2048, 2048), (1024, 1024, 1024))
"""(rows, inner, columns): the tower's own for eight images, and square ones."""

_SECONDS_EACH: Final = 1.5

_SETS: Final = {
    "amx_bf16": "amx",
    "avx512_bf16": "avx512-bf16",
    "avx512_vnni": "avx512-vnni",
    "avx512f": "avx512",
    "avx_vnni": "avx2-vnni",
    "avx2": "avx2",
    "bf16": "neon-bf16",
    "i8mm": "neon-i8mm",
    "asimddp": "neon-dot",
    "asimd": "neon",
}
"""What decides how fast a processor is with these models, the fastest first, by Linux's names."""

_PRODUCTS: Final = {
    Precision.FP32: {"avx512f": "AVX-512", "avx2": "AVX2", "asimd": "NEON"},
    Precision.FP16: {"avx512_fp16": "AVX512-FP16"},
    Precision.BF16: {"amx_bf16": "AMX-BF16", "avx512_bf16": "AVX512-BF16", "bf16": "NEON-BF16"},
    Precision.INT8: {
        "amx_int8": "AMX-INT8",
        "avx512_vnni": "AVX512-VNNI",
        "avx_vnni": "AVX-VNNI",
        "i8mm": "NEON-I8MM",
        "asimddp": "NEON-DOT",
    },
}
"""The instructions that multiply in a precision, the fastest first."""


def machine_name() -> str:
    """Processor, cores and memory in a line."""
    main = memory()
    size = "" if main is None else f", {main.total / 1024**3:.0f} GiB"
    return f"{processor().name}, {usable_cores()} cores{size}"


def kind_of(found: Processor) -> str:
    """The kind of processor, as a directory is named: ``amd-epyc-avx512-bf16``.

    Two with the same name are two kinds if their instructions differ: a virtual machine often
    tells no more than the family.
    """
    name = re.sub(r"\(\w+\)|@.*|\b\d+-Core\b|\b(?:CPU|Processor)\b", " ", found.name)
    fastest = next((tag for name, tag in _SETS.items() if name in found.instructions), "")
    return "-".join(re.findall(r"[a-z0-9]+", f"{name} {fastest}".lower()))


def computes_in(precision: str, found: Processor) -> str:
    """A precision with the instructions that multiply in it here: ``bf16, AVX512-BF16``."""
    sets = _PRODUCTS.get(Precision(precision), {})
    best = next((tag for name, tag in sets.items() if name in found.instructions), None)
    return precision if best is None else f"{precision}, {best}"


def reason_against(precision: Precision | None) -> str | None:
    """Why a precision is not measured on this processor; None where it is."""
    multiplies = {Precision.BF16: multiplies_bfloat16, Precision.INT8: multiplies_int8}
    if precision is None or multiplies.get(precision, lambda: True)():
        return None
    return f"this processor has no instructions for products in {precision}"


def matrix_peaks() -> dict[str, float]:
    """Operations a second of the best shape, by precision, as PyTorch's oneDNN reaches them."""
    import torch

    torch.set_num_threads(usable_cores())
    peaks: dict[str, float] = {}
    with torch.inference_mode():
        for rows, inner, columns in _SHAPES:
            operations = 2 * rows * inner * columns
            for precision, multiply in _products(torch, rows, inner, columns).items():
                rate = operations / _shortest(multiply)
                peaks[precision] = max(peaks.get(precision, 0.0), rate)
    return peaks


def _products(torch: Any, rows: int, inner: int, columns: int) -> dict[str, Callable[[], object]]:
    left, right = torch.randn(rows, inner), torch.randn(columns, inner)
    low_left, low_right = left.bfloat16(), right.bfloat16()
    whole_left = torch.randint(-9, 9, (rows, inner), dtype=torch.int8)
    whole_right = torch.randint(-9, 9, (inner, columns), dtype=torch.int8)
    linear = torch.nn.functional.linear
    return {
        "fp32": lambda: linear(left, right),
        "bf16": lambda: linear(low_left, low_right),
        "int8": lambda: torch._int_mm(whole_left, whole_right),
    }


def _shortest(call: Callable[[], object]) -> float:
    call()
    shortest = float("inf")
    end = time.perf_counter() + _SECONDS_EACH
    while (start := time.perf_counter()) < end:
        call()
        shortest = min(shortest, time.perf_counter() - start)
    return shortest


if __name__ == "__main__":
    print(json.dumps(matrix_peaks()))  # noqa: T201
