"""Sends the corpus and prints what each request cost: `python -m checks.hostile [name]`."""

import sys
import tempfile
from pathlib import Path

from tests.support.hostile_corpus import corpus
from tests.support.hostile_measuring import Prober, measured
from tests.support.servers import demo_server


def main(wanted: str) -> None:
    """A row for each request whose name contains ``wanted``, the slowest first."""
    rows = []
    with (
        tempfile.TemporaryDirectory() as folder,
        demo_server(Path(folder) / "log") as server,
        Prober(server).running() as prober,
    ):
        for hostile in corpus():
            if wanted in hostile.name:
                response, cost = measured(server, prober, hostile)
                rows.append((hostile, response.status, cost))
                as_documented = response.status == hostile.status
                print("." if as_documented else f"\n{hostile.name}: {response}\n", end="")  # noqa: T201
                sys.stdout.flush()
    rows.sort(key=lambda row: row[2].seconds, reverse=True)
    print("\n\n| request | to | status | ms | MiB | /health, ms |")  # noqa: T201
    print("| --- | --- | ---: | ---: | ---: | ---: |")  # noqa: T201
    for hostile, status, cost in rows:
        print(  # noqa: T201
            f"| {hostile.name} | {hostile.path[:20]} | {status} | {cost.seconds * 1000:.0f} "
            f"| {cost.mebibytes:.0f} | {cost.pause_s * 1000:.0f} |"
        )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
