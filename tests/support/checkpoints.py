"""Checkpoints with seeded random weights, written in both layouts."""

import gzip
import json
import warnings
from pathlib import Path
from typing import Any

SMALL = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}


def small_clip(**changes: Any) -> Any:
    """A `transformers.CLIPModel` with tiny towers, 768-dimensional embeddings and random weights.

    Args:
        changes: settings of both towers, such as ``hidden_act``.
    """
    return _clip(
        text={**SMALL, "intermediate_size": 128, **changes},
        vision={**SMALL, "intermediate_size": 256, "patch_size": 32, **changes},
    )


def full_size_clip() -> Any:
    """A `transformers.CLIPModel` of ViT-L/14's shape with random weights (1.7 GB)."""
    return _clip(
        text={
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
        },
        vision={
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "patch_size": 14,
        },
    )


def full_size_vit_b() -> Any:
    """A `transformers.CLIPModel` of ViT-B/32's shape with random weights (0.6 GB)."""
    return _clip(
        text={
            "hidden_size": 512,
            "intermediate_size": 2048,
            "num_hidden_layers": 12,
            "num_attention_heads": 8,
        },
        vision={
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "patch_size": 32,
        },
        dimension=512,
    )


def _clip(text: dict[str, Any], vision: dict[str, Any], dimension: int = 768) -> Any:
    import torch
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(20261123)
    model = CLIPModel(
        CLIPConfig(
            projection_dim=dimension,
            text_config={**text, "projection_dim": dimension},
            vision_config={**vision, "projection_dim": dimension},
        )
    ).eval()
    # As trained checkpoints have it; 2.66, the initial value, would hide a forgotten scale.
    model.logit_scale.data.fill_(4.6052)
    return model


def save_hugging_face(model: Any, directory: Path) -> Path:
    """Write Hugging Face's layout; returns the directory."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(directory)
    return directory


def save_open_clip(source: Path, directory: Path) -> Path:
    """Write a Hugging Face directory's weights once more, in OpenCLIP's layout."""
    from safetensors.numpy import save_file

    from adapters.models.reading import read_checkpoint

    checkpoint = read_checkpoint(str(source))
    directory.mkdir()
    config = {"model_cfg": checkpoint.architecture, "preprocess_cfg": {}}
    (directory / "open_clip_config.json").write_text(json.dumps(config))
    weights = {name: tensor.array() for name, tensor in checkpoint.weights.items()}
    save_file(weights, directory / "open_clip_model.safetensors")
    return directory


def clip_tokenizer(directory: Path) -> Any:
    """transformers' tokenizer, from the merges that come with open_clip: no network.

    Writes its files into the directory.
    """
    import open_clip.tokenizer
    from transformers import CLIPTokenizer

    packed = Path(open_clip.tokenizer.default_bpe()).read_bytes()
    merges = gzip.decompress(packed).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    vocabulary = open_clip.tokenizer._tokenizer.encoder
    renamed = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    (directory / "vocab.json").write_text(
        json.dumps({renamed.get(token, token): number for token, number in vocabulary.items()})
    )
    (directory / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    return CLIPTokenizer.from_pretrained(directory)


def save_resnet(directory: Path) -> Path:
    """A small OpenCLIP checkpoint whose image tower is a ResNet."""
    import open_clip.model
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(5)
    architecture = {
        "embed_dim": 768,
        "vision_cfg": {"image_size": 224, "layers": [1, 1, 1, 1], "width": 16},
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": 64,
            "heads": 2,
            "layers": 2,
        },
    }
    model = open_clip.model.CLIP(**architecture).eval()
    directory.mkdir()
    (directory / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": architecture, "preprocess_cfg": {}})
    )
    save_file(model.state_dict(), directory / "open_clip_model.safetensors")
    return directory
