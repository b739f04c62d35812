"""``python -m benchmarks.own_cost``: the server's own cost, with an encoder that computes nothing.

For each number of HTTP processes and each kind of picture, sent in JSON: requests a second, and
processor time for each request, beside the time of the JPEG decoder alone at the size that the
server has it decode. The load comes from a process of its own and takes its share of the cores.
With ``--beside`` another checkout of this repository is measured in turn with this one.
"""

import io
import itertools
import logging
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final

import click
from PIL import Image

from adapters.system.hardware import usable_cores
from benchmarks.contestants import Contestant, ours
from benchmarks.machine import machine_name
from benchmarks.report import own_cost_table
from benchmarks.results import OwnCost, Round
from benchmarks.running import NotMeasured, RunningContestant, started
from domain.limits import IMAGE_SIZE

logger = logging.getLogger("benchmarks")

CAMERA_SIZES: Final = ((224, 224), (640, 480))
"""Of a tracker's crop and a camera's second stream."""

_SIZES: Final = (*CAMERA_SIZES, (1280, 720), (1920, 1080))
_CHECKOUT: Final = Path(__file__).parents[1]
_CONCURRENCY: Final = 32
_WARM_UP_S: Final = 1.0
_FLOOR_S: Final = 1.0
_ALONE_S: Final = 1.0


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
    until = time.perf_counter() + _FLOOR_S
    while time.perf_counter() < until:
        start = time.thread_time()
        with Image.open(io.BytesIO(data)) as image:
            image.draft("RGB", (IMAGE_SIZE, IMAGE_SIZE))
            image.load()
        times.append(time.thread_time() - start)
    return median(times) * 1000


def process_counts(cores: int) -> list[int]:
    """From 1 to the number of cores, doubling, so that many cores do not take the day."""
    counts = [1]
    while counts[-1] * 2 < cores:
        counts.append(counts[-1] * 2)
    return counts if cores == 1 else [*counts, cores]


def own_costs(
    sizes: Sequence[tuple[int, int]],
    processes: Sequence[int],
    *,
    seconds: float,
    rounds: int,
    beside: Path | None = None,
) -> list[OwnCost]:
    """Measure each kind of picture before each number of processes, in rounds.

    Args:
        sizes: width and height of each picture.
        processes: how many speak HTTP.
        seconds: of each load.
        rounds: how often each is measured.
        beside: another checkout, measured after this one in each round.

    Raises:
        NotMeasured: the server cannot be started, has ended or refuses requests.
    """
    photos = {f"{width} x {height}": photo(width, height) for width, height in sizes}
    checkouts = {"": _CHECKOUT} if beside is None else {"": _CHECKOUT, str(beside): beside}
    kinds = list(itertools.product(photos, processes, checkouts))
    costs = {kind: OwnCost(*kind) for kind in kinds}
    with tempfile.TemporaryDirectory() as directory:
        for _, count, (version, checkout) in itertools.product(
            range(rounds), processes, checkouts.items()
        ):
            with started(_server(count, checkout, Path(directory)), Path(directory)) as running:
                _ask(running, next(iter(photos.values())), _CONCURRENCY, _WARM_UP_S)
                for name, data in photos.items():
                    _add_round(costs[name, count, version], running, data, seconds)
    return list(costs.values())


def _server(count: int, checkout: Path, directory: Path) -> Contestant:
    return ours(
        f"{count} processes",
        directory,
        CLIP_ENCODER="fake",
        CLIP_HTTP_PROCESSES=str(count),
        CLIP_MAX_REQUESTS=str(4 * _CONCURRENCY),
        CLIP_LOG_LEVEL="warning",
        # Python would else import from where it is started, which is here.
        PYTHONPATH=str(checkout.resolve()),
        PYTHONSAFEPATH="1",
    )


def _add_round(cost: OwnCost, server: RunningContestant, data: bytes, seconds: float) -> None:
    cost.decoder_ms.append(decoder_ms(data))
    cost.alone_ms.append(median(_ask(server, data, 1, _ALONE_S).latencies_s) * 1000)
    busy = _ask(server, data, _CONCURRENCY, seconds)
    cost.per_second.append(busy.rate)
    cost.cpu_ms.append(busy.cpu_s / len(busy.latencies_s) * 1000)
    cost.memory = max(cost.memory, busy.peak_memory)
    logger.info(
        "own cost: %s, %d processes: %.0f a second", cost.picture, cost.processes, busy.rate
    )


def _ask(server: RunningContestant, data: bytes, at_once: int, seconds: float) -> Round:
    """Ask for embeddings of one picture, again and again."""
    body = server.contestant.embed_body(data)
    measured = server.measure(server.contestant.embed, [body], concurrency=at_once, seconds=seconds)
    if measured.failures or not measured.latencies_s:
        raise NotMeasured("the server refused what it should have taken")
    return measured


@click.command()
@click.option(
    "--processes", type=int, multiple=True, help="Up to the number of cores, unless told."
)
@click.option("--seconds", type=float, default=5.0, show_default=True, help="Of each load.")
@click.option("--rounds", type=int, default=3, show_default=True)
@click.option(
    "--beside",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Another checkout of this repository, to measure in the same run.",
)
def main(*, processes: Sequence[int], seconds: float, rounds: int, beside: Path | None) -> None:
    """Print a table of what the server itself costs."""
    logging.basicConfig(level=logging.WARNING)
    counts = processes or process_counts(usable_cores())
    costs = own_costs(_SIZES, counts, seconds=seconds, rounds=rounds, beside=beside)
    click.echo(f"{machine_name()}, median of {rounds} rounds, {_CONCURRENCY} requests at once\n")
    click.echo(own_cost_table(costs))


if __name__ == "__main__":
    main()
