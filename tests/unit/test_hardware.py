"""How many cores a container may use."""

import os
from pathlib import Path

import pytest

from adapters.hardware import usable_cores

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
