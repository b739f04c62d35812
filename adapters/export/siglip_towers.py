"""SigLIP's towers (Zhai et al. 2023, arXiv:2303.15343): no class token, and no causal mask.

The image tower is read out by attention from one learnt query (timm, ``AttentionPoolLatent``), the
text tower at its last token, whatever that is.
"""

from collections.abc import Mapping
from typing import Any

from adapters.export.clip_towers import patches
from adapters.export.graph import Graph
from adapters.export.transformer import TIMMS, Activation, Transformer
from adapters.models.architecture import epsilon_of
from adapters.models.checkpoint import Checkpoint

_TRUNK = "visual.trunk"
_POOL = "visual.trunk.attn_pool"


def image_tower(graph: Graph, checkpoint: Checkpoint, pixels: str) -> str:
    """Pixels ``[batch, 3, size, size]`` → ``[batch, dimension]``."""
    vision = checkpoint.architecture["vision_cfg"]
    weights = checkpoint.weights
    tokens = patches(
        graph,
        pixels,
        vision,
        graph.weight(weights[f"{_TRUNK}.patch_embed.proj.weight"]),
        graph.weight(weights[f"{_TRUNK}.patch_embed.proj.bias"]),
    )
    tokens = graph.op("Add", tokens, graph.weight(weights[f"{_TRUNK}.pos_embed"]))
    tower = Transformer(
        graph,
        weights,
        prefix=f"{_TRUNK}.blocks",
        width=vision["width"],
        heads=vision["heads"],
        layers=vision["layers"],
        epsilon=epsilon_of(vision),
        activation=_activation(vision),
        names=TIMMS,
    )
    tokens = tower.norm(tower.run(tokens), f"{_TRUNK}.norm")
    pooled = _pooled(tower, tokens)
    mlp = tower.mlp(tower.norm(pooled, f"{_POOL}.norm"), f"{_POOL}.mlp.fc1", f"{_POOL}.mlp.fc2")
    embeds = graph.op("Add", pooled, mlp)
    return graph.op("Squeeze", embeds, graph.constant([1]))


def text_tower(graph: Graph, checkpoint: Checkpoint, tokens: str) -> str:
    """Token numbers ``[batch, context length]`` → ``[batch, dimension]``."""
    text = checkpoint.architecture["text_cfg"]
    weights = checkpoint.weights
    rows = graph.op(
        "Add",
        graph.lookup(weights["text.token_embedding.weight"], tokens),
        graph.weight(weights["text.positional_embedding"]),
    )
    tower = Transformer(
        graph,
        weights,
        prefix="text.transformer.resblocks",
        width=text["width"],
        heads=text["heads"],
        layers=text["layers"],
        epsilon=epsilon_of(text),
        activation=_activation(text),
    )
    last = graph.constant([-1])
    pooled = tower.run(rows, read_out=lambda x: graph.op("Gather", x, last, axis=1))
    embeds = tower.linear(tower.norm(pooled, "text.ln_final"), "text.text_projection")
    return graph.op("Squeeze", embeds, graph.constant([1]))


def _pooled(tower: Transformer, tokens: str) -> str:
    """What the learnt query finds in the tokens: ``[batch, 1, width]``."""
    graph, width = tower.graph, tower.width
    asked = tower.linear(graph.weight(tower.weights[f"{_POOL}.latent"]), f"{_POOL}.q")
    both = tower.linear(tokens, f"{_POOL}.kv")
    axis = graph.constant([2])
    key = graph.op("Slice", both, graph.constant([0]), graph.constant([width]), axis)
    value = graph.op("Slice", both, graph.constant([width]), graph.constant([2 * width]), axis)
    return tower.attention(
        tower.split_heads(asked, [0, 2, 1, 3]),
        tower.split_heads(key, [0, 2, 3, 1]),
        tower.split_heads(value, [0, 2, 1, 3]),
        f"{_POOL}.proj",
    )


def _activation(tower: Mapping[str, Any]) -> Activation:
    tanh = (tower.get("act_kwargs") or {}).get("approximate") == "tanh"
    return Activation.GELU_TANH if tanh else Activation.GELU
