"""A camera's videos of a small scene, made with ffmpeg."""

import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from tests.support.footage import scene

FRAMES_A_SECOND: Final = 5
SIZE: Final = (320, 240)

Scene = Callable[[float], Image.Image]
"""What the camera sees so many seconds after the beginning."""


class Weather:
    """Rain, the noise of a sensor, and a tree that sways: no two frames are the same."""

    def __init__(self, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)

    def frame(self, *, light: float = 1.0, visitor: str | None = None) -> Image.Image:
        picture = scene(light=light, sway=int(self._random.integers(-2, 3)), visitor=visitor)
        levels = np.asarray(picture).astype(np.int64)
        for _ in range(60):
            x, y = self._random.integers(0, SIZE[0]), self._random.integers(0, SIZE[1] - 12)
            levels[y : y + 12, x] += round(40 * light)
        levels += self._random.integers(-4, 5, levels.shape)
        return Image.fromarray(levels.clip(0, 255).astype(np.uint8))


def covered() -> Image.Image:
    """What a camera sees with its lens covered."""
    return Image.new("RGB", SIZE, "#060606")


def frames(seen: Scene, *, seconds: float) -> Iterator[Image.Image]:
    for number in range(round(seconds * FRAMES_A_SECOND)):
        yield seen(number / FRAMES_A_SECOND)


def write_video(path: Path, pictures: Iterable[Image.Image], *options: str) -> Path:
    """Encode pictures as ffmpeg does by default for the file's suffix."""
    command = [
        *("ffmpeg", "-nostdin", "-loglevel", "error", "-y"),
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{SIZE[0]}x{SIZE[1]}"),
        *("-r", str(FRAMES_A_SECOND), "-i", "-", *options, str(path)),
    ]
    # ffmpeg is told not to read commands from standard input; the pictures come by it.
    with subprocess.Popen(command, stdin=subprocess.PIPE) as ffmpeg:
        assert ffmpeg.stdin is not None
        for picture in pictures:
            ffmpeg.stdin.write(picture.tobytes())
        ffmpeg.stdin.close()
        assert ffmpeg.wait(timeout=60) == 0
    return path
