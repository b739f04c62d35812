"""Two distributions and a threshold, as text for a terminal and as an SVG picture."""

from html import escape
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from domain.calibration import histogram

if TYPE_CHECKING:
    from domain.calibration import Calibration

_TEXT_BINS: Final = 16
_TEXT_BAR: Final = 28
_PICTURE_BINS: Final = 48
_WIDTH: Final = 800
_HEIGHT: Final = 420
_LEFT: Final = 60
_RIGHT: Final = 20
_TOP: Final = 70
_BOTTOM: Final = 60


class Words(Protocol):
    """What the numbers and the two groups are called."""

    @property
    def number(self) -> str: ...  # noqa: D102

    @property
    def negatives(self) -> str: ...  # noqa: D102

    @property
    def positives(self) -> str: ...  # noqa: D102


def as_text(
    found: "Calibration",
    negatives: NDArray[np.float64],
    positives: NDArray[np.float64],
    words: Words,
) -> str:
    """A histogram with a line for each range of the number; the threshold's line is marked."""
    low, high = _range(negatives, positives)
    step = (high - low) / _TEXT_BINS
    left = histogram(negatives, low, high, _TEXT_BINS)
    right = histogram(positives, low, high, _TEXT_BINS)
    most = max(float(left.max()), float(right.max()), 1e-9)
    lines = [f"{words.number:>13}  {words.negatives:<{_TEXT_BAR}}  {words.positives}"]
    for place in range(_TEXT_BINS):
        start = low + place * step
        last = place == _TEXT_BINS - 1
        here = start <= found.threshold < start + step or (last and found.threshold >= start)
        mark = "◀ threshold" if here else ""
        bars = (f"{_bar(float(left[place]), most):<{_TEXT_BAR}}", _bar(float(right[place]), most))
        lines.append(f"{start:6.3f}–{start + step:6.3f}  {bars[0]}  {bars[1]} {mark}".rstrip())
    return "\n".join(lines)


def as_svg(
    found: "Calibration",
    negatives: NDArray[np.float64],
    positives: NDArray[np.float64],
    words: Words,
) -> str:
    """The same as a picture of its own; readable in light and in dark."""
    low, high = _range(negatives, positives)
    most = 1e-9
    groups = []
    for name, values in (("negative", negatives), ("positive", positives)):
        shares = histogram(values, low, high, _PICTURE_BINS)
        most = max(most, float(shares.max()))
        groups.append((name, shares))
    across = (_WIDTH - _LEFT - _RIGHT) / (high - low)
    floor = _HEIGHT - _BOTTOM
    step = (high - low) / _PICTURE_BINS

    def x(value: float) -> float:
        return _LEFT + (min(max(value, low), high) - low) * across

    bars = []
    for name, shares in groups:
        for place, share in enumerate(shares):
            if share > 0.0:
                height = float(share) / most * (floor - _TOP)
                bars.append(
                    f'<rect class="{name}" x="{x(low + place * step):.1f}" '
                    f'y="{floor - height:.1f}" width="{step * across:.1f}" '
                    f'height="{height:.1f}"/>'
                )
    ticks = "".join(
        f'<text x="{x(value):.1f}" y="{floor + 20}" text-anchor="middle">{value:.2f}</text>'
        for value in np.linspace(low, high, 7)
    )
    interval = found.interval
    start = x(low if interval.low is None else interval.low)
    end = x(high if interval.high is None else interval.high)
    line = x(found.threshold)
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    title = f"threshold {found.threshold:.4f} for {found.false_alarms:.2%} false alarms"
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"
 aria-label="{escape(title)}" font-family="system-ui, sans-serif" font-size="13">
<style>
svg {{ background: #fff; color: #1b1f24; }}
text {{ fill: currentcolor; }}
.negative {{ fill: #0a6cbd; fill-opacity: .6; }}
.positive {{ fill: #c4570c; fill-opacity: .6; }}
.interval {{ fill: currentcolor; fill-opacity: .12; }}
.line {{ stroke: currentcolor; stroke-width: 2; }}
@media (prefers-color-scheme: dark) {{ svg {{ background: #14181d; color: #e8ecf0; }} }}
</style>
<text x="{_LEFT}" y="24" font-size="16" font-weight="600">{escape(title)}</text>
<rect class="negative" x="{_LEFT}" y="38" width="12" height="12"/>
<text x="{_LEFT + 18}" y="49">{escape(words.negatives)} ({len(negatives)})</text>
<rect class="positive" x="{_LEFT + 240}" y="38" width="12" height="12"/>
<text x="{_LEFT + 258}" y="49">{escape(words.positives)} ({len(positives)})</text>
<rect class="interval" x="{_LEFT + 480}" y="38" width="12" height="12"/>
<text x="{_LEFT + 498}" y="49">{found.confidence * 100:g} % interval</text>
<rect class="interval" x="{start:.1f}" y="{_TOP}"
 width="{end - start:.1f}" height="{floor - _TOP}"/>
{"".join(bars)}
<line class="line" x1="{line:.1f}" x2="{line:.1f}" y1="{_TOP}" y2="{floor}"/>
<line class="line" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{floor}" y2="{floor}"/>
{ticks}
<text x="{middle}" y="{floor + 44}" text-anchor="middle">{escape(words.number)}</text>
</svg>
"""


def _range(negatives: NDArray[np.float64], positives: NDArray[np.float64]) -> tuple[float, float]:
    values = np.concatenate([negatives, positives])
    low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _bar(share: float, most: float) -> str:
    """A bar in eighths of a character; the smallest share that is not zero shows."""
    eighths = round(share / most * _TEXT_BAR * 8)
    if share > 0.0:
        eighths = max(eighths, 1)
    return "█" * (eighths // 8) + ("▏▎▍▌▋▊▉"[eighths % 8 - 1] if eighths % 8 else "")
