"""How much other clients notice of each attack: ``python -m checks.endurance.hostile_clients``.

Writes ``hostile-clients.md``.
"""

import asyncio
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from adapters.encoders.selection import EncoderChoice, EncoderSelection
from benchmarks.machine import machine_name
from checks.endurance import REPORTS, attackers
from checks.endurance.attackers import Attack, Target, attacking
from checks.endurance.known_requests import KnownRequest, KnownRequests
from checks.endurance.load import RIGHT, WRONG, Tally, ask_steadily
from checks.endurance.vitals import watched
from tests.support.photos import as_file, photos
from tests.support.servers import SERVE, Server, running, wait_for

_RATE: Final = 20.0
_ATTACKS: Final[Sequence[tuple[Attack, int, str]]] = (
    (attackers.stay_idle, 2000, "idle connections"),
    (attackers.drip_head, 500, "heads that never end, two bytes a second"),
    (attackers.drip_body, 500, "bodies that never end, two bytes a second"),
    (attackers.send_half_a_large_body, 20, "15 MB of a body of 16, then nothing"),
    (attackers.never_read, 20, "responses of 8 MB that nobody reads"),
    (attackers.pipeline_half_requests, 50, "20 requests and half of another at once"),
    (attackers.send_endless_headers, 8, "endless headers"),
    (attackers.send_one_endless_header, 8, "one endless header"),
    (attackers.send_endless_trailers, 8, "endless trailers"),
    (attackers.hang_up_while_encoding, 20, "requests that are abandoned after 20 ms"),
    (attackers.talk_nonsense, 20, "bytes that are not HTTP"),
)


@click.command()
@click.option("--seconds", default=20, show_default=True, help="How long each attack lasts.")
@click.option("--output", type=click.Path(path_type=Path), default=REPORTS, show_default=True)
def main(seconds: int, output: Path) -> None:
    """Attack a server with the demo model, with one kind of attack after the other."""
    output.mkdir(parents=True, exist_ok=True)
    encoder = EncoderSelection(EncoderChoice.OPENVINO, "builtin:demo", 768, cache=None).load()
    files = [as_file(picture.resize((320, 240))) for picture in photos().values()]
    known = KnownRequests(random.Random(7), encoder, files)
    requests = [known.draw() for _ in range(200)]
    settings = {"CLIP_MODEL_PATH": "builtin:demo", "CLIP_ENCODER": "openvino"}
    with (
        tempfile.TemporaryDirectory() as scratch,
        running(SERVE, Path(scratch) / "log", **settings) as server,
    ):
        wait_for(server, "/health/ready")
        report = asyncio.run(_measure(server, requests, seconds))
        assert "Traceback" not in server.log
        assert server.stop() == 0
    (output / "hostile-clients.md").write_text(report, encoding="utf-8")
    click.echo(report)


async def _measure(server: Server, requests: Sequence[KnownRequest], seconds: int) -> str:
    lines = [
        f"The demo model on {machine_name()}, shared with the attackers and other clients. The "
        f"others sent {_RATE:.0f} mixed requests a second all the time.",
        "",
        "| attack | clients | others: succeeded | p50, p99 before | p50, p99 meanwhile | memory "
        "| open files |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for attack, clients, what in _ATTACKS:
        before, during = Tally(), Tally()
        await ask_steadily(server.url, requests, _RATE, seconds, before)
        async with (
            watched(server.process.pid) as seen,
            attacking(Target(server.url), attack, clients=clients),
        ):
            await asyncio.sleep(1)
            await ask_steadily(server.url, requests, _RATE, seconds, during)
        assert during.outcomes[WRONG] == 0
        row = (
            f"| {what} | {clients} | {during.outcomes[RIGHT]} of {len(during.asked)} "
            f"| {before.milliseconds(50):.0f}, {before.milliseconds(99):.0f} ms "
            f"| {during.milliseconds(50):.0f}, {during.milliseconds(99):.0f} ms "
            f"| {max(each.memory_mib for each in seen):.0f} MiB "
            f"| {max(each.open_files for each in seen)} |"
        )
        click.echo(row + str(dict(during.outcomes)))
        lines.append(row)
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
