"""Checkpoints in Hugging Face's CLIP layout: ``config.json`` beside the weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from adapters.models.checkpoint import (
    Checkpoint,
    InvalidCheckpoint,
    architecture_name,
    check_servable,
    read_description,
)
from adapters.models.preprocessing import (
    CLIPS_OWN,
    Preprocessing,
    UnservedPreprocessing,
    from_hugging_face,
)
from adapters.models.tensors import Stacked, Tensor, Transposed
from adapters.models.weights_files import first_existing, read_weights

CONFIG: Final = "config.json"
_PROCESSOR: Final = "processor_config.json"
_IMAGE_PROCESSOR: Final = "preprocessor_config.json"
DESCRIPTIONS: Final = (CONFIG, _PROCESSOR, _IMAGE_PROCESSOR)
"""The small files that are read, the one that must be there first."""
WEIGHTS: Final = ("model.safetensors", "pytorch_model.bin")

# What transformers' CLIPTextConfig and CLIPVisionConfig assume where config.json says nothing.
_TEXT_DEFAULTS: Final[Mapping[str, Any]] = {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "vocab_size": 49408,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
_VISION_DEFAULTS: Final[Mapping[str, Any]] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}

_BLOCK_NAMES: Final = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def read_hugging_face(directory: Path) -> Checkpoint:
    """Read a directory written by `transformers.CLIPModel.save_pretrained`.

    Raises:
        InvalidCheckpoint: not a CLIP model, damaged, or one that this service cannot serve.
    """
    architecture, preprocessing = describe(directory)
    path = first_existing(directory, WEIGHTS)
    stored = read_weights(path)
    try:
        weights = _to_open_clip(stored, architecture)
    except KeyError as missing:
        raise InvalidCheckpoint(f"{path} lacks the tensor {missing}.") from missing
    return Checkpoint(architecture_name(architecture), architecture, weights, preprocessing)


def describe(directory: Path) -> tuple[dict[str, Any], Preprocessing]:
    """Architecture and preprocessing, from the small files alone.

    Raises:
        InvalidCheckpoint: not a CLIP model, or one that this service cannot serve.
    """
    path = directory / CONFIG
    try:
        architecture = _architecture(path)
    except (TypeError, ZeroDivisionError, OverflowError) as impossible:
        raise InvalidCheckpoint(f"{path} has impossible sizes: {impossible}.") from impossible
    check_servable(architecture, origin=str(directory))
    return architecture, _preprocessing(directory)


def _preprocessing(directory: Path) -> Preprocessing:
    """The image processor's settings; CLIP's own if there is no such file.

    transformers writes them to ``processor_config.json`` since version 5, and prefers that file if
    both exist (`get_image_processor_config`).
    """
    for name, section in ((_PROCESSOR, "image_processor"), (_IMAGE_PROCESSOR, None)):
        path = directory / name
        if not path.is_file():
            continue
        config = read_description(path)
        if section is not None and isinstance(config, dict):
            if section not in config:
                continue  # older versions keep only the processor's class there
            config = config[section]
        if not isinstance(config, dict):
            raise InvalidCheckpoint(f"{path} does not describe an image processor.")
        try:
            return from_hugging_face(config)
        except UnservedPreprocessing as unserved:
            raise InvalidCheckpoint(f"{path}: {unserved}.") from unserved
    return CLIPS_OWN


def _architecture(path: Path) -> dict[str, Any]:
    """OpenCLIP's ``model_cfg`` for a ``config.json``."""
    config = read_description(path)
    if not isinstance(config, dict) or config.get("model_type") != "clip":
        found = config.get("model_type") if isinstance(config, dict) else type(config).__name__
        raise InvalidCheckpoint(f"{path} has model_type {found!r}; only 'clip' can be served.")
    # Old files, OpenAI's own among them, keep the full settings under text_config_dict.
    text = {**_TEXT_DEFAULTS, **_section(config, "text_config")}
    vision = {**_VISION_DEFAULTS, **_section(config, "vision_config")}
    for section, tower, usual in (
        ("text", text, _TEXT_DEFAULTS),
        ("vision", vision, _VISION_DEFAULTS),
    ):
        for key, value in usual.items():
            # Exactly: to Python, True is a number too.
            if isinstance(value, int) and type(tower[key]) is not int:
                raise InvalidCheckpoint(
                    f"{path} has {key} {str(tower[key])[:40]!r} in {section}_config; it must be a "
                    "whole number."
                )
    activations = {text["hidden_act"], vision["hidden_act"]}
    if activations not in ({"quick_gelu"}, {"gelu"}):
        raise InvalidCheckpoint(
            f"{path} has the activations {', '.join(sorted(map(str, activations)))}; "
            "both towers must have quick_gelu, or both gelu."
        )
    return {
        "embed_dim": config.get("projection_dim", 512),
        "quick_gelu": activations == {"quick_gelu"},
        "vision_cfg": {
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "width": vision["hidden_size"],
            "layers": vision["num_hidden_layers"],
            "head_width": vision["hidden_size"] // vision["num_attention_heads"],
            "mlp_ratio": vision["intermediate_size"] / vision["hidden_size"],
            **_norm_settings(vision),
        },
        "text_cfg": {
            "context_length": text["max_position_embeddings"],
            "vocab_size": text["vocab_size"],
            "width": text["hidden_size"],
            "heads": text["num_attention_heads"],
            "layers": text["num_hidden_layers"],
            "mlp_ratio": text["intermediate_size"] / text["hidden_size"],
            **_norm_settings(text),
        },
    }


def _norm_settings(tower: Mapping[str, Any]) -> dict[str, Any]:
    # OpenCLIP's layer norm has 1e-5 by default.
    epsilon = tower["layer_norm_eps"]
    return {} if epsilon == 1e-5 else {"norm_kwargs": {"eps": epsilon}}


def _section(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {**(config.get(name) or {}), **(config.get(f"{name}_dict") or {})}


def _to_open_clip(
    stored: Mapping[str, Tensor], architecture: Mapping[str, Any]
) -> dict[str, Tensor]:
    """The same weights under OpenCLIP's names. Raises KeyError with a missing tensor's name."""
    weights: dict[str, Tensor] = {
        "logit_scale": stored["logit_scale"],
        "token_embedding.weight": stored["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": stored["text_model.embeddings.position_embedding.weight"],
        # Linear layers store their weight transposed; OpenCLIP multiplies by the matrix itself.
        "text_projection": Transposed(stored["text_projection.weight"]),
        "visual.proj": Transposed(stored["visual_projection.weight"]),
        "visual.class_embedding": stored["vision_model.embeddings.class_embedding"],
        "visual.conv1.weight": stored["vision_model.embeddings.patch_embedding.weight"],
        "visual.positional_embedding": stored["vision_model.embeddings.position_embedding.weight"],
    }
    for theirs, ours in (
        ("text_model.final_layer_norm", "ln_final"),
        ("vision_model.pre_layrnorm", "visual.ln_pre"),  # spelt so in every checkpoint
        ("vision_model.post_layernorm", "visual.ln_post"),
    ):
        for part in ("weight", "bias"):
            weights[f"{ours}.{part}"] = stored[f"{theirs}.{part}"]
    for theirs, ours, layers in (
        ("text_model", "", architecture["text_cfg"]["layers"]),
        ("vision_model", "visual.", architecture["vision_cfg"]["layers"]),
    ):
        for layer in range(layers):
            source = f"{theirs}.encoder.layers.{layer}"
            target = f"{ours}transformer.resblocks.{layer}"
            for part in ("weight", "bias"):
                for their_name, our_name in _BLOCK_NAMES.items():
                    weights[f"{target}.{our_name}.{part}"] = stored[f"{source}.{their_name}.{part}"]
                weights[f"{target}.attn.in_proj_{part}"] = Stacked(
                    [stored[f"{source}.self_attn.{x}_proj.{part}"] for x in "qkv"]
                )
    return weights
