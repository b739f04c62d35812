"""CLIP's vision transformer and its causal text transformer (open_clip, transformer.py).

The last block's attention and MLP run only for the one token that is read out, since the others
would be discarded.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from adapters.export.graph import Graph
from adapters.export.transformer import Activation, Transformer
from adapters.models.architecture import epsilon_of
from adapters.models.checkpoint import Checkpoint


def image_tower(graph: Graph, checkpoint: Checkpoint, pixels: str) -> str:
    """Pixels ``[batch, 3, size, size]`` → ``[batch, dimension]``."""
    vision = checkpoint.architecture["vision_cfg"]
    weights = checkpoint.weights
    width = vision["width"]
    tokens = patches(graph, pixels, vision, graph.weight(weights["visual.conv1.weight"]))
    batch = graph.op("Shape", pixels, start=0, end=1)
    shape = graph.op("Concat", batch, graph.constant([1, width]), axis=0)
    class_token = graph.op("Expand", graph.weight(weights["visual.class_embedding"]), shape)
    tokens = graph.op("Concat", class_token, tokens, axis=1)
    tokens = graph.op("Add", tokens, graph.weight(weights["visual.positional_embedding"]))
    tower = Transformer(
        graph,
        weights,
        prefix="visual.transformer.resblocks",
        width=width,
        heads=width // vision.get("head_width", 64),
        layers=vision["layers"],
        epsilon=epsilon_of(vision),
        activation=_activation(checkpoint),
    )
    tokens = tower.norm(tokens, "visual.ln_pre")
    first = graph.constant([0])
    pooled = tower.run(tokens, read_out=lambda x: graph.op("Gather", x, first, axis=1))
    pooled = tower.norm(pooled, "visual.ln_post")
    embeds = graph.op("MatMul", pooled, graph.weight(weights["visual.proj"]))
    return graph.op("Squeeze", embeds, graph.constant([1]))


def text_tower(graph: Graph, checkpoint: Checkpoint, tokens: str) -> str:
    """Token numbers ``[batch, length]`` → ``[batch, dimension]``.

    Length may be anything up to the context's: tokens after the end-of-text token, which has the
    highest number in a row, cannot affect it, because of the causal mask.
    """
    text = checkpoint.architecture["text_cfg"]
    weights = checkpoint.weights
    length = graph.op("Shape", tokens, start=1, end=2)
    zero, axis = graph.constant([0]), graph.constant([0])
    places = graph.op("Slice", graph.weight(weights["positional_embedding"]), zero, length, axis)
    rows = graph.op("Add", graph.lookup(weights["token_embedding.weight"], tokens), places)
    ends = graph.op("ArgMax", tokens, axis=1, keepdims=1)
    context = checkpoint.tokenization.context_length
    forbidden = np.triu(np.full((context, context), -1e30, dtype=np.float32), k=1)
    both = graph.op("Concat", length, length, axis=0)
    mask = graph.op(
        "Slice", graph.constant(forbidden), graph.constant([0, 0]), both, graph.constant([0, 1])
    )
    end_rows = graph.op("Unsqueeze", graph.op("Gather", mask, ends, axis=0), graph.constant([1]))
    tower = Transformer(
        graph,
        weights,
        prefix="transformer.resblocks",
        width=text["width"],
        heads=text["heads"],
        layers=text["layers"],
        epsilon=epsilon_of(text),
        activation=_activation(checkpoint),
    )
    pooled = tower.run(
        rows,
        read_out=lambda x: graph.op(
            "Unsqueeze", graph.op("GatherND", x, ends, batch_dims=1), graph.constant([1])
        ),
        masks=(mask, end_rows),
    )
    pooled = tower.norm(pooled, "ln_final")
    embeds = graph.op("MatMul", pooled, graph.weight(weights["text_projection"]))
    return graph.op("Squeeze", embeds, graph.constant([1]))


def patches(
    graph: Graph, pixels: str, vision: Mapping[str, Any], weight: str, bias: str | None = None
) -> str:
    """The image cut into patches, each projected: ``[batch, patches, width]``."""
    side = vision["patch_size"]
    projected = graph.op(
        "Conv",
        *(pixels, weight, *([] if bias is None else [bias])),
        strides=[side, side],
        kernel_shape=[side, side],
    )
    rows = graph.op("Reshape", projected, graph.constant([0, vision["width"], -1]))
    return graph.op("Transpose", rows, perm=[0, 2, 1])


def _activation(checkpoint: Checkpoint) -> Activation:
    quick = checkpoint.architecture.get("quick_gelu", False)
    return Activation.QUICK_GELU if quick else Activation.GELU
