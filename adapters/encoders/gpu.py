"""Whether this machine has an NVIDIA GPU, and why it may be unusable."""

from collections.abc import Callable
from dataclasses import dataclass

from adapters.encoders.cuda import Cuda, NoGpu
from adapters.system.hardware import nvidia_driver_present
from adapters.system.installation import install_command, is_installed
from application.ports import Device, EncoderLost
from domain.errors import EncoderFault

_CPU = Device(name="cpu", cuda_available=False)


def _check_by_torch() -> None:
    # Imported here: PyTorch takes seconds to import, and may not be installed.
    from adapters.encoders.torch.device import check_cuda

    check_cuda()


def _check_by_bindings() -> None:
    try:
        Cuda().gpu()
    except (ImportError, RuntimeError) as missing:
        raise NoGpu(f"NVIDIA's bindings cannot be loaded: {missing}") from missing
    except (EncoderLost, EncoderFault) as failed:
        raise NoGpu(str(failed)) from failed


@dataclass(frozen=True, slots=True)
class GpuProbe:
    """Looks for an NVIDIA GPU that encoders can use.

    Attributes:
        driver_present: whether an NVIDIA driver is loaded; without one nothing else is checked.
            Tests replace this and the next ones.
        installed: whether a module can be imported.
        check_by_torch: raises NoGpu, with the reason, if PyTorch cannot use CUDA.
        check_by_bindings: the same for CUDA's own bindings, which TensorRT needs.
    """

    driver_present: Callable[[], bool] = nvidia_driver_present
    installed: Callable[[str], bool] = is_installed
    check_by_torch: Callable[[], None] = _check_by_torch
    check_by_bindings: Callable[[], None] = _check_by_bindings

    def __call__(self) -> Device:
        """``cuda:0`` if it can be used, else ``cpu`` and why an existing GPU is not used."""
        if not self.driver_present():
            return _CPU
        try:
            if self.installed("torch"):
                self.check_by_torch()
            elif self.installed("cuda"):
                self.check_by_bindings()
            else:
                command = install_command("torch")
                raise NoGpu(f"nothing that could use it is installed. Run: {command}")
        except NoGpu as problem:
            return Device(
                name="cpu",
                cuda_available=False,
                gpu_problem=f"There is an NVIDIA GPU, but {problem}.".replace("..", "."),
            )
        return Device(name="cuda:0", cuda_available=True)
