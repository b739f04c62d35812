"""Fuzzes with atheris: `python -m checks.fuzz [--runs N] [--seed N] [target ...]`.

What makes a target fail is kept in `.fuzz/`, and so is what it found on the way.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Final

TARGETS: Final = ("image", "json_body", "form", "text", "safetensors")
FOLDER: Final = Path(".fuzz")


def main() -> int:
    """One after the other; how many failed."""
    parser = argparse.ArgumentParser(prog="python -m checks.fuzz")
    parser.add_argument("targets", nargs="*", metavar="target", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--runs", type=int, default=20_000, help="inputs for each target")
    parser.add_argument("--seed", type=int, default=7, help="the same one makes the same inputs")
    asked = parser.parse_args()
    if unknown := set(asked.targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    failed = []
    for target in asked.targets or TARGETS:
        corpus = FOLDER / target
        corpus.mkdir(parents=True, exist_ok=True)
        print(f"{target}: {asked.runs} runs", flush=True)  # noqa: T201
        arguments = [target, str(asked.runs), str(asked.seed), str(corpus)]
        # libFuzzer ends the process that it runs in.
        if subprocess.call([sys.executable, "-m", "checks.fuzz.driver", *arguments]) != 0:
            failed.append(target)
    print(f"failed: {', '.join(failed) or 'none'}", flush=True)  # noqa: T201
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
