"""The image tower in int8."""

import sys
from pathlib import Path
from typing import Any

import pytest

from adapters.artifacts.store import Store
from adapters.encoders.openvino.quantization import int8_image_tower
from adapters.encoders.openvino.runtime import openvino
from adapters.export.bundles import write_bundle
from adapters.models.reading import read_checkpoint
from application.ports import EncoderUnavailable

_PASSED_THROUGH = {"Multiply", "Subtract", "Convert", "Transpose", "Reshape"}


def constant_behind(output: Any) -> Any:
    """The constant that a matrix product's weights are made from; None for activations."""
    node = output.get_node()
    while node.get_type_name() in _PASSED_THROUGH:
        node = node.input_value(0).get_node()
    return node if node.get_type_name() in {"Constant", "Slice"} else None


def test_all_weights_of_matrix_products_are_int8(
    hugging_face_directory: Path, tmp_path: Path
) -> None:
    """Once, NNCF saw no weights behind our transpositions, and quantised activations alone."""
    bundle = write_bundle(read_checkpoint(str(hugging_face_directory)), tmp_path / "bundle")
    graph = int8_image_tower(bundle, Store(tmp_path / "cache"))
    types = [
        constant.get_element_type().get_type_name()
        for operation in openvino.Core().read_model(str(graph)).get_ordered_ops()
        if operation.get_type_name() in {"MatMul", "Convolution"}
        and (constant := constant_behind(operation.input_value(1))) is not None
    ]
    assert len(types) > 10
    assert set(types) <= {"i8", "u8"}, types
    assert "nncf" not in sys.modules, "it takes gigabytes, which a server would keep"


def test_a_process_that_ends_early_is_named(
    hugging_face_directory: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = write_bundle(read_checkpoint(str(hugging_face_directory)), tmp_path / "bundle")
    bundle.image_tower.unlink()
    with pytest.raises(EncoderUnavailable, match=r"ended with status 1; .* Use bf16 or fp32"):
        int8_image_tower(bundle, Store(tmp_path / "cache"))
    assert "Traceback" in caplog.text
    assert list((tmp_path / "cache").rglob("*.xml")) == []
