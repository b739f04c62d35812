"""The blocks that all towers are made of, written into a graph."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

import numpy as np

from adapters.export.graph import Graph
from adapters.models.tensors import Tensor


class Activation(Enum):
    """What stands between the two layers of an MLP."""

    QUICK_GELU = auto()
    """x * sigmoid(1.702 x), OpenAI's approximation."""
    GELU = auto()
    """Hendrycks and Gimpel 2016 (arXiv:1606.08415), by the error function."""
    GELU_TANH = auto()
    """Their own approximation by tanh."""


@dataclass(frozen=True, slots=True)
class BlockNames:
    """What a block's parts are called in a state dict; ``attention_in`` is only a prefix."""

    norm_1: str
    attention_in: str
    attention_out: str
    norm_2: str
    mlp_in: str
    mlp_out: str


OPEN_CLIPS: Final = BlockNames(
    "ln_1", "attn.in_proj_", "attn.out_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"
)
TIMMS: Final = BlockNames("norm1", "attn.qkv.", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")


@dataclass(frozen=True, slots=True)
class Transformer:
    """Pre-norm residual attention blocks on ``[batch, tokens, width]``."""

    graph: Graph
    weights: Mapping[str, Tensor]
    prefix: str
    width: int
    heads: int
    layers: int
    epsilon: float
    activation: Activation
    names: BlockNames = OPEN_CLIPS

    def run(
        self,
        tokens: str,
        *,
        read_out: Callable[[str], str] | None = None,
        masks: tuple[str, str] | None = None,
    ) -> str:
        """All blocks.

        Args:
            tokens: ``[batch, tokens, width]``.
            read_out: picks the one token that is read of each item: → ``[batch, 1, width]``; None:
                all are read.
            masks: added to the attention scores: of all tokens, and of the token that is read.

        Returns:
            That token after the last block, ``[batch, 1, width]``; or all of them.
        """
        for layer in range(self.layers - 1):
            tokens = self._block(layer, tokens, None, masks[0] if masks else None)
        return self._block(self.layers - 1, tokens, read_out, masks[1] if masks else None)

    def norm(self, value: str, name: str) -> str:
        """Layer normalisation over the last axis, in float32 as OpenCLIP does it."""
        normed = self.graph.op(
            "LayerNormalization",
            self.graph.in_float32(value),
            self.graph.weight(self.weights[f"{name}.weight"], exact=True),
            self.graph.weight(self.weights[f"{name}.bias"], exact=True),
            axis=-1,
            epsilon=self.epsilon,
        )
        return self.graph.from_float32(normed)

    def _block(
        self, layer: int, tokens: str, read_out: Callable[[str], str] | None, mask: str | None
    ) -> str:
        name, names = f"{self.prefix}.{layer}", self.names
        normed = self.norm(tokens, f"{name}.{names.norm_1}")
        queries = normed if read_out is None else read_out(normed)
        kept = tokens if read_out is None else read_out(tokens)
        attended = self.attention(
            *self._in_projection(name, queries, normed), f"{name}.{names.attention_out}", mask
        )
        kept = self.graph.op("Add", kept, attended)
        normed = self.norm(kept, f"{name}.{names.norm_2}")
        mlp = self.mlp(normed, f"{name}.{names.mlp_in}", f"{name}.{names.mlp_out}")
        return self.graph.op("Add", kept, mlp)

    def attention(
        self, query: str, key: str, value: str, output: str, mask: str | None = None
    ) -> str:
        """Multi-head attention (Vaswani et al. 2017) after its input projections.

        Args:
            query: ``[batch, heads, n, d]``.
            key: ``[batch, heads, d, m]``.
            value: ``[batch, heads, m, d]``.
            output: the name of the output projection.
            mask: added to the scores ``[batch, heads, n, m]``.

        Returns:
            ``[batch, n, width]``.
        """
        graph = self.graph
        scale = graph.constant(float((self.width // self.heads) ** -0.5))
        scores = graph.op("MatMul", graph.op("Mul", query, scale), key)
        if mask is not None:
            scores = graph.op("Add", scores, mask)
        mixed = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), value)
        joined = graph.op(
            "Reshape",
            graph.op("Transpose", mixed, perm=[0, 2, 1, 3]),
            graph.constant([0, 0, self.width]),
        )
        return self.linear(joined, output)

    def split_heads(self, value: str, order: Sequence[int]) -> str:
        """``[batch, n, width]`` as heads ``[batch, n, heads, d]``, then in this order of axes."""
        shape = self.graph.constant([0, 0, self.heads, self.width // self.heads])
        return self.graph.op("Transpose", self.graph.op("Reshape", value, shape), perm=list(order))

    def linear(self, value: str, name: str) -> str:
        """The linear layer of that name; its bias may be missing."""
        bias = self.weights.get(f"{name}.bias")
        return self._linear(
            value,
            self.graph.weight(self.weights[f"{name}.weight"]),
            None if bias is None else self.graph.weight(bias),
        )

    def mlp(self, value: str, first: str, second: str) -> str:
        """Two linear layers with the activation between them."""
        return self.linear(self._activated(self.linear(value, first)), second)

    def _in_projection(self, name: str, queries: str, tokens: str) -> tuple[str, str, str]:
        """Query ``[batch, heads, n, d]``, key ``[batch, heads, d, m]``, value like the query."""
        graph = self.graph
        joint = f"{name}.{self.names.attention_in}"
        matrix = graph.weight(self.weights[f"{joint}weight"])
        bias = graph.weight(self.weights[f"{joint}bias"])
        results = []
        for place, (source, order) in enumerate(
            ((queries, [0, 2, 1, 3]), (tokens, [0, 2, 3, 1]), (tokens, [0, 2, 1, 3]))
        ):
            span = [
                graph.constant([place * self.width]),
                graph.constant([(place + 1) * self.width]),
                graph.constant([0]),
            ]
            projected = self._linear(
                source, graph.op("Slice", matrix, *span), graph.op("Slice", bias, *span)
            )
            results.append(self.split_heads(projected, order))
        query, key, value = results
        return query, key, value

    def _activated(self, hidden: str) -> str:
        graph = self.graph
        match self.activation:
            case Activation.QUICK_GELU:
                gate = graph.op("Sigmoid", graph.op("Mul", hidden, graph.constant(1.702)))
                return graph.op("Mul", hidden, gate)
            case Activation.GELU:
                scaled = graph.op("Div", hidden, graph.constant(float(np.sqrt(2.0))))
                gate = graph.op("Add", graph.op("Erf", scaled), graph.constant(1.0))
                return graph.op("Mul", graph.op("Mul", hidden, gate), graph.constant(0.5))
            case Activation.GELU_TANH:
                cube = graph.op("Pow", hidden, graph.constant(3.0))
                bent = graph.op("Add", hidden, graph.op("Mul", cube, graph.constant(0.044715)))
                scaled = graph.op("Mul", bent, graph.constant(float(np.sqrt(2.0 / np.pi))))
                gate = graph.op("Add", graph.op("Tanh", scaled), graph.constant(1.0))
                return graph.op("Mul", hidden, graph.op("Mul", gate, graph.constant(0.5)))

    def _linear(self, value: str, weight: str, bias: str | None) -> str:
        """``value @ weight.T + bias``, the weight stored as in PyTorch's linear layers."""
        turned = self.graph.op("Transpose", weight, perm=[1, 0])
        product = self.graph.op("MatMul", value, turned)
        return product if bias is None else self.graph.op("Add", product, bias)
