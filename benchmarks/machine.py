"""What the machine is and how fast it can multiply matrices: the limit of every encoder on it.

Run as a program it prints one JSON object: the peak of each precision in operations a second.
"""

import json
import time
from collections.abc import Callable
from typing import Any, Final

from adapters.system.hardware import memory, processor, usable_cores

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


def machine_name() -> str:
    """Processor, cores and memory in a line."""
    main = memory()
    size = "" if main is None else f", {main.total / 1024**3:.0f} GiB"
    return f"{processor().name}, {usable_cores()} cores{size}"


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
