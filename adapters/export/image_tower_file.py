"""The image tower as a separate ONNX file, in float32 or float16, for TensorRT and others.

Float16 is a property of the graph, since TensorRT 11 has only strongly typed networks: a node
computes in what its inputs are. The graph is therefore *written* in float16, with float32 inputs
and outputs and float32 layer normalisation, rather than converted afterwards. Measured with a
random ViT-L/14 on 2 cores, with ONNX Runtime, against the float32 graph:

- written: 3 s, valid, smallest cosine 0.9999999, one cast on each side of a normalisation;
- ``onnxconverter-common`` 1.16: 9 s. It raises every weight below 1e-7 to 1e-7. When told to keep
  the normalisations in float32, it makes a graph that both the checker and ONNX Runtime reject
  (their weights become float32, their input stays float16); otherwise it puts them in float16.
- ModelOpt's AutoCast runs the model on calibration data to find the nodes that need float32, and
  needs twenty further packages. For this architecture the nodes are known: OpenCLIP's own half
  precision keeps only the normalisations (PyTorch in float16 against float32: 0.999999).

The softmax stays in float16 between its two products, since TensorRT's fused attention wants one
type throughout; kernels sum in float32.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias

import onnx
from onnx import numpy_helper

from adapters.artifacts.store import replace
from adapters.export.graph import Graph, WeightsFile
from adapters.export.towers import (
    IMAGE_INPUT,
    IMAGE_OUTPUT,
    UnusualTower,
    image_tower,
    tower_metadata,
)
from adapters.images.preprocessing import LEVELS_TO_PIXELS
from adapters.models.checkpoint import Checkpoint
from adapters.models.checkpoint_files import InvalidCheckpoint
from adapters.models.precision import Precision
from domain.limits import LARGEST_IMAGE_SIZE

logger = logging.getLogger(__name__)

EXPORTABLE: Final = (Precision.FP16, Precision.FP32)
"""The types that an exported tower may compute in."""


_SIDES: Final = range(1, LARGEST_IMAGE_SIZE + 1)

Trace: TypeAlias = Callable[[Checkpoint, Path, Precision], None]
"""Exports, through PyTorch, an image tower that this module cannot write."""


def data_file(path: Path) -> Path:
    """The weights of the graph at ``path``: a file beside it, to be moved together with it."""
    return path.with_name(path.name + ".data")


def write_image_tower(
    checkpoint: Checkpoint,
    path: Path,
    *,
    precision: Precision,
    trace: Trace,
    takes_levels: bool = False,
) -> None:
    """Write the image tower of a checkpoint, and check the result.

    ``pixel_values`` float32 ``[batch, 3, size, size]`` → ``image_embeds`` float32
    ``[batch, dimension]``, not normalised, batch dynamic. Metadata: model, fingerprint,
    preprocessing and precision.

    Args:
        checkpoint: weights and architecture.
        path: of the graph; its weights go to `data_file`. Both are replaced, the weights first.
        precision: one of `EXPORTABLE`.
        trace: for architectures that cannot be written here.
        takes_levels: whether ``pixel_values`` is uint8, the levels of a decoded picture, and the
            graph takes CLIP's mean and standard deviation out: a quarter of the bytes.

    Raises:
        InvalidCheckpoint: it cannot be exported; says why.
        OSError: the files cannot be written.
    """
    if precision not in EXPORTABLE:
        raise ValueError(f"an image tower cannot be exported in {precision}")

    def build(directory: Path) -> None:
        # Under its final name, since the graph refers to its weights by file name.
        written = directory / path.name
        try:
            with WeightsFile(data_file(written)) as weights:
                graph = Graph(weights, half=precision is Precision.FP16)
                model = image_tower(checkpoint, graph)
            onnx.helper.set_model_props(model, _metadata(checkpoint, precision))
            written.write_bytes(model.SerializeToString())
        except UnusualTower as unusual:
            logger.info("tracing the image tower with PyTorch: %s", unusual)
            trace(checkpoint, written, precision)
            _add_metadata(written, _metadata(checkpoint, precision))
        if takes_levels:
            _take_levels(written)
        check_image_tower(written)

    replace(path, build=build, files=(data_file(path).name, path.name))


def check_image_tower(path: Path) -> dict[str, str]:
    """Check a graph and its weights as strictly as ONNX can; returns its metadata.

    Raises:
        InvalidCheckpoint: not an ONNX file, damaged, or not an image tower as written here.
    """
    model = _loaded(path, full_check=True)
    _side(model, path)
    return {entry.key: entry.value for entry in model.metadata_props}


def image_side(path: Path) -> int:
    """Pixels of each side of the images that a graph takes.

    Raises:
        InvalidCheckpoint: not an ONNX file, or not an image tower as written here.
    """
    return _side(_loaded(path), path)


def check_exported_from(checkpoint: Checkpoint, path: Path) -> None:
    """Check a graph, and that it was exported from this checkpoint.

    Raises:
        InvalidCheckpoint: it was not; says why.
    """
    fingerprint = check_image_tower(path).get("fingerprint")
    if fingerprint != checkpoint.fingerprint:
        raise InvalidCheckpoint(
            f"{path} was exported from another checkpoint (fingerprint {fingerprint}; "
            f"{checkpoint.model} has {checkpoint.fingerprint})."
        )


def _loaded(path: Path, *, full_check: bool = False) -> onnx.ModelProto:
    """A graph without its weights; those too are looked at by the full check."""
    try:
        if full_check:
            onnx.checker.check_model(str(path), full_check=True)
        return onnx.load(path, load_external_data=False)
    except Exception as invalid:  # the checker, protobuf and the file system raise their own
        raise InvalidCheckpoint(f"{path} is not a valid ONNX file: {invalid}") from invalid


def _side(model: onnx.ModelProto, path: Path) -> int:
    batch, *image = _shape(model.graph.input, IMAGE_INPUT)
    outputs = _shape(model.graph.output, IMAGE_OUTPUT)
    square = len(image) == 3 and image[0] == 3 and image[1] == image[2] and image[1] in _SIDES
    if not square or isinstance(batch, int) or len(outputs) != 2:
        raise InvalidCheckpoint(
            f"{path} is not an image tower: it must turn {IMAGE_INPUT} [batch, 3, size, size] into "
            f"{IMAGE_OUTPUT} [batch, dimension], batch dynamic."
        )
    return int(image[1])


def _metadata(checkpoint: Checkpoint, precision: Precision) -> dict[str, str]:
    return {**tower_metadata(checkpoint), "precision": str(precision)}


def _add_metadata(path: Path, metadata: dict[str, str]) -> None:
    model = onnx.load(path, load_external_data=False)
    onnx.helper.set_model_props(model, metadata)
    path.write_bytes(model.SerializeToString())


def _take_levels(path: Path) -> None:
    """Have a graph take uint8 and compute what `normalised` does, to the last bit."""
    model = onnx.load(path, load_external_data=False)
    graph = model.graph
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == IMAGE_INPUT:
                node.input[place] = "normalised_pixels"
    (pixels,) = (value for value in graph.input if value.name == IMAGE_INPUT)
    pixels.type.tensor_type.elem_type = onnx.TensorProto.UINT8
    factor, subtrahend = LEVELS_TO_PIXELS
    graph.initializer.extend(
        [
            numpy_helper.from_array(factor, "level_factor"),
            numpy_helper.from_array(subtrahend, "level_subtrahend"),
        ]
    )
    node = onnx.helper.make_node
    steps = [
        node("Cast", [IMAGE_INPUT], ["levels"], to=onnx.TensorProto.FLOAT),
        node("Mul", ["levels", "level_factor"], ["scaled_levels"]),
        node("Sub", ["scaled_levels", "level_subtrahend"], ["normalised_pixels"]),
    ]
    for place, step in enumerate(steps):
        graph.node.insert(place, step)
    path.write_bytes(model.SerializeToString())


def _shape(values: Any, name: str) -> list[int | str]:
    """Dimensions of the value with that name; fixed ones are numbers. ``[""]`` if missing."""
    for value in values:
        if value.name == name:
            return [
                dim.dim_value if dim.HasField("dim_value") else dim.dim_param
                for dim in value.type.tensor_type.shape.dim
            ]
    return [""]
