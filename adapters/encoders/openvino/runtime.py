"""OpenVINO with its telemetry turned off."""

import sys

# Without this package OpenVINO and NNCF use stubs that send nothing. With it, `import openvino`
# alone sends an event, and a server for cameras must not send data to anyone.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino  # noqa: E402  # after the line above, or it would be too late

__all__ = ["openvino"]
