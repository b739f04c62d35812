"""``python -m benchmarks.searching``: search of a million embeddings beside numpy, FAISS, USearch.

Each way runs in a process of its own, one after the other, so that its peak memory is its own.
"""

import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import click
import numpy as np

from adapters.bulk.index_files import NpzIndex
from adapters.bulk.table_formats import Row, Table, writer_for
from application.use_cases.search import most_similar
from benchmarks.machine import machine_name

DIMENSION: Final = 768
TOP: Final = 10
QUERIES: Final = 10
_CENTRES: Final = 20_000
_CHUNK: Final = 10_000
_TRAINING: Final = 50_000
_LISTS_SEARCHED: Final = 64

Search = Callable[[np.ndarray], list[int]]
"""From a query's vector to the numbers of the rows that are most like it."""


@click.command()
@click.option("--work", type=click.Path(path_type=Path), default=Path(".bench"), show_default=True)
@click.option("--rows", type=int, default=1_000_000, show_default=True)
@click.option("--way", hidden=True)
def main(*, work: Path, rows: int, way: str | None) -> None:
    """Search embeddings that lie in groups, as photos do, and compare time, memory and results."""
    path = work / f"embeddings-{rows}.npz"
    if way is not None:
        click.echo(json.dumps(_measure(way, path)))
        return
    if not path.exists():
        work.mkdir(exist_ok=True)
        _write(path, rows)
    found = {way: _in_own_process(way, work, rows) for way in WAYS}
    exact = found["clip-server search"]["rows"]
    click.echo(f"{rows} embeddings of {DIMENSION} numbers; {machine_name()}\n")
    click.echo("| | first result from the file | each further one | peak memory | recall at 10 |")
    click.echo("| --- | --- | --- | --- | --- |")
    for name, result in found.items():
        if result is None:
            click.echo(f"| {name} | not installed | | | |")
            continue
        recall = np.mean(
            [len({*one} & {*other}) / TOP for one, other in zip(exact, result["rows"], strict=True)]
        )
        click.echo(
            f"| {name} | {result['first_s']:.1f} s | {result['further_s']:.3f} s "
            f"| {result['peak_mib']:.0f} MiB | {recall:.3f} |"
        )


def _write(path: Path, rows: int) -> None:
    centres = np.random.default_rng(0).standard_normal((_CENTRES, DIMENSION), dtype=np.float32)

    def chunk(start: int) -> list[Row]:
        random = np.random.default_rng((1, start))  # the same each time it is asked for
        count = min(_CHUNK, rows - start)
        vectors = centres[random.integers(0, _CENTRES, count)]
        vectors = vectors + random.standard_normal((count, DIMENSION), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return [Row(f"{start + place}.jpg", vector, None) for place, vector in enumerate(vectors)]

    def chunks() -> Iterator[list[Row]]:
        return (chunk(start) for start in range(0, rows, _CHUNK))

    writer_for(path)(Table("benchmark", DIMENSION, rows, chunks), path)


def _queries(path: Path) -> np.ndarray:
    """Vectors that lie near some of the rows."""
    first = next(iter(NpzIndex(path).blocks())).vectors[:QUERIES]
    noise = np.random.default_rng(1).standard_normal(first.shape, dtype=np.float32)
    vectors = first + 0.5 * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def _in_own_process(way: str, work: Path, rows: int) -> Any:
    package = {"faiss": "faiss", "USearch": "usearch"}.get(way.partition(",")[0])
    if package is not None and importlib.util.find_spec(package) is None:
        return None
    command = [sys.executable, "-m", "benchmarks.searching", "--work", str(work)]
    command += ["--rows", str(rows), "--way", way]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
    return json.loads(done.stdout.splitlines()[-1])


def _measure(way: str, path: Path) -> dict[str, Any]:
    queries = _queries(path)
    start = time.perf_counter()
    search = WAYS[way](path)
    rows = [search(queries[0])]
    first_s = time.perf_counter() - start
    start = time.perf_counter()
    rows += [search(query) for query in queries[1:]]
    return {
        "rows": rows,
        "first_s": first_s,
        "further_s": (time.perf_counter() - start) / (QUERIES - 1),
        "peak_mib": _peak_mib(),
    }


def _peak_mib() -> float:
    """Of this process; what the system says of its resources begins with its parent's."""
    (peak,) = (
        line.split()[1]
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM:")
    )
    return int(peak) / 1024


def _ours(path: Path) -> Search:
    index = NpzIndex(path)

    def search(query: np.ndarray) -> list[int]:
        matches = most_similar(index, query, TOP).matches
        return [int(match.path.removesuffix(".jpg")) for match in matches]

    return search


def _vectors(path: Path) -> np.ndarray:
    with np.load(path) as file:
        return np.asarray(file["embedding"])


def _numpy(path: Path) -> Search:
    vectors = _vectors(path)

    def search(query: np.ndarray) -> list[int]:
        cosines = vectors @ query
        best = np.argpartition(-cosines, TOP)[:TOP]
        return [int(row) for row in best[np.argsort(-cosines[best])]]

    return search


def _faiss(path: Path) -> Search:
    import faiss

    index = faiss.IndexFlatIP(DIMENSION)
    index.add(_vectors(path))
    return lambda query: [int(row) for row in index.search(query[None], TOP)[1][0]]


def _faiss_in_lists(path: Path) -> Search:
    import faiss

    vectors = _vectors(path)
    index: Any = faiss.index_factory(DIMENSION, "IVF1024,SQ8", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors[:: max(len(vectors) // _TRAINING, 1)])
    index.add(vectors)
    index.nprobe = _LISTS_SEARCHED
    return lambda query: [int(row) for row in index.search(query[None], TOP)[1][0]]


def _usearch(path: Path) -> Search:
    from usearch.compiled import MetricKind
    from usearch.index import search

    vectors = _vectors(path)
    return lambda query: [
        int(row) for row in search(vectors, query, TOP, metric=MetricKind.IP, exact=True).keys
    ]


WAYS: Final[dict[str, Callable[[Path], Search]]] = {
    "clip-server search": _ours,
    "numpy, all in memory": _numpy,
    "USearch, exact": _usearch,
    "faiss, exact": _faiss,
    f"faiss, {_LISTS_SEARCHED} of 1024 lists of 8-bit codes": _faiss_in_lists,
}


if __name__ == "__main__":
    main()
