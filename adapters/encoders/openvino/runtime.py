"""OpenVINO, kept from telling its maker's statistics server of every start."""

import sys

# Without this package OpenVINO and NNCF fall back to stubs that send nothing. With it, already
# `import openvino` sends an event, and a camera's server must not call anyone.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino  # noqa: E402  # after the line above, or it would be too late

__all__ = ["openvino"]
