"""What the GPU check has seen: lines for a page of Markdown, figures for a plot."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Report:
    """What was seen, line by line, and whether all of it was as promised.

    ``figures`` has, by encoder and batch size, milliseconds of a call.
    """

    lines: list[str] = field(default_factory=list)
    failures: int = 0
    figures: dict[str, dict[str, float]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def say(self, line: str) -> None:
        """Something that was measured."""
        self.lines.append(f"- {line}")

    def check(self, promise: str, kept: bool, seen: str) -> None:
        """Something that was promised."""
        self.failures += not kept
        self.say(f"{'PASS' if kept else 'FAIL'} {promise}: {seen}")

    @contextmanager
    def section(self, title: str) -> Iterator[None]:
        """A part of the check; what it raises is a failure of its own."""
        self.lines += ["", f"## {title}", ""]
        try:
            yield
        except Exception as failure:  # the other sections are still worth running
            self.check(title, kept=False, seen=f"{type(failure).__name__}: {failure}")

    def take(self, other: "Report") -> None:
        """Append what another process has seen."""
        self.lines += other.lines
        self.failures += other.failures
        self.figures.update(other.figures)
        self.facts.update(other.facts)

    def as_json(self) -> str:
        """All of it, for the process that waits."""
        return json.dumps(vars(self))

    @classmethod
    def from_json(cls, text: str) -> "Report":
        """What `as_json` wrote."""
        return cls(**json.loads(text))

    def write(self, path: Path) -> None:
        """Write it as Markdown, with a plot beside it where matplotlib is installed."""
        verdict = "all as promised" if not self.failures else f"{self.failures} not as promised"
        lines = [f"# GPU check: {verdict}", *self.lines]
        if self.figures and plot(self.figures, path.with_suffix(".png")):
            lines += ["", f"![Images a second by batch size]({path.stem}.png)"]
        path.write_text("\n".join([*lines, ""]), encoding="utf-8")


def plot(figures: dict[str, dict[str, float]], place: Path) -> bool:
    """Images a second by batch size, a line for each encoder; False where it cannot be drawn."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, times in figures.items():
        batches = sorted(int(batch) for batch in times)
        rates = [1000 * batch / times[str(batch)] for batch in batches]
        axes.plot(batches, rates, marker="o", label=name)
    axes.set_xscale("log", base=2)
    axes.set_xlabel("images a call")
    axes.set_ylabel("images a second")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(place, dpi=150)
    return True
