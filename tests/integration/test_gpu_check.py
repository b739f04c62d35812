"""The parts of ``make gpu-check`` that can be run without a GPU, on stand-in engines."""

import sys
from pathlib import Path

import httpx
import pytest

from adapters.encoders.cuda import Cuda, find_gpu
from adapters.encoders.reference import reference_embeddings
from adapters.encoders.tensorrt_backend import TensorRtBackend
from adapters.encoders.torch.encoder import TorchEncoder
from adapters.images.photos import samples
from adapters.models.precision import Precision
from adapters.models.reading import DEMO, read_checkpoint
from application.ports import Device
from benchmarks.contestants import Contestant, Format
from checks.gpu import cards, check, peers
from checks.gpu.report import Report
from tests.support.engines import Workshop
from tests.support.host_cuda import HostCuda
from tests.support.photos import as_file, photo
from tests.support.servers import SERVE

CPU = Device("cpu", cuda_available=False)
DOCUMENT = Path(__file__).parents[2] / "docs" / "benchmarks.md"


def test_parity_damage_memory_and_switch_over(hugging_face_directory: Path, tmp_path: Path) -> None:
    report, workshop = Report(), Workshop()
    source = str(hugging_face_directory)
    checkpoint = read_checkpoint(source)
    serving = TorchEncoder(checkpoint, CPU, precision=Precision.FP32)
    backend = TensorRtBackend(
        source,
        768,
        upgrades=True,
        engine_path=tmp_path / "x.engine",
        precision=Precision.FP32,
        largest_batch=32,
        device=CPU,
        engines_at=workshop.engines_at,
        make=workshop.make,
    )
    check.check_switch_over(report, serving, backend)
    check.check_damage(report, backend, tmp_path / "x.engine")
    expected = reference_embeddings(checkpoint, samples())
    check.check_parity(report, backend.load(), expected)
    cuda = HostCuda(room=64 * 2**20)
    check.check_shortage(report, backend.load, expected, Cuda(cuda))
    assert cuda.held()["device"] == 0
    check.check_leaks(report, backend.load, Cuda(cuda).free_bytes, reloads=2)
    assert report.failures == 0, report.lines
    text = "\n".join(report.lines)
    for told in (
        "PASS switched over under load",
        "PASS a truncated engine is refused",
        "PASS full memory: smaller batches",
        "PASS memory again: it recovers",
        "PASS 2 reloads leave no more than 64 MiB behind: 0 MiB",
        "batches of 32, again",
    ):
        assert told in text


def test_a_leak_and_an_encoder_that_is_wrong_are_failures(hugging_face_directory: Path) -> None:
    report = Report()
    checkpoint = read_checkpoint(str(hugging_face_directory))
    free = iter([10**9, 10**8])
    check.check_leaks(
        report,
        lambda: TorchEncoder(checkpoint, CPU, precision=Precision.FP32),
        lambda: next(free),
        reloads=1,
    )
    assert report.failures == 1
    encoder = TorchEncoder(checkpoint, CPU, precision=Precision.FP32)
    others = reference_embeddings(checkpoint, samples())[::-1]
    check.check_parity(report, encoder, others)
    assert report.failures > 1


def test_what_is_slower_than_promised_is_a_failure() -> None:
    report = Report(figures={"PyTorch": {"1": 10.0, "8": 30.0}, "TensorRT": {"1": 5.0, "8": 16.0}})
    report.facts = {"PyTorch memory": 900_000_000, "TensorRT memory": None}
    check.check_speed(report)
    assert report.failures == 0
    assert "- PASS one image: at least 1.5 x PyTorch: 2.00 x (10.00 ms against 5.00 ms)" in (
        report.lines
    )
    assert "- memory of the process with PyTorch: 900 MB; promised 800" in report.lines
    assert "- memory of the process with TensorRT: NVML does not say; promised 600" in report.lines
    report.figures["TensorRT"]["1"] = 8.0
    check.check_speed(report)
    assert report.failures == 1
    report.figures.clear()
    check.check_speed(report)
    assert report.failures == 2


def test_the_report_is_a_page_with_a_table_and_a_plot(tmp_path: Path) -> None:
    report = Report(figures={"TensorRT": {"1": 2.0, "8": 8.0}})
    check.speed_table(report, "NVIDIA GeForce RTX 4090")
    assert "| TensorRT | 8 | 8.00 | 1000 | 98% |" in report.lines
    best = "- TensorRT: CLIP_MAX_BATCH_SIZE=8 is enough for nearly all of its speed"
    assert best in report.lines
    with report.section("Broken"):
        int("no kernel image")
    report.write(tmp_path / "gpu-report.md")
    written = (tmp_path / "gpu-report.md").read_text()
    assert written.startswith("# GPU check: 1 not as promised")
    assert "FAIL Broken: ValueError: invalid literal" in written
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return
    assert (tmp_path / "gpu-report.png").stat().st_size > 1000
    assert "](gpu-report.png)" in written


def test_a_section_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    subject = check.Subject(Path(DEMO), tmp_path)
    seen = check.in_a_process("peers", subject)
    assert seen.failures == 0
    assert any("infinity_emb" in line for line in seen.lines)
    crashed = check.in_a_process(
        "peers", subject, command=(sys.executable, "-c", "import os; os.abort()")
    )
    assert crashed.failures == 1
    assert "its process ended with status -6" in crashed.lines[-1]
    if find_gpu() is None:
        failed = check.in_a_process("fp16", subject)
        assert failed.failures == 1
        assert "TensorRT needs an NVIDIA GPU" in failed.lines[-1]


def test_other_servers_are_measured_where_they_are_installed(tmp_path: Path) -> None:
    asked: list[tuple[str, int]] = []

    def rate(url: str, body: bytes, clients: int) -> float:
        response = httpx.post(url, content=body, timeout=60)
        assert response.status_code == 200, response.text
        asked.append((url.rpartition("/")[2], clients))
        return 12.5

    # This server speaks vLLM's protocol.
    ours = {"CLIP_ENCODER": "fake"}
    stand_in = Contestant(
        "vllm",
        SERVE,
        ours,
        ready="/health/ready",
        embed="/v1/embeddings",
        format=Format.MESSAGES,
    )
    broken = Contestant("infinity_emb", (sys.executable, "-c", "raise SystemExit('no CUDA')"))
    report = Report()
    peers.measure_peers(
        report,
        (
            peers.Peer("other", None),
            peers.Peer("infinity_emb", broken),
            peers.Peer("vllm", stand_in),
        ),
        as_file(photo()),
        rate=rate,
        clients=(1, 8),
        logs=tmp_path,
    )
    assert report.failures == 0
    missing, failed, *measured = report.lines
    assert missing == "- other: not installed"
    assert failed == (
        "- infinity_emb: installed, and could not be measured: the server ended: no CUDA"
    )
    assert measured == [f"- vllm, {n} clients: 12.5 requests a second" for n in (1, 8)]
    assert asked == [("embeddings", 1), ("embeddings", 8)]


@pytest.mark.long
def test_every_endpoint_of_a_real_server_is_asked() -> None:
    report = Report()
    check.check_endpoints(report, {"CLIP_MODEL_PATH": DEMO}, None)
    assert report.failures == 0, report.lines
    assert sum("PASS /" in line for line in report.lines) == 5
    assert any("64 clients at once over HTTP" in line for line in report.lines)


@pytest.mark.long
def test_several_http_processes_are_measured() -> None:
    report = Report()
    check.check_fronts(report, {"CLIP_ENCODER": "fake"}, [1, 2])
    assert [line for line in report.lines if "HTTP processes, 64 clients" in line] == report.lines
    assert len(report.lines) == 2


@pytest.mark.parametrize(
    ("card", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA A10", 125e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("Tesla T4", 65e12),
        ("NVIDIA Thor", None),
    ],
)
def test_cards_are_known_by_their_names(card: str, peak: float | None) -> None:
    assert cards.peak_of(card) == peak


def test_the_document_says_what_to_expect_of_each_card() -> None:
    assert cards.table() in DOCUMENT.read_text()


@pytest.mark.skipif(find_gpu() is not None, reason="this machine has a GPU")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main() == 1
    assert "needs an NVIDIA GPU" in capsys.readouterr().err
