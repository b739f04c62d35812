"""Ten times what a server can take, for minutes: ``python -m checks.endurance.overload --help``.

Writes ``overload.md`` and ``overload.png``.
"""

import asyncio
import math
import random
import tempfile
import time
from pathlib import Path
from typing import Final

import click

from adapters.encoders.selection import EncoderChoice, EncoderSelection
from benchmarks.machine import machine_name
from checks.endurance import REPORTS
from checks.endurance.known_requests import KnownRequests
from checks.endurance.load import RIGHT, WRONG, Tally, ask_in_turn, ask_steadily
from checks.endurance.vitals import Vitals, plot_vitals, watched
from tests.support.photos import as_file, photos
from tests.support.servers import SERVE, Server, running, wait_for

_TIMES: Final = 10
_CALM_SECONDS: Final = 20


@click.command()
@click.option("--checkpoint", default="builtin:demo", show_default=True, help="What is served.")
@click.option("--seconds", default=300, show_default=True, help="How long the overload lasts.")
@click.option("--output", type=click.Path(path_type=Path), default=REPORTS, show_default=True)
def main(checkpoint: str, seconds: int, output: Path) -> None:
    """Find out how many requests a server can serve, then send ten times as many."""
    output.mkdir(parents=True, exist_ok=True)
    click.echo("computing the right responses")
    encoder = EncoderSelection(EncoderChoice.OPENVINO, checkpoint, 768, cache=None).load()
    files = [as_file(picture.resize((320, 240))) for picture in photos().values()]
    requests = KnownRequests(random.Random(7), encoder, files)
    del encoder
    with tempfile.TemporaryDirectory() as scratch:
        settings = {"CLIP_MODEL_PATH": checkpoint, "CLIP_ENCODER": "openvino"}
        with running(SERVE, Path(scratch) / "log", **settings) as server:
            wait_for(server, "/health/ready")
            asyncio.run(_measure(server, requests, seconds, checkpoint, output))
            assert "Traceback" not in server.log
            assert server.stop() == 0


async def _measure(
    server: Server, requests: KnownRequests, seconds: int, checkpoint: str, output: Path
) -> None:
    drawn = [requests.draw() for _ in range(500)]
    full = Tally()
    await ask_in_turn(server.url, requests, 16, _CALM_SECONDS, full)
    capacity = full.outcomes[RIGHT] / _CALM_SECONDS
    click.echo(f"it can serve {capacity:.1f} requests a second")
    phases = {"before": Tally(), "overload": Tally(), "after": Tally()}
    async with watched(server.process.pid) as seen:
        await ask_steadily(server.url, drawn, capacity / 2, _CALM_SECONDS, phases["before"])
        begun_s = time.monotonic()
        await ask_steadily(server.url, drawn, capacity * _TIMES, seconds, phases["overload"])
        ended_s = time.monotonic()
        click.echo(phases["overload"].outcomes)
        await ask_steadily(server.url, drawn, capacity / 2, _CALM_SECONDS, phases["after"])
    everything = Tally([each for tally in phases.values() for each in tally.asked])
    assert everything.outcomes[WRONG] == 0
    report = _report(phases, seen, capacity, (begun_s, ended_s), checkpoint)
    (output / "overload.md").write_text(report, encoding="utf-8")
    click.echo(report)
    rates = {
        "served": _rates(everything, right=True),
        "refused": _rates(everything, right=False),
    }
    plot_vitals(seen, rates, f"{_TIMES} times its capacity", output / "overload.png")


def _report(
    phases: dict[str, Tally],
    seen: list[Vitals],
    capacity: float,
    overload_s: tuple[float, float],
    checkpoint: str,
) -> str:
    begun_s, ended_s = overload_s
    seconds = ended_s - begun_s
    lines = [
        f"{checkpoint} on {machine_name()}, with the load on the same cores. Its capacity was "
        f"{capacity:.0f} requests a second; {_TIMES} times as many were sent for {seconds:.0f} s.",
        "",
        "| | sent a second | served a second | p50 | p99 | refused | p50 | p99 |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, tally in phases.items():
        lasted = seconds if name == "overload" else _CALM_SECONDS
        right = tally.outcomes[RIGHT]
        lines.append(
            f"| {name} | {len(tally.asked) / lasted:.0f} | {right / lasted:.1f} "
            f"| {_times(tally, right=True)} | {len(tally.asked) - right} "
            f"| {_times(tally, right=False)} |"
        )
    during = [each for each in seen if begun_s <= each.at_s <= ended_s]
    third = max(1, len(during) // 3)
    early = max(each.memory_mib for each in during[:third])
    late = max(each.memory_mib for each in during[-third:])
    lines += [
        "",
        f"Outcomes during the overload: {dict(phases['overload'].outcomes)}. Resident memory: "
        f"{seen[0].memory_mib:.0f} MiB before, at most {early:.0f} in its first third, "
        f"{late:.0f} in the last. Back to normal (every request served, p50 at most twice as "
        f"before) {_recovery_s(phases, ended_s):.0f} s after its end.",
        "",
    ]
    return "\n".join(lines)


def _times(tally: Tally, *, right: bool) -> str:
    """The median and the 99th percentile, as two cells of a table."""
    both = [tally.milliseconds(percent, right=right) for percent in (50, 99)]
    return " | ".join("–" if math.isnan(each) else f"{each:.3g} ms" for each in both)


def _recovery_s(phases: dict[str, Tally], ended_s: float) -> float:
    """Whole seconds from the end of the overload until a second was as before it."""
    normal_ms = 2 * phases["before"].milliseconds(50)
    for second in range(_CALM_SECONDS):
        window = phases["after"].between(ended_s + second, ended_s + second + 1)
        if window.asked and set(window.outcomes) == {RIGHT} and window.milliseconds(50) < normal_ms:
            return second + 1.0
    return float("inf")


def _rates(tally: Tally, *, right: bool) -> list[tuple[float, float]]:
    """Right responses, or refusals, in each second."""
    counts: dict[int, int] = {int(each.ended_s): 0 for each in tally.asked}
    for each in tally.asked:
        counts[int(each.ended_s)] += (each.outcome == RIGHT) is right
    return [(float(second), float(count)) for second, count in sorted(counts.items())]


if __name__ == "__main__":
    main()
