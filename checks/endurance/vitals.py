"""A process watched from outside, second by second: memory, file descriptors, threads."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Vitals:
    """A process at one moment.

    Attributes:
        at_s: by `time.monotonic`.
        memory_mib: resident.
        open_files: file descriptors.
        threads: all of them.
    """

    at_s: float
    memory_mib: float
    open_files: int
    threads: int


def vitals_of(pid: int) -> Vitals:
    """The process now."""
    threads = int(_status(pid)["Threads"])
    return Vitals(time.monotonic(), memory_mib(pid), len(os.listdir(f"/proc/{pid}/fd")), threads)


def memory_mib(pid: int, what: str = "VmRSS") -> float:
    """Resident memory now, or at its peak (``VmHWM``), as the kernel says."""
    return int(_status(pid)[what].split()[0]) / 1024


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value for name, _, value in (line.partition(":") for line in lines)}


@asynccontextmanager
async def watched(pid: int, every_s: float = 1.0) -> AsyncIterator[list[Vitals]]:
    """The process's vitals, added to while the block runs."""
    seen = [vitals_of(pid)]

    async def watch() -> None:
        while True:
            await asyncio.sleep(every_s)
            seen.append(vitals_of(pid))

    watching = asyncio.create_task(watch())
    try:
        yield seen
    finally:
        watching.cancel()
        seen.append(vitals_of(pid))


def plot_vitals(
    seen: Sequence[Vitals], rates: Mapping[str, Sequence[tuple[float, float]]], title: str, to: Path
) -> None:
    """Draw memory, file descriptors, threads and rates over minutes.

    Args:
        seen: what was watched.
        rates: curves by name, (seconds by `time.monotonic`, requests a second).
        title: above it all.
        to: the PNG file.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    start_s = seen[0].at_s
    minutes = [(each.at_s - start_s) / 60 for each in seen]
    figure, axes = plt.subplots(4, 1, figsize=(9, 9), sharex=True, layout="constrained")
    figure.suptitle(title)
    curves: list[tuple[str, list[float]]] = [
        ("resident memory, MiB", [each.memory_mib for each in seen]),
        ("open files", [each.open_files for each in seen]),
        ("threads", [each.threads for each in seen]),
    ]
    for axis, (name, values) in zip(axes, curves, strict=False):
        axis.plot(minutes, values, linewidth=1)
        axis.set_ylabel(name)
        axis.set_ylim(bottom=0)
    for name, curve in rates.items():
        x = [(at_s - start_s) / 60 for at_s, _ in curve]
        axes[3].plot(x, [rate for _, rate in curve], linewidth=1, label=name)
    axes[3].set_ylabel("requests a second")
    axes[3].set_yscale("symlog")
    axes[3].legend()
    axes[3].set_xlabel("minutes")
    for axis in axes:
        _plain(axis)
    figure.savefig(to, dpi=110)


def _plain(axis: Any) -> None:
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
