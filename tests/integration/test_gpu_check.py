"""The parts of ``make gpu-check`` that can be run without a GPU, on stand-in engines."""

from pathlib import Path

import pytest

from adapters.encoders.cuda import find_gpu
from adapters.encoders.reference import reference_embeddings
from adapters.encoders.tensorrt_backend import TensorRtBackend
from adapters.encoders.torch.encoder import TorchEncoder
from adapters.images.photos import samples
from adapters.models.precision import Precision
from adapters.models.reading import read_checkpoint
from application.ports import Device
from checks.gpu import check
from checks.gpu.check import Report
from tests.support.engines import Workshop

CPU = Device("cpu", cuda_available=False)


def test_parity_damage_and_switch_over(hugging_face_directory: Path, tmp_path: Path) -> None:
    report = Report()
    source = str(hugging_face_directory)
    checkpoint = read_checkpoint(source)
    serving = TorchEncoder(checkpoint, CPU, precision=Precision.FP32)
    workshop = Workshop()
    backend = TensorRtBackend(
        source,
        768,
        upgrades=True,
        engine_path=tmp_path / "x.engine",
        precision=Precision.FP32,
        device=CPU,
        engines_at=workshop.engines_at,
        make=workshop.make,
    )
    check.check_switch_over(report, serving, backend)
    check.check_damage(report, backend, tmp_path / "x.engine")
    check.check_parity(report, backend.load(), reference_embeddings(checkpoint, samples()))
    assert report.failures == 0, report.lines
    text = "\n".join(report.lines)
    assert "PASS switched over under load" in text
    assert "PASS a truncated engine is refused" in text


def test_what_is_slower_or_larger_than_promised_is_a_failure(tmp_path: Path) -> None:
    torch = {"times": {"1": 10.0, "4": 20.0}, "memory": 900 * 2**20}
    report = Report()
    engine = {"times": {"1": 5.0, "4": 12.0}, "memory": 600 * 2**20}
    check.check_speed(report, torch, engine)
    assert report.failures == 0
    assert (
        "- PASS batch 1: at least 1.5 x PyTorch: 2.00 x (10.00 ms against 5.00 ms)" in report.lines
    )
    engine = {"times": {"1": 8.0, "4": 12.0}, "memory": 950 * 2**20}
    check.check_speed(report, torch, engine)
    assert report.failures == 2
    check.check_speed(report, torch, {**engine, "times": {"1": 1.0, "4": 1.0}, "memory": None})
    assert report.failures == 2
    with report.section("Broken"):
        int("no kernel image")
    report.write(tmp_path / "report.md")
    written = (tmp_path / "report.md").read_text()
    assert written.startswith("# GPU check: 3 not as promised")
    assert "FAIL Broken: ValueError: invalid literal" in written


@pytest.mark.skipif(find_gpu() is not None, reason="this machine has a GPU")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main() == 1
    assert "needs an NVIDIA GPU" in capsys.readouterr().err
