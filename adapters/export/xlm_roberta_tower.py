"""XLM-RoBERTa as a text tower (Conneau et al. 2020, arXiv:1911.02116; open_clip, hf_model.py).

Bidirectional, normalised after each half of a block, and read out as the mean of all tokens that
are not padding.
"""

from onnx import TensorProto

from adapters.export.graph import Graph
from adapters.export.transformer import Activation, Transformer
from adapters.models.architecture import XLM_ROBERTAS, xlm_roberta
from adapters.models.checkpoint import Checkpoint

_MODEL = "text.transformer"
EPSILON = 1e-5
PADDING = 1
"""The token that fills up. Positions are counted from the next number (fairseq's convention)."""


def text_tower(graph: Graph, checkpoint: Checkpoint, tokens: str) -> str:
    """Token numbers ``[batch, length]``, padded on the right → ``[batch, dimension]``."""
    size = XLM_ROBERTAS[xlm_roberta(checkpoint.architecture["text_cfg"]) or ""]
    weights = checkpoint.weights
    tower = Transformer(
        graph,
        weights,
        prefix=f"{_MODEL}.encoder.layer",
        width=size["width"],
        heads=size["heads"],
        layers=size["layers"],
        epsilon=EPSILON,
        activation=Activation.GELU,
    )
    padding = graph.op("Equal", tokens, graph.constant([PADDING]))
    rows = _embedded(tower, tokens)
    # -1e30 for each token that is padding, in the shape of the attention's scores.
    forbidden = graph.op(
        "Mul", graph.op("Cast", padding, to=TensorProto.FLOAT), graph.constant(-1e30)
    )
    mask = graph.op("Unsqueeze", forbidden, graph.constant([1, 2]))
    for layer in range(size["layers"]):
        rows = _block(tower, f"{tower.prefix}.{layer}", rows, mask)
    mean = _mean(graph, rows, graph.op("Not", padding))
    # Both without bias; `Transformer.mlp` puts the exact GELU between them.
    return tower.mlp(mean, "text.proj.0", "text.proj.2")


def _embedded(tower: Transformer, tokens: str) -> str:
    graph, weights, name = tower.graph, tower.weights, f"{_MODEL}.embeddings"
    length = graph.op("Shape", tokens, start=1, end=2)
    first = graph.constant([PADDING + 1])
    places = graph.op(
        "Slice",
        graph.weight(weights[f"{name}.position_embeddings.weight"]),
        first,
        graph.op("Add", length, first),
        graph.constant([0]),
    )
    rows = graph.op("Add", graph.lookup(weights[f"{name}.word_embeddings.weight"], tokens), places)
    # There is one type of token, added to each.
    kind = graph.weight(weights[f"{name}.token_type_embeddings.weight"])
    return tower.norm(graph.op("Add", rows, kind), f"{name}.LayerNorm")


def _block(tower: Transformer, name: str, rows: str, mask: str) -> str:
    graph = tower.graph
    attended = tower.attention(
        tower.split_heads(tower.linear(rows, f"{name}.attention.self.query"), [0, 2, 1, 3]),
        tower.split_heads(tower.linear(rows, f"{name}.attention.self.key"), [0, 2, 3, 1]),
        tower.split_heads(tower.linear(rows, f"{name}.attention.self.value"), [0, 2, 1, 3]),
        f"{name}.attention.output.dense",
        mask,
    )
    rows = tower.norm(graph.op("Add", rows, attended), f"{name}.attention.output.LayerNorm")
    mlp = tower.mlp(rows, f"{name}.intermediate.dense", f"{name}.output.dense")
    return tower.norm(graph.op("Add", rows, mlp), f"{name}.output.LayerNorm")


def _mean(graph: Graph, rows: str, counted: str) -> str:
    """The mean of the rows that count: ``[batch, length, width]`` → ``[batch, width]``."""
    weights = graph.op(
        "Unsqueeze", graph.op("Cast", counted, to=TensorProto.FLOAT), graph.constant([2])
    )
    axis = graph.constant([1])
    total = graph.op("ReduceSum", graph.op("Mul", rows, weights), axis, keepdims=0)
    return graph.op("Div", total, graph.op("ReduceSum", weights, axis, keepdims=0))
