"""What is said of a GPU that is there and of no use, and that nobody falls to the CPU unawares."""

import logging
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest

from adapters.encoders.cuda import Cuda, NoGpu, driver_version, why_no_gpu
from adapters.encoders.gpu import GpuProbe
from adapters.encoders.selection import EncoderChoice, EncoderSelection
from adapters.observability.prometheus_metrics import PrometheusMetrics
from adapters.system.clock import SystemClock
from adapters.system.memory import SystemMemory
from application.inference.admission import Admission
from application.model.supervisor import Supervisor
from application.ports import Device, EncoderUnavailable
from application.use_cases.health import Load, ReportHealth
from tests.support.encoders import Upgrade

OLD = "NVIDIA driver 535.183.01 is too old: CUDA 13 needs 580 or newer"


def refuse(reason: str) -> Callable[[], None]:
    def check() -> None:
        raise NoGpu(reason)

    return check


def probe(*, installed: str = "torch cuda", reason: str | None = None) -> GpuProbe:
    check = (lambda: None) if reason is None else refuse(reason)
    return GpuProbe(
        driver_present=lambda: True,
        installed=lambda name: name in installed.split(),
        check_by_torch=check,
        check_by_bindings=check,
    )


@pytest.mark.parametrize(
    ("version", "cuda", "told"),
    [
        ("535.183.01", 13, OLD),
        ("579.99", 13, "CUDA 13 needs 580 or newer"),
        ("470.57", 12, "CUDA 12 needs 525 or newer"),
        ("580.65.06", 13, "NVIDIA driver 580.65.06, cudaErrorNoDevice"),
        ("535.183.01", 12, "NVIDIA driver 535.183.01, cudaErrorNoDevice"),
        (None, 13, "cudaErrorNoDevice"),
    ],
)
def test_an_old_driver_is_named_with_what_is_needed(
    version: str | None, cuda: int, told: str
) -> None:
    reason = why_no_gpu(cuda, "cudaErrorNoDevice", find_version=lambda: version, visible="0")
    assert told in reason
    assert ("too old" in reason) == ("needs" in told)


@pytest.mark.parametrize("visible", ["", " ", "-1"])
def test_a_hidden_gpu_is_said_to_be_hidden(visible: str) -> None:
    reason = why_no_gpu(13, "no device", find_version=lambda: "580.65.06", visible=visible)
    assert reason == f"CUDA_VISIBLE_DEVICES={visible} hides every GPU"


def test_nvml_tells_the_version_where_there_is_no_file() -> None:
    ended = []
    nvml = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlSystemGetDriverVersion=lambda: b"571.96",
        nvmlShutdown=lambda: ended.append(True),
    )
    assert driver_version(nvml) == "571.96"
    assert ended == [True]


def test_cudas_own_error_is_explained() -> None:
    """An old driver, as the bindings report it: 35, the same as where there is no driver."""
    error = SimpleNamespace(name="cudaErrorInsufficientDriver")
    runtime = SimpleNamespace(
        cudaError_t=SimpleNamespace(cudaSuccess=object()),
        cudaGetDeviceCount=lambda: (error, 0),
        cudaRuntimeGetVersion=lambda: (0, 13000),
    )
    with pytest.raises(NoGpu, match="cudaErrorInsufficientDriver"):
        Cuda(runtime).gpu()


def test_without_a_driver_nothing_else_is_asked() -> None:
    def never() -> None:
        raise AssertionError("PyTorch takes seconds to import")

    device = GpuProbe(lambda: False, lambda name: True, never, never)()
    assert device == Device("cpu", cuda_available=False)


def test_a_gpu_that_works_has_no_problem() -> None:
    assert probe()() == Device("cuda:0", cuda_available=True)
    assert probe(installed="cuda")() == Device("cuda:0", cuda_available=True)


def test_a_gpu_that_nothing_can_use_says_what_to_install() -> None:
    device = probe(installed="")()
    assert not device.cuda_available
    assert device.gpu_problem is not None
    assert "nothing that could use it is installed. Run: " in device.gpu_problem
    assert "torch]" in device.gpu_problem


def selection(choice: EncoderChoice, gpu: GpuProbe, *, require_gpu: bool) -> EncoderSelection:
    return EncoderSelection(choice, "builtin:demo", require_gpu=require_gpu, probe_gpu=gpu)


def test_a_required_gpu_is_never_replaced_by_the_processor() -> None:
    for choice in (EncoderChoice.AUTO, EncoderChoice.TORCH, EncoderChoice.OPENVINO):
        with pytest.raises(EncoderUnavailable, match=f"CLIP_REQUIRE_GPU=true.*{OLD}"):
            selection(choice, probe(reason=OLD), require_gpu=True).load()
    with pytest.raises(EncoderUnavailable, match="There is no NVIDIA driver here"):
        selection(
            EncoderChoice.AUTO, replace(probe(), driver_present=lambda: False), require_gpu=True
        ).load()
    # CUDA works, and yet the encoder that was asked for would run elsewhere.
    with pytest.raises(EncoderUnavailable, match="openvino would not use the GPU"):
        selection(EncoderChoice.OPENVINO, probe(), require_gpu=True).load()


@pytest.mark.parametrize(
    ("choice", "gpu", "reason"),
    [
        (EncoderChoice.AUTO, probe(reason=OLD), f"There is an NVIDIA GPU, but {OLD}."),
        (EncoderChoice.OPENVINO, probe(reason=OLD), None),
        (EncoderChoice.OPENVINO, probe(), None),
        (EncoderChoice.AUTO, replace(probe(), driver_present=lambda: False), None),
    ],
    ids=["old driver", "another asked for", "works, another asked for", "none"],
)
async def test_health_metric_and_log_tell_of_a_fall_to_the_processor(
    choice: EncoderChoice,
    gpu: GpuProbe,
    reason: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    model = Supervisor(
        selection(choice, gpu, require_gpu=False),
        memory=SystemMemory(),
        clock=SystemClock(),
        upgrade=Upgrade(None),
    )
    await model.load()
    assert model.described().device.name == "cpu"
    health = ReportHealth(model=model, admission=Admission(4))()
    assert health.gpu_reason == reason
    assert health.healthy
    page, _ = PrometheusMetrics().page("", health=health, load=Load(0, 4, 0, 0))
    assert f"clip_gpu_unused {float(reason is not None)}" in page.decode()
    assert [r.getMessage() for r in caplog.records if "GPU" in r.getMessage()] == (
        [] if reason is None else [f"the GPU is not used: {reason}"]
    )
    model.close()
