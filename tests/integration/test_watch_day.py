"""A day of a watched scene, as fast as it goes: nothing grows."""

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from adapters.watching.alarms import JsonLinesFile
from application.use_cases.watch import Scene, Watching, WatchScenes
from application.watch_ports import EmbeddedFrame, Frame, FrameEmbedderPort, FrameSourcePort
from domain.embedding import Embedding
from entrypoints.commands.watch_report import WatchReport
from tests.support.clock import FakeClock

EVERY_S = 2
FRAMES = 86_400 // EVERY_S
HOUR = 3600 // EVERY_S


def resident_bytes() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


class Day(FrameSourcePort):
    """Something stands there for half a minute every hour."""

    name, live = "yard", True

    def __init__(self) -> None:
        self.resident: list[int] = []
        self.files: list[int] = []
        self._number = 0

    def take(self) -> Frame | None:
        number = self._number
        if number == FRAMES:
            return None
        if number % HOUR == HOUR // 2:
            self.resident.append(resident_bytes())
            self.files.append(len(os.listdir("/proc/self/fd")))
        self._number += 1
        unusual = number > 100 and number % HOUR < 30 // EVERY_S
        return Frame(
            number=number,
            at=datetime.fromtimestamp(number * EVERY_S, UTC),
            at_s=number * EVERY_S,
            picture=bytes(50_000) + bytes([unusual]),
            brightness=0.5,
        )

    def close(self) -> None:
        pass


class Quick(FrameEmbedderPort):
    def __init__(self) -> None:
        self._random = np.random.default_rng(0)

    async def embed(self, picture: bytes, labels: Sequence[str]) -> EmbeddedFrame:
        vector = self._random.normal(scale=0.01, size=768)
        vector[picture[-1]] += 1
        return EmbeddedFrame(Embedding.from_encoder(vector), "f1", None)


async def test_a_day_leaves_memory_and_files_level(tmp_path: Path) -> None:
    day, alarms, output = Day(), tmp_path / "alarms.jsonl", tmp_path / "frames.jsonl"
    with WatchReport(json_wanted=False, output=output) as report:
        await WatchScenes(
            Quick(), Watching(), clock=FakeClock(), reporter=report, alarms=[JsonLinesFile(alarms)]
        )([Scene(day, [])])
    told = [json.loads(line) for line in alarms.read_text().splitlines()]
    assert [record["frame"] for record in told] == [hour * HOUR + 1 for hour in range(1, 24)]
    with output.open() as lines:
        assert sum(1 for _ in lines) == FRAMES
    assert len(day.resident) == 24
    assert max(day.files[1:]) == min(day.files[1:])
    assert max(day.resident[6:]) - day.resident[5] < 8 * 2**20
