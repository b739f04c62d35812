"""A checkpoint's architecture, as OpenCLIP's ``model_cfg``, and whether it can be served."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from adapters.models.checkpoint_files import InvalidCheckpoint
from domain.limits import LARGEST_IMAGE_SIZE, LONGEST_CONTEXT

_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "": {"quick_gelu": False, "custom_text": False},
    "vision_cfg": {"image_size": 224, "head_width": 64, "mlp_ratio": 4.0},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "mlp_ratio": 4.0},
}
"""OpenCLIP's defaults for missing settings. Some layouts state them explicitly."""

_LARGEST: Final[Mapping[str, float]] = {
    "layers": 1000,
    "width": 16384,
    "heads": 1024,
    "head_width": 16384,
    "patch_size": LARGEST_IMAGE_SIZE,
    "image_size": LARGEST_IMAGE_SIZE,
    "context_length": LONGEST_CONTEXT,
    "vocab_size": 2_000_000,
    "mlp_ratio": 100,
}
"""Limits by the setting's name, far above any CLIP's values."""

CLIPS_VOCABULARY: Final = 49408
"""Tokens of CLIP's vocabulary, the two special ones included."""

_GEMMAS_VOCABULARY: Final = 256_000
"""Tokens of Gemma's vocabulary, which SigLIP 2 uses."""

_SIZES: Final = {
    (768, 12): "base",
    (1024, 24): "large",
    (1280, 32): "huge",
    (1152, 27): "so400m",
    (1536, 40): "giant",
}
"""The usual names of towers, by width and layers."""

_LARGEST_NUMBER: Final = 65536
"""The limit of any other setting."""


class Family(StrEnum):
    """Kinds of supported models, by their towers' construction."""

    CLIP = "CLIP"
    SIGLIP = "SigLIP"
    XLM_ROBERTA = "CLIP with an XLM-RoBERTa text tower"
    OTHER = "another architecture of OpenCLIP"
    """Served only by PyTorch."""


FAMILIES: Final = (
    "CLIP, SigLIP and SigLIP 2 with a fixed resolution, and CLIP with an XLM-RoBERTa text tower"
)
"""The families served without PyTorch, for messages."""

_VISION_KEYS: Final = {"image_size", "patch_size", "width", "layers", "head_width", "mlp_ratio"}
_TEXT_KEYS: Final = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"}
_SHARED_KEYS: Final = {"norm_kwargs"}
_XLM_KEYS: Final = {
    *("hf_model_name", "hf_tokenizer_name", "hf_model_pretrained", "hf_proj_type"),
    *("hf_pooler_type", "context_length", "vocab_size", "tokenizer_kwargs"),
}

_XLM_ROBERTA: Final = re.compile(r"(?:FacebookAI/)?xlm-roberta-(base|large)")
XLM_ROBERTAS: Final[Mapping[str, Mapping[str, int]]] = {
    "base": {"width": 768, "layers": 12, "heads": 12},
    "large": {"width": 1024, "layers": 24, "heads": 16},
}
"""Sizes of XLM-RoBERTa's encoder (Conneau et al. 2020, arXiv:1911.02116, section 4)."""

_TIMMS_SIGLIP: Final = re.compile(r"vit_(base|large|so400m|giantopt)_patch(\d+)_siglip_(\d+)")
_SIGLIPS: Final[Mapping[str, Mapping[str, Any]]] = {
    "base": {"width": 768, "layers": 12, "heads": 12, "mlp_ratio": 4.0},
    "large": {"width": 1024, "layers": 24, "heads": 16, "mlp_ratio": 4.0},
    "so400m": {"width": 1152, "layers": 27, "heads": 16, "mlp_ratio": 3.7362},
    "giantopt": {"width": 1536, "layers": 40, "heads": 16, "mlp_ratio": 4.0},
}
_TANH_SIGLIPS: Final = re.compile(
    "vit_(base_patch32_siglip_256|large_patch16_siglip_512|so400m_patch16_.*|giantopt_.*)"
)
"""Models whose GELU uses tanh; the others use the exact one (timm, vision_transformer.py)."""


def normalised(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """The same architecture, with SigLIP's image tower described by its sizes, not by timm's name.

    If two layouts describe the same towers, the results are equal, and so are the fingerprints.
    """
    vision, text = architecture["vision_cfg"], architecture["text_cfg"]
    timm = _TIMMS_SIGLIP.fullmatch(str(vision.get("timm_model_name") or ""))
    if timm is None or (vision.get("timm_pool"), vision.get("timm_proj")) != ("map", "none"):
        return dict(architecture)
    return siglip(
        architecture["embed_dim"],
        vision={
            **_SIGLIPS[timm[1]],
            "image_size": vision.get("image_size", 224),
            "patch_size": int(timm[2]),
            "tanh": _TANH_SIGLIPS.fullmatch(timm[0]) is not None,
            "epsilon": 1e-6,
        },
        text={
            "context_length": text.get("context_length", 77),
            "vocab_size": text.get("vocab_size", 49408),
            "width": text.get("width", 512),
            "layers": text.get("layers", 12),
            "heads": text.get("heads", 8),
            "mlp_ratio": text.get("mlp_ratio", 4.0),
            "tanh": (text.get("act_kwargs") or {}).get("approximate") == "tanh",
            "epsilon": (text.get("norm_kwargs") or {}).get("eps", 1e-5),
        },
    )


def siglip(embed_dim: int, *, vision: Mapping[str, Any], text: Mapping[str, Any]) -> dict[str, Any]:
    """The architecture of a SigLIP model.

    Args:
        embed_dim: floats per embedding.
        vision: ``image_size``, ``patch_size``, ``width``, ``layers``, ``heads``, ``mlp_ratio``,
            ``epsilon`` of the normalisations, and whether GELU is computed by ``tanh``.
        text: ``context_length``, ``vocab_size``, and the same as the image tower.
    """
    return {
        "embed_dim": embed_dim,
        "custom_text": True,
        "vision_cfg": {
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            **_siglip_transformer(vision),
            "pool_type": "map",
        },
        "text_cfg": {
            "context_length": text["context_length"],
            "vocab_size": text["vocab_size"],
            **_siglip_transformer(text),
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
        },
    }


def _siglip_transformer(tower: Mapping[str, Any]) -> dict[str, Any]:
    width = tower["width"]
    return {
        "width": width,
        "layers": tower["layers"],
        "heads": tower["heads"],
        "mlp_ratio": int(width * tower["mlp_ratio"] + 1e-6) / width,
        "norm_kwargs": {"eps": tower["epsilon"]},
        **({"act_kwargs": {"approximate": "tanh"}} if tower["tanh"] else {}),
    }


def family_of(architecture: Mapping[str, Any]) -> Family:
    """The family of a `normalised` architecture."""
    vision, text = architecture["vision_cfg"], architecture["text_cfg"]
    if vision.get("pool_type") == "map" and "timm_model_name" not in vision:
        return Family.SIGLIP
    plain_vision = not unusual_settings(vision, _VISION_KEYS)
    if xlm_roberta(text) is not None and plain_vision:
        pooled = text.get("hf_pooler_type", "mean_pooler") == "mean_pooler"
        projected = text.get("hf_proj_type", "mlp") == "mlp"
        if pooled and projected and not unusual_settings(text, _XLM_KEYS):
            return Family.XLM_ROBERTA
    plain_text = not unusual_settings(text, _TEXT_KEYS) and not architecture.get("custom_text")
    return Family.CLIP if plain_vision and plain_text else Family.OTHER


def unusual_settings(tower: Mapping[str, Any], known: set[str]) -> list[str]:
    """Settings that make a tower differ from those that this service builds itself."""
    unusual = {key for key, value in tower.items() if key not in known | _SHARED_KEYS and value}
    if isinstance(tower.get("layers"), list):
        unusual.add("layers")
    return sorted(unusual)


def why_other(architecture: Mapping[str, Any]) -> str:
    """The settings for which a model is `Family.OTHER`, for a message."""
    found = [
        *unusual_settings(architecture["vision_cfg"], _VISION_KEYS),
        *unusual_settings(architecture["text_cfg"], _TEXT_KEYS),
        *(["custom_text"] if architecture.get("custom_text") else []),
    ]
    return ", ".join(found)


def xlm_roberta(text: Mapping[str, Any]) -> str | None:
    """``base`` or ``large`` if the text tower is an XLM-RoBERTa of that size."""
    named = _XLM_ROBERTA.fullmatch(str(text.get("hf_model_name") or ""))
    return None if named is None else named[1]


def epsilon_of(tower: Mapping[str, Any]) -> float:
    """The epsilon of a tower's normalisations."""
    return float((tower.get("norm_kwargs") or {}).get("eps", 1e-5))


def image_size_of(architecture: Mapping[str, Any]) -> int:
    """Pixels on each side of the image tower's input."""
    size = architecture["vision_cfg"].get("image_size", 224)
    return int(size[0] if isinstance(size, list | tuple) else size)


def check_servable(architecture: Mapping[str, Any], *, origin: str) -> None:
    """Refuse an architecture that this service cannot serve.

    Also refuses sizes that no machine has memory for, and anything that would be downloaded, since
    the checkpoint may come from an untrusted source.

    Raises:
        InvalidCheckpoint: says what it is.
    """
    _check_numbers(architecture, origin=origin)
    vision = architecture["vision_cfg"]
    text = architecture["text_cfg"]
    image_size = vision.get("image_size", 224)
    if isinstance(image_size, list | tuple) and len(set(image_size)) != 1:
        raise InvalidCheckpoint(
            f"{origin}: its image tower takes images of {image_size} pixels; this service supports "
            "only square ones."
        )
    if (hf_model := text.get("hf_model_name")) and xlm_roberta(text) is None:
        raise InvalidCheckpoint(
            f"{origin}: its text tower is {str(hf_model)[:60]!r}, which this service does not "
            f"know; it serves {FAMILIES}."
        )
    timm = str(vision.get("timm_model_name") or "")
    if vision.get("timm_model_pretrained") or not re.fullmatch(r"[\w.]*", timm):
        raise InvalidCheckpoint(
            f"{origin}: its image tower would be fetched from a hub (timm_model_name {timm!r}); "
            "all weights must lie in the checkpoint."
        )
    own_tokenizer = (
        hf_model or text.get("hf_tokenizer_name") or family_of(architecture) is (Family.SIGLIP)
    )
    vocabulary = text.get("vocab_size", CLIPS_VOCABULARY)
    if not own_tokenizer and vocabulary != CLIPS_VOCABULARY:
        raise InvalidCheckpoint(
            f"{origin}: its text tower has vocab_size {vocabulary} and names no tokenizer; CLIP's "
            f"is {CLIPS_VOCABULARY}."
        )


def architecture_name(architecture: Mapping[str, Any]) -> str:
    """The architecture's usual name, such as ``clip-vit-large-patch14``."""
    vision = architecture["vision_cfg"]
    patch = vision.get("patch_size")
    family = family_of(architecture)
    if family is Family.OTHER and "timm_model_name" in vision:
        return f"clip-{vision['timm_model_name']}"
    if not isinstance(vision.get("layers"), int) or patch is None:
        return "clip-resnet"
    shape = (vision["width"], vision["layers"])
    size = _SIZES.get(shape, f"w{shape[0]}-l{shape[1]}")
    side = image_size_of(architecture)
    if family is Family.SIGLIP:
        second = "2" if architecture["text_cfg"]["vocab_size"] == _GEMMAS_VOCABULARY else ""
        return f"siglip{second}-{size}-patch{patch}-{side}"
    text = xlm_roberta(architecture["text_cfg"])
    return "".join(
        (
            f"clip-vit-{size}-patch{patch}",
            "" if side == 224 else f"-{side}",
            "" if text is None else f"-xlm-roberta-{text}",
        )
    )


def _check_numbers(settings: Mapping[str, Any], *, origin: str) -> None:
    """Refuse absurd sizes and sizes that are not numbers, before memory is allocated for them."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            _check_numbers(value, origin=origin)
            continue
        if isinstance(value, list) and (not value or key in _LARGEST) and key != "layers":
            raise InvalidCheckpoint(f"{origin}: {key} is {str(value)[:40]}, not a number.")
        for number in value if isinstance(value, list) else [value]:
            _check_number(key, number, origin=origin)


def _check_number(key: str, number: object, *, origin: str) -> None:
    if isinstance(number, bool) or not isinstance(number, int | float):
        if key in _LARGEST:
            raise InvalidCheckpoint(f"{origin}: {key} is {str(number)[:40]!r}, not a number.")
        return
    largest = _LARGEST.get(key, _LARGEST_NUMBER)
    large_enough = number > 0 if key in _LARGEST else number >= -largest
    if not (large_enough and number <= largest):  # also true for NaN
        raise InvalidCheckpoint(
            f"{origin}: {key} is {str(number)[:40]}; it must be above 0 and at most {largest}."
        )


def without_defaults(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """The architecture without OpenCLIP's default settings, for a stable fingerprint."""
    stripped: dict[str, Any] = {}
    for name, value in architecture.items():
        if isinstance(value, Mapping):
            usual = _DEFAULTS.get(name, {})
            stripped[name] = {k: v for k, v in value.items() if k not in usual or v != usual[k]}
        elif name not in _DEFAULTS[""] or value != _DEFAULTS[""][name]:
            stripped[name] = value
    return stripped
