"""The two towers of an OpenCLIP model, run piece by piece so that training is fast on a CPU.

The results are those of `open_clip.CLIP.encode_image` and `encode_text`. The differences: images
may be smaller than the model's 224 pixels (the position table is resampled), texts shorter than 77
tokens, and attention is written out, because PyTorch's fused attention has a slow backward pass on
CPUs for short sequences.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

MODEL_CONFIG: dict[str, Any] = {
    "embed_dim": 768,
    "quick_gelu": False,
    "vision_cfg": {
        "image_size": 224,
        "patch_size": 16,
        "width": 256,
        "layers": 8,
        "head_width": 64,
    },
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 192,
        "heads": 3,
        "layers": 4,
    },
}
IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)


def _attend(attention: Any, inputs: Tensor, mask: Tensor | None) -> Tensor:
    count, length, width = inputs.shape
    heads = attention.num_heads
    packed = functional.linear(inputs, attention.in_proj_weight, attention.in_proj_bias)
    packed = packed.view(count, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    query, key, value = packed.unbind(0)
    scores = (query * (width // heads) ** -0.5) @ key.transpose(-1, -2)
    if mask is not None:
        scores = scores + mask
    mixed = (scores.softmax(-1) @ value).transpose(1, 2).reshape(count, length, width)
    return functional.linear(mixed, attention.out_proj.weight, attention.out_proj.bias)


def _block(block: Any, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
    hidden = inputs + _attend(block.attn, _norm(block.ln_1, inputs), mask)
    expanded: Tensor = functional.gelu(block.mlp.c_fc(_norm(block.ln_2, hidden)))
    projected: Tensor = block.mlp.c_proj(expanded)
    return hidden + projected


def _norm(norm: Any, inputs: Tensor) -> Tensor:
    return functional.layer_norm(inputs, (inputs.shape[-1],), norm.weight, norm.bias, norm.eps)


def _positions(table: Tensor, side: int) -> Tensor:
    """Resamples the position table [1 + g * g, width] to a grid of `side` x `side`."""
    grid = math.isqrt(len(table) - 1)
    if grid == side:
        return table
    image = table[1:].T.reshape(1, -1, grid, grid).float()
    small = functional.interpolate(image, (side, side), mode="bilinear", antialias=True)
    return torch.cat([table[:1], small.flatten(2)[0].T.to(table.dtype)])


def image_features(visual: Any, images: Tensor) -> Tensor:
    """Runs the image tower.

    Args:
        visual: `open_clip.CLIP.visual`, a VisionTransformer.
        images: normalised [n, 3, s, s] in the tower's dtype, s a multiple of the patch size.

    Returns:
        [n, 768], not normalised.
    """
    weight = visual.conv1.weight
    patch = weight.shape[-1]
    count, channels, size, _ = images.shape
    side = size // patch
    patches = images.view(count, channels, side, patch, side, patch).permute(0, 2, 4, 1, 3, 5)
    patches = patches.reshape(count, side * side, channels * patch * patch)
    tokens = functional.linear(patches, weight.flatten(1))
    first = visual.class_embedding.expand(count, 1, -1)
    tokens = torch.cat([first, tokens], 1) + _positions(visual.positional_embedding, side)
    tokens = _norm(visual.ln_pre, tokens)
    for block in visual.transformer.resblocks:
        tokens = _block(block, tokens)
    features: Tensor = _norm(visual.ln_post, tokens[:, 0]) @ visual.proj
    return features


def text_features(model: Any, tokens: Tensor, ends: Tensor, known: Tensor | None = None) -> Tensor:
    """Runs the text tower.

    Args:
        model: the `open_clip.CLIP`.
        tokens: int64 [n, length], rows of the model's token table, length at most 77.
        ends: int64 [n], the place of each end-of-text token.
        known: bool [n, length]; where False a token's embedding is zero, as for a row that the
            checkpoint doesn't hold.

    Returns:
        [n, 768], not normalised.
    """
    length = tokens.shape[1]
    inputs = model.token_embedding(tokens)
    if known is not None:
        inputs = inputs * known[:, :, None].to(inputs.dtype)
    inputs = inputs + model.positional_embedding[:length]
    mask = torch.full((length, length), -math.inf, dtype=inputs.dtype).triu(1)
    for block in model.transformer.resblocks:
        inputs = _block(block, inputs, mask)
    last = inputs[torch.arange(len(inputs)), ends]
    features: Tensor = _norm(model.ln_final, last) @ model.text_projection
    return features


def compact_model(rows: int) -> nn.Module:
    """Builds the model with a token table of only `rows` rows, randomly initialised."""
    from open_clip.model import CLIP

    config = {**MODEL_CONFIG, "text_cfg": {**MODEL_CONFIG["text_cfg"], "vocab_size": rows}}
    model: nn.Module = CLIP(**config)
    return model
