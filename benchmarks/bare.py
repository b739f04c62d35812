"""The encoders alone, called in a loop without a server: what a server could reach at best.

A process of its own for each, since two runtimes in one process fight over the cores. Prints one
JSON object: images a second by batch size.
"""

import json
import sys
from pathlib import Path
from typing import Final

from adapters.encoders.measuring import images_a_second
from adapters.encoders.selection import EncoderChoice, EncoderSelection
from adapters.models.precision import Precision

BATCHES: Final = (1, 8)


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
