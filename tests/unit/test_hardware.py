"""How many cores a container may use."""

import os
from pathlib import Path

import pytest

from adapters.hardware import multiplies_bfloat16, usable_cores

ALL = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000", ALL),
        ("100000 100000", 1),
        ("50000 100000", 1),
        ("99900000 100000", ALL),
        ("nonsense", ALL),
        ("1 0", ALL),
    ],
)
def test_the_container_limit_counts(quota: str, cores: int, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    assert usable_cores(tmp_path / "cpu.max") == cores


def test_no_container_no_limit(tmp_path: Path) -> None:
    assert usable_cores(tmp_path / "missing") == ALL


@pytest.mark.parametrize(
    ("features", "has"),
    [
        ("flags\t\t: fpu sse2 avx512f avx512_bf16 avx512_fp16", True),
        ("flags\t\t: fpu amx_bf16 amx_tile", True),
        ("Features\t: fp asimd bf16 i8mm", True),
        ("flags\t\t: fpu sse2 avx2 avx512f avx512_vnni", False),
    ],
)
def test_bfloat16_is_read_off_the_processor(features: str, has: bool, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{features}\n")
    assert multiplies_bfloat16(tmp_path / "cpuinfo") is has


def test_no_description_no_bfloat16(tmp_path: Path) -> None:
    assert multiplies_bfloat16(tmp_path / "missing") is False
