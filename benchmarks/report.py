"""The run's figures as a page of Markdown and a plot."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.contestants import SIGLIP
from benchmarks.machine import OPERATIONS_PER_IMAGE
from benchmarks.results import Results, Row

REFERENCE: Final = "FastAPI + transformers"
"""The server that ratios are against, with the same model."""


def write_report(results: Results, directory: Path) -> Path:
    """Write ``report.md`` and ``report.png``; returns the former."""
    rows = results.rows()
    directory.mkdir(parents=True, exist_ok=True)
    page = directory / "report.md"
    parts = [
        f"# Measured on {results.machine}",
        f"{datetime.now(UTC):%Y-%m-%d}, `make bench`, full-size ViT-L/14 and SigLIP 2 base with "
        "random weights. All in one run, the servers taking turns; rates are medians of the "
        "rounds, with the slowest and the fastest. The load is a process of its own on the same "
        "machine.",
        _servers(rows),
        _encoders(results),
    ]
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    _plot(rows, directory / "report.png")
    return page


def _servers(rows: Sequence[Row]) -> str:
    reference = {
        (row.load, row.server.endswith(SIGLIP)): row.rate
        for row in rows
        if row.server.removesuffix(SIGLIP) == REFERENCE
    }
    lines = []
    for load in dict.fromkeys(row.load for row in rows):
        lines += [
            f"## {load}",
            "",
            "| server | a second | ratio | p50 ms | p99 ms | `/health` p99 ms | CPU s a request | "
            "peak MiB | failed |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        for row in (row for row in rows if row.load == load):
            peer = reference.get((load, row.server.endswith(SIGLIP)))
            ratio = "" if peer is None else f"{row.rate / peer:.1f}"
            cells = (
                row.server,
                f"{row.rate:.2f} ({row.slowest_rate:.2f}–{row.fastest_rate:.2f})",
                ratio,
                f"{row.p50_ms:.1f}",
                f"{row.p99_ms:.1f}",
                f"{row.health_p99_ms:.1f}",
                f"{row.cpu_s:.3f}",
                f"{row.memory_mib:.0f}",
                str(row.failures),
            )
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines).rstrip()


def _encoders(results: Results) -> str:
    peaks = ", ".join(f"{name} {rate / 1e12:.2f}" for name, rate in results.peaks.items())
    lines = [
        "## The encoders alone, and how far from the hardware",
        "",
        f"Peak of a matrix product, in 10^12 operations a second: {peaks}. One image takes "
        f"{OPERATIONS_PER_IMAGE / 1e9:.0f} · 10^9.",
        "",
        "| encoder | batch | images a second | share of its precision's peak |",
        "| --- | --- | --- | --- |",
    ]
    for encoder, batches in results.bare.items():
        for batch, rates in batches.items():
            rate = median(rates)
            precision = next((name for name in results.peaks if name in encoder), None)
            share = (
                f"{rate * OPERATIONS_PER_IMAGE / results.peaks[precision]:.2f}" if precision else ""
            )
            lines.append(f"| {encoder} | {batch} | {rate:.2f} | {share} |")
    return "\n".join(lines)


def _plot(rows: Sequence[Row], target: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    loads = list(dict.fromkeys(row.load for row in rows if row.server != row.load))
    compared = [load for load in loads if len([row for row in rows if row.load == load]) > 1]
    figure, axes = pyplot.subplots(
        1, len(compared), figsize=(4.2 * len(compared), 3.6), sharey=True, squeeze=False
    )
    servers = list(dict.fromkeys(row.server for row in rows if row.load in compared))
    for axis, load in zip(axes[0], compared, strict=True):
        rates = {row.server: row for row in rows if row.load == load}
        for place, server in enumerate(reversed(servers)):
            if (row := rates.get(server)) is None:
                continue
            colour = "#2563eb" if server.startswith("ours") else "#9ca3af"
            spread = [[row.rate - row.slowest_rate], [row.fastest_rate - row.rate]]
            axis.barh(place, row.rate, xerr=spread, color=colour, error_kw={"lw": 0.8})
            axis.text(row.fastest_rate, place, f"  {row.rate:.1f}", va="center", fontsize=8)
        axis.set_yticks(range(len(servers)), list(reversed(servers)), fontsize=8)
        axis.set_title(load, fontsize=9)
        axis.margins(x=0.15)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_xlabel("responses a second", fontsize=8)
    figure.tight_layout()
    figure.savefig(target, dpi=120)
