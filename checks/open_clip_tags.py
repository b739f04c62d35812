"""Writes `adapters/models/open_clip_tags.json` from the OpenCLIP that is installed.

Run: python -m checks.open_clip_tags
"""

import json
from pathlib import Path
from typing import Any, Final

import open_clip
from open_clip.pretrained import _PRETRAINED

from adapters.models.architecture import Family, check_servable, family_of, normalised
from adapters.models.checkpoint_files import InvalidCheckpoint
from adapters.models.open_clip_tags import FILE
from adapters.models.preprocessing import UnservedPreprocessing, from_open_clip

_PREPROCESSING: Final = ("mean", "std", "interpolation", "resize_mode", "size", "fill_color")


def table() -> dict[str, Any]:
    """Tags whose weights are on the hub and can be served without PyTorch.

    Those with a tokenizer of their own are read as any model on the hub.
    """
    tags: dict[str, Any] = {}
    architectures: dict[str, Any] = {}
    for name, pretrained in _PRETRAINED.items():
        architecture = open_clip.get_model_config(name)
        for tag, config in pretrained.items():
            repository = str(config.get("hf_hub") or "")
            if architecture is None or not repository.endswith("/"):
                continue
            described: dict[str, Any] = {"hub": repository.rstrip("/")}
            text = architecture["text_cfg"]
            if not (text.get("hf_tokenizer_name") or text.get("hf_model_name")):
                quick = bool(config.get("quick_gelu", architecture.get("quick_gelu", False)))
                preprocess = {key: config[key] for key in _PREPROCESSING if key in config}
                described |= {"quick_gelu": quick, "preprocess": preprocess}
            if _is_served(architecture, config, name):
                tags[f"{name}:{tag}"] = described
                architectures[name] = architecture
    needed = {name.partition(":")[0] for name, tag in tags.items() if "preprocess" in tag}
    return {
        "architectures": {name: architectures[name] for name in sorted(needed)},
        "tags": dict(sorted(tags.items())),
    }


def _is_served(architecture: dict[str, Any], config: dict[str, Any], name: str) -> bool:
    try:
        towers = normalised(architecture)
        check_servable(towers, origin=name)
        from_open_clip(config)
    except (InvalidCheckpoint, UnservedPreprocessing):
        return False
    return family_of(towers) is not Family.OTHER


def as_text(content: dict[str, Any]) -> str:
    """A line for each architecture and tag, so that changes can be read."""
    return json.dumps(content, indent=1, default=list) + "\n"


def main() -> None:
    """Write the file."""
    Path(FILE).write_text(as_text(table()), encoding="utf-8")


if __name__ == "__main__":
    main()
