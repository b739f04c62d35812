"""Checkpoints in Hugging Face's layout: ``config.json`` beside the weights."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from adapters.models import preprocessing, tokenization
from adapters.models.architecture import (
    FAMILIES,
    Family,
    check_servable,
    family_of,
    image_size_of,
    siglip,
)
from adapters.models.checkpoint import Checkpoint, Described, check_size
from adapters.models.checkpoint_files import InvalidCheckpoint, read_description
from adapters.models.preprocessing import Preprocessing, UnservedPreprocessing, from_hugging_face
from adapters.models.tensors import Stacked, Tensor, Transposed, reshaped, rows_of
from adapters.models.tokenization import Tokenization
from adapters.models.weights_files import first_existing, read_weights

CONFIG: Final = "config.json"
_PROCESSOR: Final = "processor_config.json"
_IMAGE_PROCESSOR: Final = "preprocessor_config.json"
WEIGHTS: Final = ("model.safetensors", "pytorch_model.bin")

# Defaults of transformers' CLIPTextConfig and CLIPVisionConfig for values missing in config.json.
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

# The same for SiglipTextConfig and SiglipVisionConfig.
_SIGLIPS_TEXT_DEFAULTS: Final[Mapping[str, Any]] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 64,
    "vocab_size": 32000,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}
_SIGLIPS_VISION_DEFAULTS: Final[Mapping[str, Any]] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 16,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}

_GELUS: Final = {"gelu_pytorch_tanh": True, "gelu": False}
"""Whether the activation uses tanh, by transformers' name for it."""

_JOINT: Final = "attn.in_proj_{}"
_TIMMS_JOINT: Final = "attn.qkv.{}"
_TIMMS_NAMES: Final = {
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "self_attn.out_proj": "attn.proj",
}
_BLOCK_NAMES: Final = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def read_hugging_face(directory: Path) -> Checkpoint:
    """Read a directory written by `save_pretrained` of `CLIPModel` or `SiglipModel`.

    Raises:
        InvalidCheckpoint: not such a model, damaged, or one that this service cannot serve.
    """
    described = describe(directory)
    path = first_existing(directory, WEIGHTS)
    stored = read_weights(path)
    is_siglip = family_of(described.architecture) is Family.SIGLIP
    convert = _siglip_weights if is_siglip else _clip_weights
    try:
        weights = convert(stored, described.architecture)
    except KeyError as missing:
        raise InvalidCheckpoint(f"{path} lacks the tensor {missing}.") from missing
    except TypeError as mismatch:
        raise InvalidCheckpoint(f"{path} does not belong to its config.json: {mismatch}.") from None
    return described.with_weights(weights)


def describe(directory: Path) -> Described:
    """Everything except the weights, read from only the small files.

    Raises:
        InvalidCheckpoint: not a known model, or one that this service cannot serve.
    """
    path = directory / CONFIG
    config = _config(path)
    is_siglip = config["model_type"] == "siglip"
    try:
        architecture = (_siglip_architecture if is_siglip else _clip_architecture)(config, path)
    except (TypeError, ZeroDivisionError, OverflowError) as impossible:
        raise InvalidCheckpoint(f"{path} has impossible sizes: {impossible}.") from impossible
    check_servable(architecture, origin=str(directory))
    usual = preprocessing.SIGLIPS_OWN if is_siglip else preprocessing.CLIPS_OWN
    found = _preprocessing(directory, _with_size(usual, image_size_of(architecture)))
    check_size(found, architecture, origin=str(directory))
    text = architecture["text_cfg"]
    if not is_siglip:
        return Described(architecture, found, Tokenization(text["context_length"]))
    tokens = tokenization.from_hugging_face(
        directory,
        context_length=text["context_length"],
        pad_token=_section(config, "text_config").get("pad_token_id", 1),
    )
    return Described(architecture, found, tokens)


def small_files(directory: Path) -> tuple[str, ...]:
    """The further small files that are needed, once the configuration is there.

    Raises:
        InvalidCheckpoint: not a known model.
    """
    siglip = _config(directory / CONFIG)["model_type"] == "siglip"
    own_tokenizer = (tokenization.FILE, tokenization.CONFIG) if siglip else ()
    return (_PROCESSOR, _IMAGE_PROCESSOR, *own_tokenizer)


def _config(path: Path) -> dict[str, Any]:
    config = read_description(path)
    found = config.get("model_type") if isinstance(config, dict) else type(config).__name__
    if found == "siglip2":
        raise InvalidCheckpoint(
            f"{path} has model_type 'siglip2', whose images have no fixed resolution (NaFlex); "
            f"this service serves {FAMILIES}."
        )
    if found not in {"clip", "siglip"}:
        raise InvalidCheckpoint(
            f"{path} has model_type {str(found)[:60]!r}; this service serves {FAMILIES}."
        )
    return dict(config)


def _with_size(usual: Preprocessing, size: int) -> Preprocessing:
    return replace(usual, image_input=replace(usual.image_input, size=size))


def _preprocessing(directory: Path, usual: Preprocessing) -> Preprocessing:
    """The image processor's settings; ``usual`` if there is no such file.

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
                continue  # older versions store only the processor's class there
            config = config[section]
        if not isinstance(config, dict):
            raise InvalidCheckpoint(f"{path} does not describe an image processor.")
        try:
            return from_hugging_face(config, usual)
        except UnservedPreprocessing as unserved:
            raise InvalidCheckpoint(f"{path}: {unserved}.") from unserved
    return usual


def _towers(
    config: Mapping[str, Any],
    path: Path,
    text_usual: Mapping[str, Any],
    vision_usual: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of text and image tower, completed and checked."""
    # Old files, including OpenAI's own, have the full settings under text_config_dict.
    text = {**text_usual, **_section(config, "text_config")}
    vision = {**vision_usual, **_section(config, "vision_config")}
    for section, tower, usual in (("text", text, text_usual), ("vision", vision, vision_usual)):
        for key, value in usual.items():
            # Exact types, since in Python True is a number too.
            if isinstance(value, int) and type(tower[key]) is not int:
                raise InvalidCheckpoint(
                    f"{path} has {key} {str(tower[key])[:40]!r} in {section}_config; it must be a "
                    "whole number."
                )
    return text, vision


def _clip_architecture(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """OpenCLIP's ``model_cfg`` for a ``config.json`` of CLIP."""
    text, vision = _towers(config, path, _TEXT_DEFAULTS, _VISION_DEFAULTS)
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


def _siglip_architecture(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The same for SigLIP, in the form of `architecture.siglip`."""
    text, vision = _towers(config, path, _SIGLIPS_TEXT_DEFAULTS, _SIGLIPS_VISION_DEFAULTS)
    if vision.get("vision_use_head") is False:
        raise InvalidCheckpoint(f"{path}: its image tower has no pooling head.")
    dimension = text.get("projection_size") or text["hidden_size"]
    if dimension != vision["hidden_size"]:
        raise InvalidCheckpoint(
            f"{path}: its text tower makes embeddings of {dimension} numbers, its image tower of "
            f"{vision['hidden_size']}."
        )
    return siglip(
        vision["hidden_size"],
        vision={
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            **_siglip_transformer(vision, path),
        },
        text={
            "context_length": text["max_position_embeddings"],
            "vocab_size": text["vocab_size"],
            **_siglip_transformer(text, path),
        },
    )


def _siglip_transformer(tower: Mapping[str, Any], path: Path) -> dict[str, Any]:
    activation = tower["hidden_act"]
    if activation not in _GELUS:
        raise InvalidCheckpoint(
            f"{path} has the activation {str(activation)[:40]}; this service has "
            f"{', '.join(_GELUS)}."
        )
    return {
        "width": tower["hidden_size"],
        "layers": tower["num_hidden_layers"],
        "heads": tower["num_attention_heads"],
        "mlp_ratio": tower["intermediate_size"] / tower["hidden_size"],
        "tanh": _GELUS[activation],
        "epsilon": tower["layer_norm_eps"],
    }


def _norm_settings(tower: Mapping[str, Any]) -> dict[str, Any]:
    # OpenCLIP's layer norm uses 1e-5 by default.
    epsilon = tower["layer_norm_eps"]
    return {} if epsilon == 1e-5 else {"norm_kwargs": {"eps": epsilon}}


def _section(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {**(config.get(name) or {}), **(config.get(f"{name}_dict") or {})}


def _clip_weights(
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


def _siglip_weights(
    stored: Mapping[str, Tensor], architecture: Mapping[str, Any]
) -> dict[str, Tensor]:
    """The same for SigLIP.

    Raises:
        KeyError: with a missing tensor's name.
        TypeError: a tensor does not have the shape that the architecture needs.
    """
    vision, text = architecture["vision_cfg"], architecture["text_cfg"]
    width, trunk = vision["width"], "visual.trunk"
    places = stored["vision_model.embeddings.position_embedding.weight"]
    weights: dict[str, Tensor] = {
        "logit_scale": reshaped(stored["logit_scale"]),
        "logit_bias": reshaped(stored["logit_bias"]),
        "text.token_embedding.weight": stored["text_model.embeddings.token_embedding.weight"],
        "text.positional_embedding": stored["text_model.embeddings.position_embedding.weight"],
        f"{trunk}.pos_embed": reshaped(places, 1, *places.shape),
        f"{trunk}.attn_pool.latent": stored["vision_model.head.probe"],
    }
    for part in ("weight", "bias"):
        joined = stored[f"vision_model.head.attention.in_proj_{part}"]
        weights[f"{trunk}.attn_pool.q.{part}"] = rows_of(joined, 0, width)
        weights[f"{trunk}.attn_pool.kv.{part}"] = rows_of(joined, width, 3 * width)
        for theirs, ours in (
            ("text_model.final_layer_norm", "text.ln_final"),
            ("text_model.head", "text.text_projection"),
            ("vision_model.embeddings.patch_embedding", f"{trunk}.patch_embed.proj"),
            ("vision_model.post_layernorm", f"{trunk}.norm"),
            ("vision_model.head.attention.out_proj", f"{trunk}.attn_pool.proj"),
            ("vision_model.head.layernorm", f"{trunk}.attn_pool.norm"),
            ("vision_model.head.mlp.fc1", f"{trunk}.attn_pool.mlp.fc1"),
            ("vision_model.head.mlp.fc2", f"{trunk}.attn_pool.mlp.fc2"),
        ):
            weights[f"{ours}.{part}"] = stored[f"{theirs}.{part}"]
        for source, target, layers, names, joint in (
            ("text_model", "text.transformer.resblocks", text["layers"], _BLOCK_NAMES, _JOINT),
            ("vision_model", f"{trunk}.blocks", vision["layers"], _TIMMS_NAMES, _TIMMS_JOINT),
        ):
            for layer in range(layers):
                theirs = f"{source}.encoder.layers.{layer}"
                for their_name, our_name in names.items():
                    weights[f"{target}.{layer}.{our_name}.{part}"] = stored[
                        f"{theirs}.{their_name}.{part}"
                    ]
                weights[f"{target}.{layer}.{joint.format(part)}"] = Stacked(
                    [stored[f"{theirs}.self_attn.{x}_proj.{part}"] for x in "qkv"]
                )
    return weights
