"""A process that loads an engine and may crash: ``PATH FINGERPRINT TENSORRT HOW``.

``TENSORRT`` is its package's name. ``HOW`` is ``load`` or ``run``, in which TensorRT's stand-in
crashes; ``killed``, where the process is killed meanwhile; or ``well``.
"""

import ctypes
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from adapters.encoders.tensorrt.engines import Installation
from adapters.encoders.tensorrt.library import TensorRt
from adapters.models.precision import Precision
from application.ports import CLIPS_INPUT, PixelBatch, RawEmbeddings
from tests.support.engines import GPU, TENSORRT, OnnxRunner, Workshop


class Crashing(OnnxRunner):
    """Aborts at its first call, as a library does when an assertion fails."""

    def run(self, batch: PixelBatch) -> RawEmbeddings:
        os.abort()


class Faulty(Workshop):
    """Engines that end the process."""

    def run(self, tensorrt: TensorRt, data: bytes, runtime_cache: Path | None = None) -> OnnxRunner:
        match sys.argv[4]:
            case "load":
                ctypes.string_at(0)  # reads where nothing is
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "run":
                rest = data[len(self._header(tensorrt)) :]
                return Crashing(rest[1:], rest[0])
        return super().run(tensorrt, data, runtime_cache)


if __name__ == "__main__":
    workshop = Faulty(Installation(replace(TENSORRT, name=sys.argv[3]), GPU))
    engines = workshop.engines_at(Path(sys.argv[1]), Precision.FP16, 4)
    engines.load(sys.argv[2], CLIPS_INPUT).close()
