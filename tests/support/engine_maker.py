"""The process that makes engines, on a stand-in for TensorRT.

With a path as its argument it writes its number there once it builds, and builds for ever.
"""

import os
import sys
from pathlib import Path

from adapters.encoders.engine_making import main
from tests.support.engines import Workshop


class Slow(Workshop):
    """Never finishes."""

    def build(self, *arguments: object, **more: object) -> None:
        Path(sys.argv[1]).write_text(str(os.getpid()))
        self.gate.clear()
        self.gate.wait()


if __name__ == "__main__":
    workshop = Slow() if len(sys.argv) > 1 else Workshop()
    status = main(workshop.engines_at)
    sys.stdout.flush()
    os._exit(status)
