"""Kept results as pages of Markdown, and those of all processors in one plot."""

import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.contestants import REFERENCE
from benchmarks.machine import OPERATIONS_PER_IMAGE
from benchmarks.results import OwnCost, Results, Row, Served, kept_results

COMPARED: Final = "embed, 8 at once"
"""The load that processors are compared by."""

EARLIER: Final = "earlier"
"""The directory of reports whose raw figures were not kept."""

_OURS_COLOUR: Final = "#2563eb"
_OTHERS_COLOUR: Final = "#9ca3af"


def write_reports(directory: Path) -> Path:
    """Write a report for each kind of processor whose results are kept there, and one of all.

    Returns the latter, ``report.md``; its plot is ``report.png`` beside it.
    """
    kept = kept_results(directory)
    for results in kept:
        page = directory / results.kind / "report.md"
        page.write_text(report_of(results), encoding="utf-8")
    page = directory / "report.md"
    page.write_text(_overview(kept, _earlier(directory)), encoding="utf-8")
    if kept:
        _plot(kept, directory / "report.png")
    return page


def report_of(results: Results) -> str:
    """Everything that one run measured."""
    parts = [
        f"# Measured on {results.machine}",
        f"{results.date}, `make bench`, rounds: {results.rounds}, each load at least "
        f"{results.seconds:g} s; full-size models with random weights, six photos from 320 x 240 "
        "to 2560 x 1440 in JSON. The servers of a model run side by side and take turns; rates "
        "are medians of the rounds, with the slowest and the fastest. The load is a process of "
        "its own on the same machine.",
        f"Instruction sets: {', '.join(results.instructions) or 'not known'}.",
        _servers(results.servers),
        *_loads(results),
        _own_costs(results),
        _encoders(results),
        _not_measured(results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def ratios(results: Results, load: str = COMPARED) -> dict[str, list[tuple[Row, float]]]:
    """By model, each server's rate under a load in multiples of the reference's."""
    rows = [row for row in results.rows() if row.load == load]
    rates = {row.model: row.rate for row in rows if row.server == REFERENCE and row.rate}
    found: dict[str, list[tuple[Row, float]]] = {}
    for row in rows:
        if row.model in rates:
            found.setdefault(row.model, []).append((row, row.rate / rates[row.model]))
    return found


def own_cost_table(costs: Sequence[OwnCost]) -> str:
    """What the server itself costs, beside the decoder."""
    return _table(
        "JPEG | HTTP processes | requests a second | alone, p50 ms | processor time of a request, "
        "ms | of the decoder alone, ms | times the decoder's | at most MiB",
        (
            (
                f"{cost.picture} {cost.checkout}".strip(),
                str(cost.processes),
                f"{median(cost.per_second):.0f}",
                f"{median(cost.alone_ms):.1f}",
                f"{(own := median(cost.cpu_ms)):.2f}",
                f"{(floor := median(cost.decoder_ms)):.2f}",
                f"{own / floor:.1f}",
                _mib(cost.memory),
            )
            for cost in sorted(costs, key=lambda cost: int(cost.picture.split(" ")[0]))
        ),
    )


def _servers(servers: Sequence[Served]) -> str:
    if not servers:
        return ""
    return "## Servers, and their memory\n\n" + _table(
        "model | server | computes in | cosine with the reference | loaded MiB | at most MiB",
        (
            (
                one.model,
                one.name,
                one.computes,
                "" if one.cosine is None else f"{one.cosine:.4f}",
                _mib(one.loaded_memory),
                _mib(one.peak_memory),
            )
            for one in servers
        ),
        "Resident memory of all processes of a server, pages that they share counted for each of "
        "them: once the first request was answered, and the most that was seen under load. The "
        f"reference is {REFERENCE} with the same model.",
    )


def _loads(results: Results) -> Iterable[str]:
    rows = results.rows()
    for load in dict.fromkeys(row.load for row in rows):
        times = {
            (row.model, row.server): f"{ratio:.1f}"
            for of_model in ratios(results, load).values()
            for row, ratio in of_model
        }
        yield f"## {load}\n\n" + _table(
            "model | server | a second | ratio | p50 ms | p99 ms | `/health` p99 ms | "
            "CPU s a request | failed",
            (
                (
                    row.model,
                    row.server,
                    f"{row.rate:.2f} ({row.slowest_rate:.2f}–{row.fastest_rate:.2f})",
                    times.get((row.model, row.server), ""),
                    _number(row.p50_ms, 1),
                    _number(row.p99_ms, 1),
                    _number(row.health_p99_ms, 1),
                    _number(row.cpu_s, 3),
                    str(row.failures),
                )
                for row in rows
                if row.load == load
            ),
        )


def _own_costs(results: Results) -> str:
    if not results.own_costs:
        return ""
    return (
        "## The server's own cost\n\nAn encoder that computes nothing, 32 requests at once with "
        "one JPEG in JSON, beside the JPEG decoder alone at the smallest scale that fills the "
        "model.\n\n" + own_cost_table(results.own_costs)
    )


def _encoders(results: Results) -> str:
    peaks = ", ".join(f"{name} {rate / 1e12:.2f}" for name, rate in results.peaks.items())
    if not results.bare:
        return ""
    return (
        "## The encoders alone, and how far from the hardware\n\n"
        f"ViT-L/14. Peak of a matrix product, in 10^12 operations a second: {peaks}. One image "
        f"takes {OPERATIONS_PER_IMAGE / 1e9:.0f} · 10^9.\n\n"
        + _table(
            "encoder | computes in | batch | images a second | share of its precision's peak",
            (
                (
                    one.name,
                    one.computes,
                    batch,
                    f"{(rate := median(rates)):.2f}",
                    f"{rate * OPERATIONS_PER_IMAGE / results.peaks[one.precision]:.2f}"
                    if one.precision in results.peaks
                    else "",
                )
                for one in results.bare
                for batch, rates in one.rates.items()
            ),
        )
    )


def _not_measured(results: Results) -> str:
    if not results.not_measured:
        return ""
    lines = (f"- {name}: {reason}" for name, reason in results.not_measured.items())
    return "## Not measured\n\n" + "\n".join(lines)


def _overview(kept: Sequence[Results], earlier: Sequence[str]) -> str:
    parts = ["# Speed beside others, by kind of processor"]
    if kept:
        parts += [
            f"Images a second ({COMPARED}), as multiples of {REFERENCE} with the same model on the "
            "same machine in the same run. Ratios of two kinds of processor cannot be compared: "
            "each has a reference of its own.",
            "![Multiples of the reference, by processor](report.png)",
            _table(
                "processor | measured | model | server | images a second | ratio",
                (
                    (
                        f"[{one.kind}]({one.kind}/report.md)",
                        one.date,
                        model,
                        row.server,
                        f"{row.rate:.2f}",
                        f"{ratio:.1f}",
                    )
                    for one in kept
                    for model, rows in ratios(one).items()
                    for row, ratio in rows
                ),
            ),
        ]
    else:
        parts.append("No results are kept yet: `make bench` adds those of its processor.")
    if earlier:
        parts.append(
            "Reports of earlier runs, whose raw figures were not kept: "
            + ", ".join(f"[{name}]({EARLIER}/{name}/report.md)" for name in earlier)
            + "."
        )
    return "\n\n".join(parts) + "\n"


def _earlier(directory: Path) -> list[str]:
    return sorted(page.parent.name for page in directory.glob(f"{EARLIER}/*/report.md"))


def _plot(kept: Sequence[Results], target: Path) -> None:
    """A column for each model, and in it the processors one below the other."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    found = {one.kind: ratios(one) for one in kept}
    models = list(dict.fromkeys(model for each in found.values() for model in each))
    if not models:
        return
    heights = [max((len(rows) for rows in each.values()), default=1) for each in found.values()]
    figure, axes = pyplot.subplots(
        len(kept),
        len(models),
        figsize=(4.6 * len(models), 0.9 * len(kept) + 0.3 * sum(heights) + 0.4),
        height_ratios=heights,
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for line, one, height in zip(axes, kept, heights, strict=True):
        for axis, model in zip(line, models, strict=True):
            rows = found[one.kind].get(model, [])
            if not rows:
                axis.set_axis_off()
                continue
            for place, (row, ratio) in enumerate(rows):
                ours = row.server.startswith("ours")
                axis.barh(place, ratio, color=_OURS_COLOUR if ours else _OTHERS_COLOUR)
                axis.text(ratio, place, f" {ratio:.1f} x", va="center", fontsize=8)
            axis.axvline(1, color="#111827", linewidth=0.6, linestyle=":")
            axis.set_yticks(range(len(rows)), [row.server for row, _ in rows], fontsize=8)
            axis.set_ylim(height - 0.4, -0.6)
            axis.set_title(f"{one.kind}: {model}", fontsize=9, loc="left")
            axis.margins(x=0.15)
            axis.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(f"images a second ({COMPARED}) in multiples of {REFERENCE}", fontsize=8)
    figure.savefig(target, dpi=120)
    pyplot.close(figure)


def _table(head: str, rows: Iterable[Sequence[str]], after: str = "") -> str:
    lines = [f"| {head} |", f"|{' --- |' * len(head.split(' | '))}"]
    lines += [f"| {' | '.join(cells)} |" for cells in rows]
    return "\n".join([*lines, "", after] if after else lines)


def _number(number: float, digits: int) -> str:
    """A dash for what could not be measured, as when nothing was answered."""
    return "–" if math.isnan(number) else f"{number:.{digits}f}"


def _mib(count: int) -> str:
    return f"{count / 1024**2:.0f}"


if __name__ == "__main__":
    sys.stdout.write(f"{write_reports(Path(sys.argv[1]))}\n")
