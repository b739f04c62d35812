"""Runs one target: `python -m checks.fuzz.driver TARGET RUNS SEED CORPUS`. Ends the process."""

import importlib
import sys
from pathlib import Path
from typing import Final

import atheris

INSTRUMENTED: Final = {
    "image": ["PIL", "adapters"],
    "json_body": ["entrypoints.http", "domain"],
    "form": ["entrypoints.http.bodies", "multipart"],
    "text": ["adapters.models.tokenizer", "ftfy"],
    "safetensors": ["adapters.models", "json"],
}
"""The targets, and whose branches lead each one to inputs that are worth keeping."""


def main(name: str, runs: str, seed: str, corpus: Path) -> None:
    """Fuzz until it has run so often or something is wrong."""
    with atheris.instrument_imports(include=INSTRUMENTED[name]):
        target = importlib.import_module(f"checks.fuzz.targets.{name}")
    for place, data in enumerate(target.seeds()):
        (corpus / f"seed-{place}").write_bytes(data)
    atheris.Setup(
        [
            sys.argv[0],
            str(corpus),
            f"-runs={runs}",
            f"-seed={seed}",
            "-timeout=60",
            "-rss_limit_mb=2000",
            "-max_len=20000",
            "-print_final_stats=1",
            f"-artifact_prefix={corpus.parent}/{name}-",
        ],
        target.run,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4]))
