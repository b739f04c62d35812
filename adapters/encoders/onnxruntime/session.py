"""Graphs on ONNX Runtime and the CPU, alike wherever they are run."""

from pathlib import Path

import onnxruntime

from adapters.system.hardware import usable_cores


def open_session(graph: Path | bytes) -> onnxruntime.InferenceSession:
    """A session on all usable cores; a graph given as bytes holds its weights itself."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cores()
    # Idle threads would spin for more work, and take the cores from whoever has some.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    model = graph if isinstance(graph, bytes) else str(graph)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
