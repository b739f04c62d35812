"""Both towers of a checkpoint as ONNX graphs, with dynamic batch.

Written node by node from the architecture, not traced: this needs no PyTorch, and only what reaches
the output is computed.
"""

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import onnx
from onnx import TensorProto

from adapters.export import clip_towers, siglip_towers, xlm_roberta_tower
from adapters.export.graph import Graph
from adapters.images.preprocessing import MEAN, STD
from adapters.models.architecture import FAMILIES, Family, image_size_of, why_other
from adapters.models.checkpoint import Checkpoint
from adapters.models.checkpoint_files import InvalidCheckpoint
from application.ports import CLIPS_INPUT

IMAGE_INPUT: Final = "pixel_values"
IMAGE_OUTPUT: Final = "image_embeds"
TEXT_INPUT: Final = "input_ids"
TEXT_OUTPUT: Final = "text_embeds"

Tower: TypeAlias = Callable[[Graph, Checkpoint, str], str]
"""Writes a tower: a graph, a checkpoint and the input's name to the output's.

The output is ``[batch, dimension]`` in the graph's compute type.
"""

_IMAGE_TOWERS: Final[Mapping[Family, Tower]] = {
    Family.CLIP: clip_towers.image_tower,
    Family.SIGLIP: siglip_towers.image_tower,
    Family.XLM_ROBERTA: clip_towers.image_tower,
}
_TEXT_TOWERS: Final[Mapping[Family, Tower]] = {
    Family.CLIP: clip_towers.text_tower,
    Family.SIGLIP: siglip_towers.text_tower,
    Family.XLM_ROBERTA: xlm_roberta_tower.text_tower,
}


class UnusualTower(InvalidCheckpoint):
    """The architecture is none of those that this module can write."""


def image_tower(checkpoint: Checkpoint, graph: Graph | None = None) -> onnx.ModelProto:
    """``pixel_values`` ``[batch, 3, size, size]`` → ``image_embeds`` ``[batch, dimension]``.

    Both are float32. The output is not normalised. The input is normalised with CLIP's mean and
    standard deviation; where the checkpoint has others, the graph converts it.

    Args:
        checkpoint: weights and architecture.
        graph: an empty one, which determines the compute type and where the weights go; by default
            float32 and the checkpoint's own files.

    Raises:
        UnusualTower: its family is not known.
        InvalidCheckpoint: its weights exceed float16.
    """
    graph = graph or Graph()
    write = _of(checkpoint, _IMAGE_TOWERS)
    pixels = graph.from_float32(_converted(graph, checkpoint))
    side = image_size_of(checkpoint.architecture)
    return graph.model(
        "image_tower",
        inputs={IMAGE_INPUT: (TensorProto.FLOAT, ["batch", 3, side, side])},
        output=(IMAGE_OUTPUT, ["batch", checkpoint.embedding_dimension]),
        value=graph.in_float32(write(graph, checkpoint, pixels)),
        metadata=tower_metadata(checkpoint),
    )


def text_tower(checkpoint: Checkpoint) -> onnx.ModelProto:
    """``input_ids`` int64 ``[batch, length]`` → ``text_embeds`` float32 ``[batch, dimension]``.

    The input is padded as the checkpoint's `Tokenization` says. The output is not normalised.

    Raises:
        UnusualTower: its family is not known.
    """
    write = _of(checkpoint, _TEXT_TOWERS)
    graph = Graph()
    value = write(graph, checkpoint, TEXT_INPUT)
    return graph.model(
        "text_tower",
        inputs={TEXT_INPUT: (TensorProto.INT64, ["batch", "length"])},
        output=(TEXT_OUTPUT, ["batch", checkpoint.embedding_dimension]),
        value=value,
        metadata=tower_metadata(checkpoint),
    )


def tower_metadata(checkpoint: Checkpoint) -> dict[str, str]:
    """What is stored with a graph: which checkpoint it comes from, and what its input must be."""
    seen = checkpoint.preprocessing.image_input
    # What the server does to every picture; where the checkpoint has another mean and standard
    # deviation, the graph itself converts.
    if seen == CLIPS_INPUT:
        how = f"short side {seen.size} {seen.filter}, centre crop"
    else:
        how = f"{seen.fit} to {seen.size} {seen.filter}"
    return {
        "model": checkpoint.model,
        "fingerprint": checkpoint.fingerprint,
        "preprocessing": f"{how}, mean {MEAN}, std {STD}",
    }


def _of(checkpoint: Checkpoint, towers: Mapping[Family, Tower]) -> Tower:
    if (tower := towers.get(checkpoint.family)) is None:
        raise UnusualTower(
            f"{checkpoint.model} is {checkpoint.family} ({why_other(checkpoint.architecture)}), "
            f"which only the torch encoder can serve; known without it are {FAMILIES}."
        )
    return tower


def _converted(graph: Graph, checkpoint: Checkpoint) -> str:
    """The input in the checkpoint's own normalisation, in float32."""
    if (conversion := checkpoint.preprocessing.conversion) is None:
        return IMAGE_INPUT
    factor, summand = (graph.constant(values) for values in conversion)
    return graph.op("Add", graph.op("Mul", IMAGE_INPUT, factor), summand)
