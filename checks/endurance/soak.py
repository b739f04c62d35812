"""An hour of everything: ``python -m checks.endurance.soak --help``.

Mixed requests all the time, some abandoned; changing kinds of attackers; hostile requests; and an
encoder that fails at random. Writes ``soak.md`` and ``soak.png``.
"""

import asyncio
import contextlib
import http.client
import json
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import click
import numpy as np

from adapters.encoders.selection import EncoderChoice, EncoderSelection
from adapters.models.reading import DEMO
from benchmarks.machine import machine_name
from checks.endurance import REPORTS, attackers
from checks.endurance.attackers import Attack, Target, attacking
from checks.endurance.known_requests import KnownRequests
from checks.endurance.load import RIGHT, WRONG, Tally, abandon, ask_in_turn, session
from checks.endurance.vitals import Vitals, plot_vitals, watched
from tests.support.hostile_corpus import Hostile, corpus
from tests.support.hostile_measuring import send
from tests.support.photos import as_file, photos
from tests.support.servers import Server, running, wait_for

FAULTY: Final = [sys.executable, "-m", "checks.endurance.faulty_server"]
HELD_OUT: Final = Path("adapters/models/demo/held_out")
_CLIENTS: Final = 6
_PAUSE_SECONDS: Final = 0.3
_ATTACKS: Final[Sequence[tuple[Attack, int]]] = (
    (attackers.stay_idle, 200),
    (attackers.drip_head, 50),
    (attackers.drip_body, 50),
    (attackers.send_half_a_large_body, 4),
    (attackers.never_read, 3),
    (attackers.pipeline_half_requests, 5),
    (attackers.send_endless_headers, 2),
    (attackers.send_one_endless_header, 2),
    (attackers.send_endless_trailers, 2),
    (attackers.hang_up_while_encoding, 5),
    (attackers.ask_for_a_websocket, 5),
    (attackers.talk_nonsense, 5),
)


@click.command()
@click.option("--minutes", default=60.0, show_default=True, help="How long it lasts.")
@click.option(
    "--fault-share",
    default=0.002,
    show_default=True,
    help="Share of the encoder's calls that fail.",
)
@click.option("--output", type=click.Path(path_type=Path), default=REPORTS, show_default=True)
def main(minutes: float, fault_share: float, output: Path) -> None:
    """Soak a server with the demo model, and check every response."""
    output.mkdir(parents=True, exist_ok=True)
    soak = soaked(minutes * 60, fault_share, settle_s=30)
    (output / "soak.md").write_text(soak.report(), encoding="utf-8")
    click.echo(soak.report())
    soak.plot(output / "soak.png")
    assert soak.passed


def soaked(seconds: float, fault_share: float, *, settle_s: float) -> "Soak":
    """Start a server, soak it and stop it.

    Args:
        seconds: how long.
        fault_share: share of the encoder's calls that should fail.
        settle_s: time for the last attackers' connections to be closed.
    """
    encoder = EncoderSelection(EncoderChoice.OPENVINO, DEMO, 768, cache=None).load()
    files = [as_file(picture.resize((320, 240))) for picture in photos().values()]
    files += [path.read_bytes() for path in sorted(HELD_OUT.glob("*.png"))]
    requests = KnownRequests(random.Random(7), encoder, files)
    settings = {
        "CLIP_MODEL_PATH": DEMO,
        "CLIP_ENCODER": "openvino",
        "CLIP_ENCODE_TIMEOUT_SECONDS": "2",
        "FAULT_SHARE": str(fault_share),
    }
    with (
        tempfile.TemporaryDirectory() as scratch,
        running(FAULTY, Path(scratch) / "log", **settings) as server,
    ):
        wait_for(server, "/health/ready")
        soak = Soak(server, requests, seconds, settle_s)
        asyncio.run(soak.run())
        return soak


class Soak:
    """One run of it."""

    def __init__(
        self, server: Server, requests: KnownRequests, seconds: float, settle_s: float
    ) -> None:
        self._server = server
        self._requests = requests
        self._seconds = seconds
        self._settle_s = settle_s
        self._log = ""
        self._exit_status: int | None = None
        self._tally = Tally()
        self._seen: list[Vitals] = []
        self._attacks: Counter[str] = Counter()
        self._hostile: Counter[str] = Counter()
        self._surprises: list[str] = []

    async def run(self) -> None:
        """Do everything at once for as long as it takes, and stop the server."""
        end_s = time.monotonic() + self._seconds
        async with watched(self._server.process.pid, every_s=5) as self._seen:
            await asyncio.gather(
                ask_in_turn(
                    self._server.url,
                    self._requests,
                    _CLIENTS,
                    self._seconds,
                    self._tally,
                    pause_s=_PAUSE_SECONDS,
                ),
                self._give_up(end_s),
                self._attack(end_s),
                self._send_hostile_requests(end_s),
                self._tell(end_s),
            )
            await asyncio.sleep(self._settle_s)
        self._exit_status = await asyncio.to_thread(self._server.stop)
        self._log = self._server.log

    async def _give_up(self, end_s: float) -> None:
        async with session() as client:
            while time.monotonic() < end_s:
                await abandon(client, self._server.url, self._requests.draw())
                await asyncio.sleep(0.5)

    async def _attack(self, end_s: float) -> None:
        rng = random.Random(3)
        while (left_s := end_s - time.monotonic()) > 0:
            attack, clients = rng.choice(_ATTACKS)
            async with attacking(Target(self._server.url), attack, clients=clients):
                await asyncio.sleep(min(20, left_s))
            self._attacks[attack.__name__] += 1
            await asyncio.sleep(min(10, left_s))

    async def _send_hostile_requests(self, end_s: float) -> None:
        rng = random.Random(5)
        every = corpus()
        while time.monotonic() < end_s:
            hostile = rng.choice(every)
            status = await asyncio.to_thread(_status_of, self._server, hostile)
            # A fault may be injected meanwhile, as into any other request.
            as_documented = status in (hostile.status, 500, 503)
            self._hostile["as documented" if as_documented else "otherwise"] += 1
            if not as_documented:
                self._surprises.append(f"{hostile.name}: {status} instead of {hostile.status}")
            await asyncio.sleep(3)

    async def _tell(self, end_s: float) -> None:
        while time.monotonic() < end_s:
            await asyncio.sleep(min(60, self._seconds))
            click.echo(f"{self._seen[-1]} {dict(self._tally.outcomes)} {self._surprises}")

    @property
    def faults(self) -> Counter[str]:
        """How often each fault was injected."""
        return Counter(event for event in self._events() if event.startswith("injected _"))

    @property
    def passed(self) -> bool:
        """Whether every response was right; growth is for people to judge."""
        outcomes = self._tally.outcomes
        right = bool(outcomes[RIGHT]) and not outcomes[WRONG]
        return right and not self._surprises and self._exit_status == 0

    def report(self) -> str:
        """What happened, in Markdown."""
        lines = [json.loads(line) for line in self._log.splitlines()]
        errors = Counter(
            re.sub("request [0-9a-f]+: [A-Z]+ [/a-z0-9-]+", "a request", line["event"])
            for line in lines
            if "exception" in line and "injected on purpose" not in line["exception"]
        )
        outcomes = dict(self._tally.outcomes.most_common())
        return "\n".join(
            [
                f"{self._seconds / 60:.0f} minutes, the demo model on {machine_name()}, with the "
                "load on the same cores.",
                "",
                f"- {len(self._tally.asked)} requests: {outcomes}; {outcomes.get(WRONG, 0)} wrong "
                f"responses. p50 {self._tally.milliseconds(50):.0f} ms, "
                f"p99 {self._tally.milliseconds(99):.0f} ms.",
                f"- Faults injected into the encoder: {dict(self.faults)}. Other errors in the "
                f"log: {dict(errors)}.",
                f"- Attacks of 20 s: {dict(self._attacks)}.",
                f"- Hostile requests: {dict(self._hostile)} {self._surprises or ''}",
                f"- Resident memory: {self._growth('memory_mib')} MiB; open files: "
                f"{self._growth('open_files')}; threads: {self._growth('threads')}.",
                f"- Exit status after SIGTERM: {self._exit_status}.",
                "",
            ]
        )

    def _events(self) -> Iterator[str]:
        return (json.loads(line)["event"] for line in self._log.splitlines())

    def plot(self, to: Path) -> None:
        """Vitals and rates over time."""
        right = [each.ended_s for each in self._tally.asked if each.outcome == RIGHT]
        others = [each.ended_s for each in self._tally.asked if each.outcome != RIGHT]
        rates = {"right": _rates(right), "refused or failed": _rates(others)}
        plot_vitals(self._seen, rates, f"{self._seconds / 60:.0f} minutes of everything", to)

    def _growth(self, what: str) -> str:
        """Medians of the second and of the last sixth of the time."""
        values = [float(getattr(each, what)) for each in self._seen]
        sixth = max(1, len(values) // 6)
        second, last = np.median(values[sixth : 2 * sixth] or values), np.median(values[-sixth:])
        return (
            f"{second:.0f} in the second sixth, {last:.0f} in the last, {max(values):.0f} at most"
        )


def _status_of(server: Server, hostile: Hostile) -> int | None:
    with contextlib.suppress(OSError, http.client.HTTPException):
        return send(server, hostile).status
    return None


def _rates(ended_s: Sequence[float], every_s: float = 10.0) -> list[tuple[float, float]]:
    """How many ended a second, for each ten seconds."""
    if not ended_s:
        return []
    edges = np.arange(min(ended_s), max(ended_s) + every_s, every_s)
    counts, _ = np.histogram(ended_s, edges)
    return [
        (float(edge), float(count) / every_s) for edge, count in zip(edges, counts, strict=False)
    ]


if __name__ == "__main__":
    main()
