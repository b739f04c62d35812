"""``make gpu-check``: checks everything that needs a GPU, and writes a report.

Builds engines of both precisions, compares them with PyTorch, measures speed and memory of both in
processes of their own, damages an engine, fills the GPU's memory, and lets a service switch over
under load. Writes ``gpu-report.md``; the exit status is 1 if anything is not as promised.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from adapters.encoders.cuda import Cuda, OutOfDeviceMemory
from adapters.encoders.reference import reference_embeddings
from adapters.encoders.tensorrt.engines import find_installation
from adapters.encoders.tensorrt_backend import TensorRtBackend
from adapters.images.photos import samples
from adapters.models.checkpoint import Checkpoint
from adapters.models.precision import Precision
from adapters.models.reading import read_checkpoint
from adapters.system.clock import SystemClock
from adapters.system.memory import SystemMemory
from application.inference.admission import Admission
from application.inference.batcher import Batcher
from application.model.supervisor import UPGRADING, Supervisor
from application.ports import Device, EncoderLoaderPort, EncoderPort, EncoderUnavailable
from domain.embedding import Embedding, smallest_cosine
from domain.limits import SMALLEST_COSINE

REPORT: Final = Path("gpu-report.md")
SPEED_UP: Final = 1.5
"""What TensorRT must be faster than PyTorch by, at least."""
_BATCHES: Final = (1, 4, 8)
_MIB: Final = 2**20
_CUDA: Final = Device("cuda:0", cuda_available=True)


@dataclass
class Report:
    """What was seen, line by line, and whether all of it was as promised."""

    lines: list[str] = field(default_factory=list)
    failures: int = 0

    def say(self, line: str) -> None:
        """Something that was measured."""
        self.lines.append(f"- {line}")
        print(line, flush=True)  # noqa: T201 - a person waits

    def check(self, promise: str, kept: bool, seen: str) -> None:
        """Something that was promised."""
        self.failures += not kept
        self.say(f"{'PASS' if kept else 'FAIL'} {promise}: {seen}")

    @contextmanager
    def section(self, title: str) -> Iterator[None]:
        """A part of the check; what it raises is a failure of its own."""
        self.lines += ["", f"## {title}", ""]
        try:
            yield
        except Exception as failure:  # the other sections are still worth running
            self.check(title, kept=False, seen=f"{type(failure).__name__}: {failure}")

    def write(self, path: Path) -> None:
        """Write it as Markdown."""
        verdict = "all as promised" if not self.failures else f"{self.failures} not as promised"
        path.write_text("\n".join([f"# GPU check: {verdict}", *self.lines, ""]), encoding="utf-8")


def embeddings_of(encoder: EncoderPort, at_once: int) -> list[Embedding]:
    """Embeddings of the samples, in batches of ``at_once``."""
    batch = samples(encoder.description.image_input)
    rows = [encoder.encode_images(batch[n : n + at_once]) for n in range(0, len(batch), at_once)]
    return [Embedding.from_encoder(row) for row in np.concatenate(rows)]


def check_parity(report: Report, encoder: EncoderPort, expected: Sequence[Embedding]) -> None:
    """Every way to cut the samples into batches against PyTorch in fp32."""
    for at_once in (1, 3, 8, len(expected)):
        cosine = smallest_cosine(embeddings_of(encoder, at_once), expected)
        report.check(
            f"{encoder.description.precision}, batches of {at_once}: cosine > {SMALLEST_COSINE}",
            cosine > SMALLEST_COSINE,
            f"{cosine:.6f}",
        )


def milliseconds(encoder: EncoderPort, batch: int, calls: int = 50) -> float:
    """Median time of one call, host memory to host memory."""
    images = samples(encoder.description.image_input)
    pixels = np.resize(images, (batch, *images.shape[1:]))
    times = []
    for _ in range(calls + 5):
        start = time.perf_counter()
        encoder.encode_images(pixels)
        times.append((time.perf_counter() - start) * 1000)
    return float(np.median(times[5:]))


def measured(encoder: EncoderPort) -> dict[str, Any]:
    """Speed and memory of one encoder that is alone in its process."""
    encoder.encode_texts(["a photo"])
    times = {str(batch): milliseconds(encoder, batch) for batch in _BATCHES}
    return {"times": times, "memory": encoder.device_memory_used()}


def check_speed(report: Report, torch: dict[str, Any], engine: dict[str, Any]) -> None:
    """TensorRT against PyTorch, both in fp16."""
    for batch, slow in torch["times"].items():
        fast = engine["times"][batch]
        report.check(
            f"batch {batch}: at least {SPEED_UP} x PyTorch",
            slow / fast >= SPEED_UP,
            f"{slow / fast:.2f} x ({slow:.2f} ms against {fast:.2f} ms)",
        )
    for name, memory in (("PyTorch", torch["memory"]), ("TensorRT", engine["memory"])):
        told = "NVML does not say" if memory is None else f"{memory / _MIB:.0f} MiB"
        report.say(f"memory of the process with {name}: {told}")
    if torch["memory"] and engine["memory"]:
        report.check(
            "TensorRT needs less memory than PyTorch",
            engine["memory"] < torch["memory"],
            f"{(torch['memory'] - engine['memory']) / _MIB:.0f} MiB less",
        )


def check_damage(report: Report, backend: TensorRtBackend, engine: Path) -> None:
    """A truncated engine is never loaded."""
    data = engine.read_bytes()
    engine.write_bytes(data[: len(data) // 2])
    try:
        backend.load()
        report.check("a truncated engine is refused", kept=False, seen="it was loaded")
    except EncoderUnavailable as refused:
        report.check("a truncated engine is refused", kept=True, seen=str(refused))
    engine.write_bytes(data)


def check_shortage(report: Report, encoder: EncoderPort, expected: Sequence[Embedding]) -> None:
    """With the GPU's memory full, the encoder goes on in smaller batches, or says so."""
    cuda, taken = Cuda(), []
    encoder.encode_images(samples(encoder.description.image_input)[:1])
    size = 1024 * _MIB
    while size >= 4 * _MIB:
        try:
            taken.append(cuda.device_memory(size))
        except OutOfDeviceMemory:
            size //= 2
    try:
        cosine = smallest_cosine(embeddings_of(encoder, len(expected)), expected)
        report.check("full memory: smaller batches", cosine > SMALLEST_COSINE, f"{cosine:.6f}")
    finally:
        for address in taken:
            cuda.free_device_memory(address)


def check_switch_over(
    report: Report, serving: EncoderPort, backend: TensorRtBackend, seconds: float = 1200
) -> None:
    """A service that starts without an engine, under load until a second after it switched over."""

    class Loader(EncoderLoaderPort):
        def probe_device(self) -> Device:
            return serving.description.device

        def load(self) -> EncoderPort:
            return serving

    async def scenario() -> tuple[int, str]:
        model = Supervisor(Loader(), memory=SystemMemory(), clock=SystemClock(), upgrade=backend)
        batcher = Batcher(model, max_batch=8)
        admission = Admission(64)
        await model.load()
        pixels = samples(serving.description.image_input)[0]
        received: list[Embedding] = []

        async def ask(done: Callable[[], bool]) -> None:
            while not done():
                with admission.admit():
                    async with model.lease() as lease:
                        received.append(await batcher.encode_image(pixels, lease))

        def settled() -> bool:
            """Whether it has switched over, or will not."""
            reason = model.upgrade_reason
            switched = model.described().backend == "tensorrt"
            return switched or (reason is not None and reason != UPGRADING)

        running = asyncio.create_task(model.run())
        async with asyncio.timeout(seconds):
            await asyncio.gather(*(ask(settled) for _ in range(8)))
            end = time.monotonic() + 1
            await asyncio.gather(*(ask(lambda: time.monotonic() > end) for _ in range(8)))
        running.cancel()
        model.close()
        if model.upgrade_reason is not None:
            raise EncoderUnavailable(model.upgrade_reason)
        cosine = smallest_cosine(received, [received[0]] * len(received))
        report.check("all responses agree", cosine > SMALLEST_COSINE, f"{cosine:.6f}")
        return len(received), model.described().backend

    count, name = asyncio.run(scenario())
    report.check("switched over under load", name == "tensorrt", f"{count} requests, none lost")


def random_vit_l(directory: Path) -> Path:
    """A ViT-L/14 with random weights, for a machine without a checkpoint."""
    from tests.support.checkpoints import full_size_clip, save_hugging_face

    return save_hugging_face(full_size_clip(), directory)


def torch_encoder(checkpoint: Checkpoint) -> EncoderPort:
    """PyTorch in fp16 on the GPU."""
    from adapters.encoders.torch.encoder import TorchEncoder

    return TorchEncoder(checkpoint, _CUDA, precision=Precision.FP16)


def measure(kind: str, source: str, engine: str) -> None:
    """In a process of its own: measure one encoder and print the result as JSON."""
    if kind == "torch":
        result = measured(torch_encoder(read_checkpoint(source)))
    else:
        result = measured(
            TensorRtBackend(source, _dimension(source), engine_path=Path(engine)).load()
        )
    print(json.dumps(result))  # noqa: T201 - read by the process that started this one


def in_a_process(kind: str, source: Path, engine: Path) -> dict[str, Any]:
    """`measure`, elsewhere."""
    command = [sys.executable, "-m", "checks.gpu.check", kind, str(source), str(engine)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(run.stderr[-2000:])
    result: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return result


def main() -> int:
    """Run every check; the exit status."""
    report = Report()
    try:
        here = find_installation()
    except EncoderUnavailable as unavailable:
        print(unavailable, file=sys.stderr)  # noqa: T201 - a person waits
        return 1
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as scratch:
        directory = Path(scratch)
        given = os.environ.get("CLIP_MODEL_PATH")
        source = Path(given) if given else random_vit_l(directory / "checkpoint")
        checkpoint = read_checkpoint(str(source))
        report.say(f"{here.gpu.name}, compute capability {here.gpu.architecture}")
        report.say(f"{here.tensorrt.identity}, {checkpoint.model}")
        images = samples(checkpoint.preprocessing.image_input)
        expected = reference_embeddings(checkpoint, images)
        for precision in (Precision.FP16, Precision.FP32):
            engine = directory / f"{precision}.engine"
            with report.section(f"Engine in {precision}"):
                start = time.perf_counter()
                backend = _backend(source, engine, precision)
                encoder = backend.load_or_make()
                report.say(f"exported, built and verified in {time.perf_counter() - start:.0f} s")
                check_parity(report, encoder, expected)
                check_damage(report, backend, engine)
                check_shortage(report, encoder, expected)
        with report.section("Speed and memory, fp16"):
            engine = directory / "fp16.engine"
            check_speed(
                report,
                in_a_process("torch", source, engine),
                in_a_process("tensorrt", source, engine),
            )
        with report.section("Switch-over"):
            check_switch_over(
                report,
                torch_encoder(checkpoint),
                _backend(source, directory / "second.engine", Precision.FP16),
            )
    report.write(REPORT)
    print(f"written: {REPORT}")  # noqa: T201 - a person waits
    return int(report.failures > 0)


def _backend(source: Path, engine: Path, precision: Precision) -> TensorRtBackend:
    return TensorRtBackend(
        str(source),
        _dimension(str(source)),
        upgrades=True,
        engine_path=engine,
        precision=precision,
    )


def _dimension(source: str) -> int:
    return read_checkpoint(source).embedding_dimension


if __name__ == "__main__":
    if len(sys.argv) == 4:
        measure(*sys.argv[1:])
    else:
        sys.exit(main())
