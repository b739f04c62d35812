"""The encoders alone, called in a loop without a server: what a server could reach at best.

A process of its own for each, since two runtimes in one process fight over the cores. Prints one
JSON object: images a second by batch size.
"""

import json
import sys
from pathlib import Path
from typing import Final, NamedTuple

from adapters.encoders.measuring import images_a_second
from adapters.encoders.selection import EncoderChoice, EncoderSelection
from adapters.models.precision import Precision

BATCHES: Final = (1, 8)


class Bare(NamedTuple):
    """An encoder to be measured without a server; its name is that of its runtime."""

    name: str
    choice: EncoderChoice
    precision: Precision
    streams: int = 1


BARE: Final = (
    Bare("OpenVINO", EncoderChoice.OPENVINO, Precision.BF16),
    Bare("OpenVINO, 2 streams", EncoderChoice.OPENVINO, Precision.BF16, 2),
    Bare("OpenVINO", EncoderChoice.OPENVINO, Precision.INT8),
    Bare("OpenVINO, 2 streams", EncoderChoice.OPENVINO, Precision.INT8, 2),
    Bare("OpenVINO", EncoderChoice.OPENVINO, Precision.FP32),
    Bare("torch", EncoderChoice.TORCH, Precision.BF16),
    Bare("torch", EncoderChoice.TORCH, Precision.FP32),
)


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
