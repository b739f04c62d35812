"""Decodes mutated files of all six formats under the limits of a decoder:
`python -m checks.fuzz.pictures [--runs N] [--seed N] [--formats GIF,BMP]`.

Each is pixels, one of the domain's errors, or over the memory limit, within the time that a
decoder has.
"""

import argparse
import resource
import sys
import time
from pathlib import Path

from adapters.images.picture import decode_picture
from domain.errors import InvalidInput
from domain.limits import IMAGE_FORMATS, MAX_DECODING_BYTES, MAX_DECODING_CPU_SECONDS
from tests.support.mutated_pictures import mutations

_FOLDER = Path(".fuzz")


def main() -> int:
    """How many files broke an assertion; each is kept in `.fuzz/`."""
    parser = argparse.ArgumentParser(prog="python -m checks.fuzz.pictures")
    parser.add_argument("--runs", type=int, default=100_000, help="files of each format")
    parser.add_argument("--seed", type=int, default=0, help="the same one makes the same files")
    parser.add_argument("--formats", default=",".join(IMAGE_FORMATS), help="only these")
    asked = parser.parse_args()
    _limit_memory()
    broken = 0
    for file_format in asked.formats.split(","):
        decoded = over_budget = 0
        slowest_s = 0.0
        for place, data in enumerate(mutations(file_format, asked.runs, seed=asked.seed)):
            started_s = time.process_time()
            problem = ""
            try:
                decoded += decode_picture(data).shape == (224, 224, 3)
            except InvalidInput:
                pass
            except MemoryError:  # the budget; a decoder says that the picture is too expensive
                over_budget += 1
            except BaseException as unexpected:
                problem = repr(unexpected)
            taken_s = time.process_time() - started_s
            slowest_s = max(slowest_s, taken_s)
            if problem or taken_s > MAX_DECODING_CPU_SECONDS:
                broken += 1
                _FOLDER.mkdir(exist_ok=True)
                (_FOLDER / f"{file_format}-{place}").write_bytes(data)
                print(f"{file_format} {place}: {problem or taken_s}", flush=True)  # noqa: T201
        print(  # noqa: T201
            f"{file_format}: {asked.runs} files, {decoded} decoded, "
            f"{over_budget} over the memory limit, the slowest {slowest_s:.2f} s, "
            f"at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB",
            flush=True,
        )
    return broken


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MAX_DECODING_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


if __name__ == "__main__":
    sys.exit(main() > 0)
