"""The encoders alone, called in a loop without a server: what a server could reach at best.

A process of its own for each, since two runtimes in one process fight over the cores. Prints one
JSON object: images a second by batch size.
"""

import json
import sys
import time
from pathlib import Path
from typing import Final

import numpy as np

from adapters.encoders.selection import EncoderChoice, EncoderSelection
from adapters.models.precision import Precision
from application.ports import EncoderPort

BATCHES: Final = (1, 8)


def images_a_second(encoder: EncoderPort, batch: int, seconds: float) -> float:
    """The rate over all calls in the given time, after two that do not count."""
    pixels = np.random.default_rng(0).standard_normal((batch, 3, 224, 224)).astype(np.float32)
    for _ in range(2):
        encoder.encode_images(pixels)
    calls, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        encoder.encode_images(pixels)
        calls += 1
    return calls * batch / elapsed


if __name__ == "__main__":
    choice, precision, streams, checkpoint, cache, seconds = sys.argv[1:]
    encoder = EncoderSelection(
        EncoderChoice(choice),
        checkpoint,
        768,
        precision=Precision(precision),
        openvino_streams=int(streams),
        cache=Path(cache),
    ).load()
    print(json.dumps({n: images_a_second(encoder, n, float(seconds)) for n in BATCHES}))  # noqa: T201
