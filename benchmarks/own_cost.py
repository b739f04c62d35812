"""``python -m benchmarks.own_cost``: the server's own cost, with an encoder that computes nothing.

For each number of HTTP processes and each kind of picture: requests a second, and processor time
for each request, beside the time of the JPEG decoder alone at the size that the server has it
decode. The load comes from a process of its own and takes its share of the cores.
"""

import io
import logging
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import click
from PIL import Image

from benchmarks.contestants import ours
from benchmarks.machine import machine_name
from benchmarks.running import RunningContestant, started
from domain.limits import IMAGE_SIZE

logger = logging.getLogger("benchmarks")

_SIZES: Final = ((224, 224), (640, 480), (1280, 720), (1920, 1080))
_CONCURRENCY: Final = 32
_FLOOR_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one kind of picture before so many processes.

    Attributes:
        per_second: requests.
        cpu_ms: processor time of all the server's processes for each request.
    """

    per_second: float
    cpu_ms: float


def photo(width: int, height: int) -> bytes:
    """A real photo as a JPEG of this size."""
    from sklearn.datasets import load_sample_image

    file = io.BytesIO()
    picture = Image.fromarray(load_sample_image("china.jpg")).resize((width, height))
    picture.save(file, "JPEG", quality=85)
    return file.getvalue()


def decoder_ms(data: bytes) -> float:
    """Processor time of the JPEG decoder alone, at the smallest scale that fills the model."""
    times: list[float] = []
    until = time.perf_counter() + _FLOOR_SECONDS
    while time.perf_counter() < until:
        start = time.thread_time()
        with Image.open(io.BytesIO(data)) as image:
            image.draft("RGB", (IMAGE_SIZE, IMAGE_SIZE))
            image.load()
        times.append(time.thread_time() - start)
    return median(times) * 1000


def cost(server: RunningContestant, data: bytes, seconds: float) -> Cost:
    """Ask for embeddings of one picture, again and again."""
    measured = server.measure(
        server.contestant.embed,
        [server.contestant.embed_body(data)],
        concurrency=_CONCURRENCY,
        seconds=seconds,
    )
    assert not measured.result.failures, "the server refused what it should have taken"
    requests = len(measured.result.latencies_s)
    return Cost(requests / measured.result.elapsed_s, measured.cpu_s / requests * 1000)


@click.command()
@click.option("--processes", type=int, multiple=True, default=(1, 2), show_default=True)
@click.option("--seconds", type=float, default=5.0, show_default=True, help="Of each load.")
@click.option("--rounds", type=int, default=3, show_default=True)
def main(*, processes: Sequence[int], seconds: float, rounds: int) -> None:
    """Print a table of what the server itself costs."""
    logging.basicConfig(level=logging.WARNING)
    photos = {f"{width} x {height}": photo(width, height) for width, height in _SIZES}
    found: dict[tuple[str, int], list[Cost]] = {}
    floors: dict[str, list[float]] = {name: [] for name in photos}
    with tempfile.TemporaryDirectory() as directory:
        for _ in range(rounds):
            for count in processes:
                server = ours(
                    f"{count} processes",
                    Path(directory),
                    CLIP_ENCODER="fake",
                    CLIP_HTTP_PROCESSES=str(count),
                    CLIP_MAX_REQUESTS=str(4 * _CONCURRENCY),
                    CLIP_LOG_LEVEL="warning",
                )
                with started(server, Path(directory)) as running:
                    cost(running, next(iter(photos.values())), 1.0)
                    for name, data in photos.items():
                        floors[name].append(decoder_ms(data))
                        found.setdefault((name, count), []).append(cost(running, data, seconds))
    click.echo(f"{machine_name()}, median of {rounds} rounds, {_CONCURRENCY} requests at once\n")
    click.echo("| JPEG | HTTP processes | requests a second | processor time | of the decoder's |")
    click.echo("| --- | --- | --- | --- | --- |")
    for (name, count), costs in sorted(
        found.items(), key=lambda each: list(photos).index(each[0][0])
    ):
        floor = median(floors[name])
        cpu = median(each.cpu_ms for each in costs)
        rate = median(each.per_second for each in costs)
        click.echo(
            f"| {name} | {count} | {rate:.0f} | {cpu:.2f} ms | {cpu / floor:.1f} x {floor:.2f} ms |"
        )


if __name__ == "__main__":
    main()
