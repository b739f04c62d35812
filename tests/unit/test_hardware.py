"""How many cores a container may use."""

import os
from pathlib import Path

import pytest

from adapters.system.hardware import (
    CoreTime,
    Memory,
    Processor,
    core_time,
    memory,
    multiplies_bfloat16,
    multiplies_int8,
    nvidia_cards,
    nvidia_driver_version,
    processor,
    usable_cores,
)

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


@pytest.mark.parametrize(
    ("features", "limit", "has"),
    [
        ("flags : avx2 fma", "", False),
        ("flags : avx2 avx512f", "", False),
        ("flags : avx2 avx_vnni", "", True),
        ("flags : avx2 avx512f avx512_vnni", "", True),
        ("flags : avx2 avx512f avx512_vnni", "avx2", False),
        ("flags : avx2 avx512f avx512_vnni", "AVX512_CORE_VNNI", True),
        ("flags : avx2 amx_tile amx_int8", "", True),
        ("Features : fp asimd asimddp", "", True),
        ("Features : fp asimd", "", False),
    ],
)
def test_int8_is_read_off_the_processor_and_what_is_forbidden_it(
    features: str, limit: str, has: bool, tmp_path: Path
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{features}\n")
    forbidden = {"ONEDNN_MAX_CPU_ISA": limit} if limit else {}
    assert multiplies_int8(tmp_path / "cpuinfo", forbidden) is has


def test_nothing_speaks_against_int8_where_the_processor_is_not_described(tmp_path: Path) -> None:
    assert multiplies_int8(tmp_path / "missing", {}) is True


def test_the_processor_is_named_with_what_matters_of_it(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: Fast 9000\nflags\t\t: fpu amx_bf16 avx2 sse\n")
    assert processor(info) == Processor("Fast 9000", ("avx2", "amx_bf16"))
    info.write_text("processor\t: 0\nFeatures\t: fp asimd i8mm\n")  # as on Arm
    assert processor(info).instructions == ("asimd", "i8mm")
    assert processor(tmp_path / "none").instructions == ()


def test_memory_is_no_more_than_the_container_may_have(tmp_path: Path) -> None:
    info = tmp_path / "meminfo"
    limit = tmp_path / "memory.max"
    info.write_text("MemTotal:  4096 kB\nMemFree:  1 kB\nMemAvailable:  2048 kB\n")
    assert memory(info, limit) == Memory(total=4 * 1024**2, available=2 * 1024**2)
    limit.write_text("max\n")
    assert memory(info, limit) == Memory(total=4 * 1024**2, available=2 * 1024**2)
    limit.write_text("1048576\n")
    assert memory(info, limit) == Memory(total=1024**2, available=1024**2)
    (tmp_path / "memory.stat").write_text("anon 48576\nfile 900000\n")
    assert memory(info, limit) == Memory(total=1024**2, available=1_000_000)
    (tmp_path / "memory.stat").write_text("anon 9048576\n")
    assert memory(info, limit) == Memory(total=1024**2, available=0)
    assert memory(tmp_path / "none", limit) is None


def test_cards_are_named_by_the_driver(tmp_path: Path) -> None:
    for number, name in enumerate(["NVIDIA A", "NVIDIA B"]):
        card = tmp_path / f"0000:0{number}:00.0"
        card.mkdir()
        (card / "information").write_text(f"Model: \t\t {name}\nIRQ:   17\n")
    assert nvidia_cards(tmp_path) == ("NVIDIA A", "NVIDIA B")
    assert nvidia_cards(tmp_path / "none") == ()


@pytest.mark.parametrize(
    ("line", "version"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC",
            "535.183.01",
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build "
            "(dvs-builder@U22-I3-B11-02-3)",
            "580.65.06",
        ),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release", "540.4.0"),
        ("nothing of use", None),
    ],
)
def test_the_drivers_version_is_read(line: str, version: str | None, tmp_path: Path) -> None:
    file = tmp_path / "version"
    file.write_text(f"{line}\nGCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1ubuntu1~22.04)\n")
    assert nvidia_driver_version(file) == version
    assert nvidia_driver_version(tmp_path / "none") is None


def test_threads_add_up_what_they_computed_and_waited(tmp_path: Path) -> None:
    for number, times in enumerate(("3000000000 500000000 9", "1000000000 500000000 2", "broken")):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "schedstat").write_text(times)
    before, now = CoreTime(1.0, 0.0), core_time(tmp_path)
    assert now == CoreTime(4.0, 1.0)
    assert now.waited_since(before) == 0.25
    assert before.waited_since(now) == 0.0  # threads that have ended meanwhile
    assert core_time(tmp_path / "nowhere").waited_since(CoreTime(0.0, 0.0)) == 0.0
