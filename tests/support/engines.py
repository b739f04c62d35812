"""Stand-ins for TensorRT and a GPU: engines that really compute, on ONNX Runtime.

An "engine" of these is the exported graph with its weights in one file behind a header. All else
is the real thing: export, lock, sidecar, judging, encoder.
"""

import tempfile
import threading
import types
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx

from adapters.encoders.cuda import Gpu, OutOfDeviceMemory
from adapters.encoders.engine_making import Commission, make
from adapters.encoders.onnxruntime.towers import open_session
from adapters.encoders.tensorrt.engine_file import BatchRange, EngineUnusable
from adapters.encoders.tensorrt.engines import Installation, TensorRtEngines
from adapters.encoders.tensorrt.library import TensorRt
from adapters.encoders.tensorrt.runner import EngineRunner
from adapters.images.preprocessing import write_nearest_levels
from adapters.models.precision import Precision
from application.ports import EncoderLost, PixelBatch, RawEmbeddings
from domain.embedding import Embedding

TENSORRT = TensorRt("tensorrt", "11.4.0", types.ModuleType("tensorrt"))
GPU = Gpu("NVIDIA Test", "8.9", "00000000:01:00.0", 58, "580")
HEADER = b"engine of "


class OnnxRunner(EngineRunner):
    """Runs such an engine and records every batch.

    ``room`` is for how many images there is memory; ``lost`` makes the device fail.
    """

    def __init__(self, data: bytes, largest_batch: int) -> None:
        self._session = open_session(data)
        self._largest_batch = largest_batch
        self.batches: list[int] = []
        self.room = largest_batch
        self.lost = False
        self.wrong_at: int | None = None
        self.closed = False
        self._lock = threading.Lock()

    @property
    def largest_batch(self) -> int:
        return self._largest_batch

    def run(self, batch: PixelBatch) -> RawEmbeddings:
        assert 1 <= len(batch) <= self._largest_batch
        if self.lost:
            raise EncoderLost("the GPU failed: cudaErrorIllegalAddress in cudaStreamSynchronize.")
        if len(batch) > self.room:
            raise OutOfDeviceMemory(f"no room for {len(batch)} images")
        assert not self.closed
        with self._lock:
            self.batches.append(len(batch))
        taken = batch
        if self._session.get_inputs()[0].type == "tensor(uint8)":
            taken = np.empty(batch.shape, dtype=np.uint8)
            write_nearest_levels(batch, taken)  # type: ignore[arg-type]
        (rows,) = self._session.run(None, {"pixel_values": taken})
        return -np.asarray(rows) if len(batch) == self.wrong_at else np.asarray(rows)

    def close(self) -> None:
        self.closed = True


class Workshop:
    """Builds and runs such engines for one machine; counts what it does.

    ``gate`` holds a build back; ``spoil`` changes the graph, as a faulty build would, and
    ``spoil_fused`` does it where attention is fused; the next ``refusals`` engines are not loaded;
    ``wrong_at`` is a batch size at which engines compute nonsense, ``lost`` makes the device fail.
    """

    def __init__(self, installation: Installation | Exception | None = None) -> None:
        self.installation = installation or Installation(TENSORRT, GPU)
        self.built: list[BatchRange] = []
        self.fused: list[bool] = []
        self.runners: list[OnnxRunner] = []
        self.gate = threading.Event()
        self.gate.set()
        self.refusals = 0
        self.spoil: Callable[[onnx.ModelProto], None] = lambda model: None
        self.spoil_fused: Callable[[onnx.ModelProto], None] = lambda model: None
        self.wrong_at: int | None = None
        self.lost = False

    def engines_at(self, path: Path, precision: Precision, largest_batch: int) -> TensorRtEngines:
        return TensorRtEngines(
            path, precision, largest_batch, find=self.find, build=self.build, run=self.run
        )

    def find(self) -> Installation:
        if isinstance(self.installation, Exception):
            raise self.installation
        return self.installation

    def build(
        self,
        tensorrt: TensorRt,
        onnx_file: Path,
        engine: Path,
        *,
        batch: BatchRange,
        fused_attention: bool,
        timing_cache: Path | None,
    ) -> None:
        assert self.gate.wait(60)
        self.built.append(batch)
        self.fused.append(fused_attention)
        model = onnx.load(onnx_file)
        self.spoil(model)
        if fused_attention:
            self.spoil_fused(model)
        engine.write_bytes(
            self._header(tensorrt) + bytes([batch.largest]) + model.SerializeToString()
        )

    def run(self, tensorrt: TensorRt, data: bytes, runtime_cache: Path | None = None) -> OnnxRunner:
        header = self._header(tensorrt)
        if self.refusals:
            self.refusals -= 1
            raise EngineUnusable("tensorrt refuses the engine; its log says why.")
        if not data.startswith(header):
            raise EngineUnusable("the engine is another version's")
        rest = data[len(header) :]
        self.runners.append(OnnxRunner(rest[1:], rest[0]))
        self.runners[-1].wrong_at, self.runners[-1].lost = self.wrong_at, self.lost
        return self.runners[-1]

    def make(self, commission: Commission, expected: Sequence[Embedding] | None = None) -> None:
        """As `make_in_a_process`, but in this one."""
        engines = self.engines_at(commission.engine, commission.precision, commission.largest_batch)
        with tempfile.TemporaryDirectory() as scratch:
            place = ""
            if expected is not None:
                place = f"{scratch}/expected.npy"
                np.save(place, np.stack([each.vector for each in expected]))
            words = {**asdict(commission), "engine": str(commission.engine), "expected": place}
            make(words, lambda *_: engines)

    def _header(self, tensorrt: TensorRt) -> bytes:
        return HEADER + tensorrt.identity.encode()
