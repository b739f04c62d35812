"""Both towers of a CLIP vision transformer as ONNX graphs, with dynamic batch.

Written node by node from OpenCLIP's architecture (open_clip, transformer.py), not traced: this
needs no PyTorch, and only what reaches the output is computed. The last block's attention and MLP
run only for the one token that is read out, since the others would be discarded.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto

from adapters.export.graph import Graph
from adapters.images.preprocessing import MEAN, STD
from adapters.models.checkpoint import Checkpoint, InvalidCheckpoint
from adapters.models.tensors import Tensor
from adapters.models.tokenizer import CONTEXT_LENGTH
from domain.limits import IMAGE_SIZE

IMAGE_INPUT: Final = "pixel_values"
IMAGE_OUTPUT: Final = "image_embeds"
TEXT_INPUT: Final = "input_ids"
TEXT_OUTPUT: Final = "text_embeds"

_VISION_KEYS: Final = {"image_size", "patch_size", "width", "layers", "head_width", "mlp_ratio"}
_TEXT_KEYS: Final = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"}
_SHARED_KEYS: Final = {"norm_kwargs"}


class UnusualTower(InvalidCheckpoint):
    """The architecture is not plain CLIP, the only one that this module can write."""


def image_tower(checkpoint: Checkpoint, graph: Graph | None = None) -> onnx.ModelProto:
    """``pixel_values`` float32 ``[batch, 3, 224, 224]`` → ``image_embeds`` ``[batch, dimension]``.

    The output is float32 and not normalised. The input is normalised with CLIP's mean and standard
    deviation; where the checkpoint has others, the graph converts it.

    Args:
        checkpoint: weights and architecture.
        graph: an empty one, which determines the compute type and where the weights go; by default
            float32 and the checkpoint's own files.

    Raises:
        UnusualTower: not a plain vision transformer.
        InvalidCheckpoint: its weights exceed float16.
    """
    graph = graph or Graph()
    vision = _plain(checkpoint, "vision_cfg", _VISION_KEYS)
    width, patch = vision["width"], vision["patch_size"]
    weights = checkpoint.weights
    patches = graph.op(
        "Conv",
        graph.from_float32(_converted(graph, checkpoint)),
        graph.weight(weights["visual.conv1.weight"]),
        strides=[patch, patch],
        kernel_shape=[patch, patch],
    )
    rows = graph.op("Reshape", patches, graph.constant([0, width, -1]))
    tokens = graph.op("Transpose", rows, perm=[0, 2, 1])
    batch = graph.op("Shape", IMAGE_INPUT, start=0, end=1)
    shape = graph.op("Concat", batch, graph.constant([1, width]), axis=0)
    class_token = graph.op("Expand", graph.weight(weights["visual.class_embedding"]), shape)
    tokens = graph.op("Concat", class_token, tokens, axis=1)
    tokens = graph.op("Add", tokens, graph.weight(weights["visual.positional_embedding"]))
    tower = _Transformer(
        graph,
        weights,
        prefix="visual.transformer.resblocks",
        width=width,
        heads=width // vision.get("head_width", 64),
        layers=vision["layers"],
        epsilon=_epsilon(vision),
        quick_gelu=checkpoint.architecture.get("quick_gelu", False),
    )
    tokens = tower.norm(tokens, "visual.ln_pre")
    first = graph.constant([0])
    pooled = tower.run(tokens, read_out=lambda x: graph.op("Gather", x, first, axis=1), masks=None)
    pooled = tower.norm(pooled, "visual.ln_post")
    embeds = graph.op("MatMul", pooled, graph.weight(weights["visual.proj"]))
    return graph.model(
        "image_tower",
        inputs={IMAGE_INPUT: (TensorProto.FLOAT, ["batch", 3, IMAGE_SIZE, IMAGE_SIZE])},
        output=(IMAGE_OUTPUT, ["batch", checkpoint.embedding_dimension]),
        value=graph.in_float32(graph.op("Squeeze", embeds, graph.constant([1]))),
        metadata=tower_metadata(checkpoint),
    )


def text_tower(checkpoint: Checkpoint) -> onnx.ModelProto:
    """``input_ids`` int64 ``[batch, length]`` → ``text_embeds`` float32 ``[batch, dimension]``.

    Length may be anything up to 77: tokens after the end-of-text token, which has the highest
    number in a row, cannot affect it, because of the causal mask. The output is not normalised.

    Raises:
        UnusualTower: not CLIP's own text tower.
    """
    text = _plain(checkpoint, "text_cfg", _TEXT_KEYS)
    weights = checkpoint.weights
    graph = Graph()
    length = graph.op("Shape", TEXT_INPUT, start=1, end=2)
    zero, axis = graph.constant([0]), graph.constant([0])
    places = graph.op("Slice", graph.weight(weights["positional_embedding"]), zero, length, axis)
    tokens = graph.op("Add", graph.lookup(weights["token_embedding.weight"], TEXT_INPUT), places)
    ends = graph.op("ArgMax", TEXT_INPUT, axis=1, keepdims=1)
    forbidden = np.triu(np.full((CONTEXT_LENGTH,) * 2, -1e30, dtype=np.float32), k=1)
    both = graph.op("Concat", length, length, axis=0)
    mask = graph.op(
        "Slice", graph.constant(forbidden), graph.constant([0, 0]), both, graph.constant([0, 1])
    )
    end_rows = graph.op("Unsqueeze", graph.op("Gather", mask, ends, axis=0), graph.constant([1]))
    tower = _Transformer(
        graph,
        weights,
        prefix="transformer.resblocks",
        width=text["width"],
        heads=text["heads"],
        layers=text["layers"],
        epsilon=_epsilon(text),
        quick_gelu=checkpoint.architecture.get("quick_gelu", False),
    )
    pooled = tower.run(
        tokens,
        read_out=lambda x: graph.op(
            "Unsqueeze", graph.op("GatherND", x, ends, batch_dims=1), graph.constant([1])
        ),
        masks=(mask, end_rows),
    )
    pooled = tower.norm(pooled, "ln_final")
    embeds = graph.op("MatMul", pooled, graph.weight(weights["text_projection"]))
    return graph.model(
        "text_tower",
        inputs={TEXT_INPUT: (TensorProto.INT64, ["batch", "length"])},
        output=(TEXT_OUTPUT, ["batch", checkpoint.embedding_dimension]),
        value=graph.op("Squeeze", embeds, graph.constant([1])),
        metadata=tower_metadata(checkpoint),
    )


def _converted(graph: Graph, checkpoint: Checkpoint) -> str:
    """The input in the checkpoint's own normalisation, in float32."""
    if (conversion := checkpoint.preprocessing.conversion) is None:
        return IMAGE_INPUT
    factor, summand = (graph.constant(values) for values in conversion)
    return graph.op("Add", graph.op("Mul", IMAGE_INPUT, factor), summand)


@dataclass(frozen=True, slots=True)
class _Transformer:
    """Pre-norm residual attention blocks on ``[batch, tokens, width]``."""

    graph: Graph
    weights: Mapping[str, Tensor]
    prefix: str
    width: int
    heads: int
    layers: int
    epsilon: float
    quick_gelu: bool

    def run(
        self, tokens: str, *, read_out: Callable[[str], str], masks: tuple[str, str] | None
    ) -> str:
        """All blocks.

        Args:
            tokens: ``[batch, tokens, width]``.
            read_out: picks the one token that is read of each item: → ``[batch, 1, width]``.
            masks: added to the attention scores: of all tokens, and of the token that is read.

        Returns:
            That token after the last block, ``[batch, 1, width]``.
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
        name = f"{self.prefix}.{layer}"
        normed = self.norm(tokens, f"{name}.ln_1")
        queries = normed if read_out is None else read_out(normed)
        kept = tokens if read_out is None else read_out(tokens)
        attended = self._attention(f"{name}.attn", queries, normed, mask)
        kept = self.graph.op("Add", kept, attended)
        return self.graph.op("Add", kept, self._mlp(name, self.norm(kept, f"{name}.ln_2")))

    def _attention(self, name: str, queries: str, tokens: str, mask: str | None) -> str:
        graph = self.graph
        query, key, value = self._in_projection(name, queries, tokens)
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
        return self._linear(
            joined,
            self.graph.weight(self.weights[f"{name}.out_proj.weight"]),
            self.graph.weight(self.weights[f"{name}.out_proj.bias"]),
        )

    def _in_projection(self, name: str, queries: str, tokens: str) -> tuple[str, str, str]:
        """Query ``[batch, heads, n, d]``, key ``[batch, heads, d, m]``, value like the query."""
        graph = self.graph
        matrix = graph.weight(self.weights[f"{name}.in_proj_weight"])
        bias = graph.weight(self.weights[f"{name}.in_proj_bias"])
        split = graph.constant([0, 0, self.heads, self.width // self.heads])
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
            results.append(graph.op("Transpose", graph.op("Reshape", projected, split), perm=order))
        query, key, value = results
        return query, key, value

    def _mlp(self, name: str, value: str) -> str:
        graph = self.graph
        hidden = self._linear(
            value,
            graph.weight(self.weights[f"{name}.mlp.c_fc.weight"]),
            graph.weight(self.weights[f"{name}.mlp.c_fc.bias"]),
        )
        if self.quick_gelu:
            gate = graph.op("Sigmoid", graph.op("Mul", hidden, graph.constant(1.702)))
            hidden = graph.op("Mul", hidden, gate)
        else:
            scaled = graph.op("Div", hidden, graph.constant(float(np.sqrt(2.0))))
            gate = graph.op("Add", graph.op("Erf", scaled), graph.constant(1.0))
            hidden = graph.op("Mul", graph.op("Mul", hidden, gate), graph.constant(0.5))
        return self._linear(
            hidden,
            graph.weight(self.weights[f"{name}.mlp.c_proj.weight"]),
            graph.weight(self.weights[f"{name}.mlp.c_proj.bias"]),
        )

    def _linear(self, value: str, weight: str, bias: str) -> str:
        """``value @ weight.T + bias``, the weight stored as in PyTorch's linear layers."""
        turned = self.graph.op("Transpose", weight, perm=[1, 0])
        return self.graph.op("Add", self.graph.op("MatMul", value, turned), bias)


def _plain(checkpoint: Checkpoint, section: str, known: set[str]) -> Mapping[str, Any]:
    """The tower's settings, if it is plain CLIP's."""
    settings: Mapping[str, Any] = checkpoint.architecture[section]
    unusual = {key for key, value in settings.items() if key not in known | _SHARED_KEYS and value}
    if checkpoint.architecture.get("custom_text") or isinstance(settings.get("layers"), list):
        unusual.add("custom tower")
    if unusual:
        raise UnusualTower(
            f"{checkpoint.model}: its {section} is not plain CLIP ({', '.join(sorted(unusual))}); "
            "only the torch encoder can serve it."
        )
    return settings


def _epsilon(settings: Mapping[str, Any]) -> float:
    return float((settings.get("norm_kwargs") or {}).get("eps", 1e-5))


def tower_metadata(checkpoint: Checkpoint) -> dict[str, str]:
    """What is stored with a graph: which checkpoint it comes from, and what its input must be."""
    return {
        "model": checkpoint.model,
        "fingerprint": checkpoint.fingerprint,
        # What the server does to every picture; where the checkpoint has another mean and standard
        # deviation, the graph itself converts.
        "preprocessing": f"short side {IMAGE_SIZE} bicubic, centre crop, mean {MEAN}, std {STD}",
    }
