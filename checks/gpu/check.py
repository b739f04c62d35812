"""``make gpu-check``: checks everything that needs a GPU, and writes a report.

Each section runs in a process of its own, so that what one loses or fills does not touch the next,
and a card of 8 GB is enough: there is never more than one encoder on it but while one takes over
from another. Writes ``gpu-report.md`` and, where matplotlib is installed, ``gpu-report.png``; the
exit status is 1 if anything is not as promised.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from adapters.encoders.cuda import Cuda, OutOfDeviceMemory, driver_version
from adapters.encoders.measuring import best_batch
from adapters.encoders.reference import reference_embeddings
from adapters.encoders.tensorrt.engines import find_installation
from adapters.encoders.tensorrt_backend import TensorRtBackend
from adapters.images.photos import picture_samples
from adapters.models.checkpoint import Checkpoint
from adapters.models.precision import Precision
from adapters.models.reading import read_checkpoint
from adapters.system.clock import SystemClock
from adapters.system.hardware import usable_cores
from adapters.system.memory import SystemMemory
from application.inference.admission import Admission
from application.inference.batcher import Batcher
from application.model.supervisor import UPGRADING, Supervisor
from application.ports import Device, EncoderLoaderPort, EncoderPort, EncoderUnavailable
from checks.gpu.cards import OPERATIONS_PER_IMAGE, REACHED, peak_of
from checks.gpu.report import Report
from domain.embedding import Embedding, smallest_cosine
from domain.errors import ServiceUnavailable
from domain.limits import SMALLEST_COSINE

REPORT: Final = Path("gpu-report.md")
SPEED_UP: Final = 1.5
"""What TensorRT must be faster than PyTorch by at one image, at least."""
COMPILED: Final = "PyTorch, compiled"
PROMISED_MB: Final = {"torch": 800, "tensorrt": 600}
"""Video memory by the contract."""
LARGEST_BATCH: Final = 32
"""Of the engines: larger batches are encoded in several calls."""
_JUDGED: Final = (1, 2, 3, 4, 5, 8, LARGEST_BATCH)
_TIMED: Final = (1, 2, 4, 8, 16, 32, 64, 128)
_RELOADS: Final = 50
_LEAK_BYTES: Final = 64 * 2**20
"""What fifty reloads may leave behind: allocators keep a little."""
_MIB: Final = 2**20
_CUDA: Final = Device("cuda:0", cuda_available=True)


@dataclass(frozen=True)
class Subject:
    """What is checked.

    Attributes:
        source: the checkpoint.
        directory: where engines go, and stay from one section to the next.
    """

    source: Path
    directory: Path

    @property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint, read again: its weights are not kept."""
        return read_checkpoint(str(self.source))

    def backend(self, precision: Precision, name: str | None = None) -> TensorRtBackend:
        """TensorRT at a place of its own for each precision."""
        return TensorRtBackend(
            str(self.source),
            upgrades=True,
            engine_path=self.directory / f"{name or precision}.engine",
            precision=precision,
            largest_batch=LARGEST_BATCH,
            cache=self.directory,
        )


# --- Correctness ------------------------------------------------------------------------------


def embeddings_of(encoder: EncoderPort, at_once: int, count: int) -> list[Embedding]:
    """Embeddings of the first samples, in full batches of ``at_once``."""
    pixels = picture_samples(encoder.description.image_input)[:count]
    order = np.arange(-(-count // at_once) * at_once) % count
    rows = [
        encoder.encode_images(pixels[order[start : start + at_once]])
        for start in range(0, len(order), at_once)
    ]
    return [Embedding.from_encoder(row) for row in np.concatenate(rows)]


def check_parity(report: Report, encoder: EncoderPort, expected: Sequence[Embedding]) -> None:
    """Every batch size that has kernels of its own against PyTorch in fp32, twice each."""
    for at_once in _JUDGED:
        for turn in ("first", "again"):
            made = embeddings_of(encoder, at_once, len(expected))
            wanted = [expected[place % len(expected)] for place in range(len(made))]
            cosine = smallest_cosine(made, wanted)
            report.check(
                f"{encoder.description.precision}, batches of {at_once}, {turn}: "
                f"cosine > {SMALLEST_COSINE}",
                cosine > SMALLEST_COSINE,
                f"{cosine:.6f}",
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


def engine_section(report: Report, subject: Subject, precision: Precision) -> None:
    """Build, compare and damage an engine."""
    start = time.perf_counter()
    backend = subject.backend(precision)
    encoder = backend.load_or_make()
    report.say(f"exported, built and compared in {time.perf_counter() - start:.0f} s")
    start = time.perf_counter()
    backend.load()
    report.say(f"loaded and compared again in {time.perf_counter() - start:.1f} s")
    checkpoint = subject.checkpoint
    pixels = picture_samples(checkpoint.preprocessing.image_input)
    check_parity(report, encoder, reference_embeddings(checkpoint, pixels))
    assert backend.engine_path is not None
    check_damage(report, backend, backend.engine_path)


# --- Memory -----------------------------------------------------------------------------------


def check_leaks(
    report: Report,
    load: Callable[[], EncoderPort],
    free_bytes: Callable[[], int],
    reloads: int = _RELOADS,
) -> None:
    """Loads and drops an encoder many times; the free memory must stay what it was."""

    def once() -> None:
        encoder = load()
        encoder.encode_images(picture_samples(encoder.description.image_input)[:3])
        del encoder
        SystemMemory().release()

    once()  # libraries keep what they loaded
    before = free_bytes()
    for _ in range(reloads):
        once()
    lost = before - free_bytes()
    report.check(
        f"{reloads} reloads leave no more than {_LEAK_BYTES // _MIB} MiB behind",
        lost <= _LEAK_BYTES,
        f"{lost / _MIB:.0f} MiB",
    )


def check_shortage(
    report: Report, load: Callable[[], EncoderPort], expected: Sequence[Embedding], cuda: Cuda
) -> None:
    """With the GPU's memory full, a fresh encoder goes on in smaller batches, or says so."""
    encoder, taken = load(), []
    encoder.encode_images(picture_samples(encoder.description.image_input)[:1])
    size = 1024 * _MIB
    while size >= 4 * _MIB:
        try:
            taken.append(cuda.device_memory(size))
        except OutOfDeviceMemory:
            size //= 2
    try:
        cosine = smallest_cosine(embeddings_of(encoder, len(expected), len(expected)), expected)
        report.check("full memory: smaller batches", cosine > SMALLEST_COSINE, f"{cosine:.6f}")
    except ServiceUnavailable as unavailable:
        told = unavailable.code == "out_of_device_memory"
        report.check("full memory: it says so", told, unavailable.detail)
    finally:
        for address in taken:
            cuda.free_device_memory(address)
    cosine = smallest_cosine(embeddings_of(encoder, len(expected), len(expected)), expected)
    report.check("memory again: it recovers", cosine > SMALLEST_COSINE, f"{cosine:.6f}")


def leaks_section(report: Report, subject: Subject) -> None:
    """Reloads of both encoders."""
    cuda = Cuda()
    backend, checkpoint = subject.backend(Precision.FP16), subject.checkpoint
    for name, load in (
        ("TensorRT", backend.load_or_make),
        ("PyTorch", lambda: torch_encoder(checkpoint)),
    ):
        report.say(f"{name}:")
        check_leaks(report, load, cuda.free_bytes)


def shortage_section(report: Report, subject: Subject, kind: str) -> None:
    """Out of memory, by an encoder that has not reserved anything yet."""
    checkpoint = subject.checkpoint
    pixels = picture_samples(checkpoint.preprocessing.image_input)
    expected = reference_embeddings(checkpoint, pixels)
    SystemMemory().release()
    backend = subject.backend(Precision.FP16)
    load = backend.load_or_make if kind == "tensorrt" else lambda: torch_encoder(checkpoint)
    check_shortage(report, load, expected, Cuda())


# --- Speed ------------------------------------------------------------------------------------


def milliseconds(encoder: EncoderPort, batch: int, seconds: float = 2.0) -> float:
    """Median time of one call, host memory to host memory."""
    images = picture_samples(encoder.description.image_input)
    pixels = np.resize(images, (batch, *images.shape[1:]))
    for _ in range(6):  # a CUDA graph is captured meanwhile
        encoder.encode_images(pixels)
    times: list[float] = []
    while len(times) < 5 or sum(times) < seconds * 1000:
        start = time.perf_counter()
        encoder.encode_images(pixels)
        times.append((time.perf_counter() - start) * 1000)
    return float(np.median(times))


def speed_section(report: Report, subject: Subject, name: str) -> None:
    """Speed and memory of one encoder that is alone in its process."""
    if name == "TensorRT":
        encoder = subject.backend(Precision.FP16).load_or_make()
    else:
        encoder = torch_encoder(subject.checkpoint, compiles=name.endswith("compiled"))
    encoder.encode_texts(["a photo"])
    encoder.encode_images(picture_samples(encoder.description.image_input)[:8])
    report.facts[f"{name} memory"] = encoder.device_memory_used()
    times: dict[str, float] = {}
    for batch in _TIMED:
        try:
            times[str(batch)] = milliseconds(encoder, batch)
        except ServiceUnavailable as full:  # of a small card
            report.say(f"{name}, batch {batch}: {full.detail}")
            break
    report.figures[name] = times


def speed_table(report: Report, card: str) -> None:
    """What was measured, as a table: time, rate, and share of the card's peak."""
    peak = peak_of(card)
    report.lines += [
        "",
        "| encoder | images a call | ms | images a second | of the peak |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, times in report.figures.items():
        for batch, each in times.items():
            rate = 1000 * int(batch) / each
            share = "" if peak is None else f"{rate * OPERATIONS_PER_IMAGE / peak:.0%}"
            report.lines.append(f"| {name} | {batch} | {each:.2f} | {rate:.0f} | {share} |")
    report.lines.append("")
    for name, times in report.figures.items():
        if not times:
            continue
        best = best_batch({int(batch): 1000 * int(batch) / each for batch, each in times.items()})
        report.say(f"{name}: CLIP_MAX_BATCH_SIZE={best} is enough for nearly all of its speed")
    if peak is not None:
        report.say(
            f"by its data sheet this card could do {peak / OPERATIONS_PER_IMAGE:.0f} images a "
            f"second, and {REACHED * peak / OPERATIONS_PER_IMAGE:.0f} are to be expected"
        )


def check_speed(report: Report) -> None:
    """TensorRT against PyTorch as it comes, both in fp16, and the memory that was promised."""
    slow, fast = report.figures.get("PyTorch", {}), report.figures.get("TensorRT", {})
    if "1" in slow and "1" in fast:
        report.check(
            f"one image: at least {SPEED_UP} x PyTorch",
            slow["1"] / fast["1"] >= SPEED_UP,
            f"{slow['1'] / fast['1']:.2f} x ({slow['1']:.2f} ms against {fast['1']:.2f} ms)",
        )
    else:
        report.check("one image was timed on both", kept=False, seen="it was not")
    for name, promised in (("PyTorch", "torch"), ("TensorRT", "tensorrt")):
        memory = report.facts.get(f"{name} memory")
        told = "NVML does not say" if memory is None else f"{memory / 1e6:.0f} MB"
        report.say(f"memory of the process with {name}: {told}; promised {PROMISED_MB[promised]}")


# --- The service ------------------------------------------------------------------------------


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
        pixels = picture_samples(serving.description.image_input)[0]
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


_QUESTIONS: Final[dict[str, dict[str, Any]]] = {
    "/embed": {},
    "/classify": {"labels": ["a dog", "a cat"], "use_ensemble": True},
    "/similarity": {"text": "a cat"},
    "/batch-similarity": {"texts": ["a dog", "a cat"]},
}


_MOST_CLIENTS: Final = 64


def check_endpoints(report: Report, settings: dict[str, str], backend: str | None) -> None:
    """A real server answers every endpoint on the backend; and how many requests it takes.

    Args:
        report: where it goes.
        settings: the server's environment.
        backend: what has to serve; None: whatever does.
    """
    import httpx

    from tests.support.servers import SERVE, running, wait_for

    body = {"image": b64encode(_picture()).decode()}
    with (
        tempfile.TemporaryDirectory(prefix="gpu-check-") as scratch,
        running(SERVE, Path(scratch) / "log", **settings) as server,
        httpx.Client(base_url=server.url, timeout=120) as client,
    ):
        wait_for(server, "/health/ready")
        end = time.monotonic() + 600
        health = client.get("/health").json()
        while backend not in (None, health["backend"]) and time.monotonic() < end:
            time.sleep(1)
            health = client.get("/health").json()
        seen = f"{health['backend']}; {health['backend_reason'] or health['gpu_reason'] or 'ready'}"
        report.check("it serves on the GPU", backend in (None, health["backend"]), seen)
        baseline: list[float] = []
        for path, fields in _QUESTIONS.items():
            response = client.post(path, json={**body, **fields})
            report.check(path, response.status_code == 200, str(response.status_code))
            baseline = baseline or response.json().get("embedding", [])
        score = client.post("/anomaly-score", json={**body, "baseline_embedding": baseline})
        near = score.status_code == 200 and score.json()["anomaly_score"] < 1e-3
        report.check("/anomaly-score", near, score.text[:100])
        for clients in (1, 8, _MOST_CLIENTS):
            rate = _embed_rate(server.url, clients)
            report.say(f"{clients} clients at once over HTTP: {rate:.1f} requests a second")


def check_fronts(report: Report, settings: dict[str, str], numbers: Sequence[int]) -> None:
    """How many requests it takes with so many processes that serve HTTP (`CLIP_HTTP_PROCESSES`)."""
    from tests.support.servers import SERVE, running, wait_for

    for number in numbers:
        with (
            tempfile.TemporaryDirectory(prefix="gpu-check-") as scratch,
            running(
                SERVE, Path(scratch) / "log", **settings, CLIP_HTTP_PROCESSES=str(number)
            ) as server,
        ):
            wait_for(server, "/health/ready")
            rate = _embed_rate(server.url, _MOST_CLIENTS)
            report.say(f"{number} HTTP processes, {_MOST_CLIENTS} clients: {rate:.1f} a second")


def _picture() -> bytes:
    from tests.support.photos import as_file, photo

    return as_file(photo())


def _embed_rate(url: str, clients: int) -> float:
    body = json.dumps({"image": b64encode(_picture()).decode()}).encode()
    return _rate(f"{url}/embed", body, clients)


def _rate(url: str, body: bytes, clients: int, seconds: float = 5.0) -> float:
    """Responses a second to a body; the load comes from a process of its own.

    Raises:
        OSError: there were others than 200.
    """
    from benchmarks.load import Plan, Result

    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        load = subprocess.run(
            [sys.executable, "-m", "benchmarks.load"],
            input=msgspec.json.encode(Plan(url, [file.name], clients, seconds)),
            stdout=subprocess.PIPE,
            check=True,
        )
    result = msgspec.json.decode(load.stdout, type=Result)
    if result.failures:
        raise OSError(f"{result.failures} requests to {url} were not answered with 200")
    return len(result.latencies_s) / result.elapsed_s


def http_section(report: Report, subject: Subject) -> None:
    """The whole server on the engine that is there."""
    settings = {
        "CLIP_MODEL_PATH": str(subject.source),
        "CLIP_ENGINE_PATH": str(subject.directory / "fp16.engine"),
        "CLIP_REQUIRE_GPU": "true",
        "CLIP_CACHE_DIR": str(subject.directory),
    }
    check_endpoints(report, settings, "tensorrt")
    check_fronts(report, settings, [n for n in (1, 2, 4, 8, 16) if n <= usable_cores()])


def peers_section(report: Report, subject: Subject) -> None:
    """Other servers with the same checkpoint and picture, to be seen beside "Over HTTP"."""
    from checks.gpu.peers import infinity, measure_peers, vllm

    peers = (infinity(subject.source), vllm(subject.source))
    clients = (1, 8, _MOST_CLIENTS)
    measure_peers(report, peers, _picture(), rate=_rate, clients=clients, logs=subject.directory)


# --- Sections ---------------------------------------------------------------------------------


def random_vit_l(directory: Path) -> Path:
    """A ViT-L/14 with random weights, for a machine without a checkpoint."""
    from benchmarks.checkpoint import checkpoint_at

    return checkpoint_at(directory)


def torch_encoder(checkpoint: Checkpoint, *, compiles: bool = False) -> EncoderPort:
    """PyTorch in fp16 on the GPU."""
    from adapters.encoders.torch.encoder import TorchEncoder

    return TorchEncoder(checkpoint, _CUDA, precision=Precision.FP16, compiles=compiles)


def switch_over_section(report: Report, subject: Subject) -> None:
    """From PyTorch to TensorRT under load."""
    serving = torch_encoder(subject.checkpoint)
    check_switch_over(report, serving, subject.backend(Precision.FP16, "second"))


SECTIONS: Final[dict[str, tuple[str, Callable[[Report, Subject], None]]]] = {
    "fp16": ("Engine in fp16", lambda r, s: engine_section(r, s, Precision.FP16)),
    "fp32": ("Engine in fp32", lambda r, s: engine_section(r, s, Precision.FP32)),
    "leaks": ("Reloads", leaks_section),
    "full": ("Full memory, TensorRT", lambda r, s: shortage_section(r, s, "tensorrt")),
    "full-torch": ("Full memory, PyTorch", lambda r, s: shortage_section(r, s, "torch")),
    "torch": ("PyTorch, timed", lambda r, s: speed_section(r, s, "PyTorch")),
    "compiled": ("PyTorch, compiled and timed", lambda r, s: speed_section(r, s, COMPILED)),
    "tensorrt": ("TensorRT, timed", lambda r, s: speed_section(r, s, "TensorRT")),
    "http": ("Over HTTP", http_section),
    "peers": ("Other servers", peers_section),
    "switch": ("Switch-over", switch_over_section),
}
"""By name: title, and what it does in a process of its own."""


def in_a_process(
    name: str, subject: Subject, *, command: Sequence[str] = (sys.executable, "-m")
) -> Report:
    """What a section has seen; a crash is a failure of that section."""
    title, _ = SECTIONS[name]
    report = Report()
    with report.section(title):
        run = subprocess.run(
            [*command, "checks.gpu.check", name, str(subject.source), str(subject.directory)],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        lines = run.stdout.splitlines()
        if run.returncode or not lines:
            raise RuntimeError(f"its process ended with status {run.returncode}")
        report.take(Report.from_json(lines[-1]))
    return report


def one_section(name: str, subject: Subject) -> None:
    """In a process of its own: run a section and print what was seen."""
    report = Report()
    title, check = SECTIONS[name]
    try:
        check(report, subject)
    except Exception as failure:
        report.check(title, kept=False, seen=f"{type(failure).__name__}: {failure}")
    print(report.as_json())  # noqa: T201 - read by the process that started this one


def main() -> int:
    """Run every section; the exit status."""
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
        subject = Subject(source, directory)
        report.say(f"{here.gpu.name}, compute capability {here.gpu.architecture}")
        report.say(f"driver {driver_version()}, {here.tensorrt.identity}")
        report.say(subject.checkpoint.model)
        for name in SECTIONS:
            seen = in_a_process(name, subject)
            print("\n".join(seen.lines), flush=True)  # noqa: T201 - a person waits
            report.take(seen)
    with report.section("Speed and memory, fp16"):
        speed_table(report, here.gpu.name)
        check_speed(report)
    report.write(REPORT)
    print(f"written: {REPORT}")  # noqa: T201 - a person waits
    return int(report.failures > 0)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        one_section(sys.argv[1], Subject(Path(sys.argv[2]), Path(sys.argv[3])))
        sys.exit(0)
    sys.exit(main())
