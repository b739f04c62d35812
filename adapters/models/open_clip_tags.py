"""Finds the weights of OpenCLIP's ``name:tag`` without OpenCLIP, which needs PyTorch.

The table is generated from OpenCLIP's own by ``checks/open_clip_tags.py``.
"""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FILE: Final = Path(__file__).with_suffix(".json")


@dataclass(frozen=True, slots=True)
class Tag:
    """A pretrained tag.

    Attributes:
        hub: its name on the hub.
        architecture: OpenCLIP's ``model_cfg``; None: read from the files on the hub.
        preprocess: OpenCLIP's preprocessing settings.
    """

    hub: str
    architecture: Mapping[str, Any] | None
    preprocess: Mapping[str, Any]


def find_tag(source: str, table: Path = FILE) -> Tag | None:
    """The tag for ``name:tag``; None if it is not known.

    Args:
        source: such as ``ViT-L-14:openai``.
        table: the file that describes tags.
    """
    known = _read(table)
    described = known["tags"].get(source)
    if described is None:
        return None
    if "preprocess" not in described:
        return Tag(described["hub"], None, {})
    architecture = known["architectures"][source.partition(":")[0]]
    # OpenAI's weights need quick-GELU; the tag says so, but the model name does not.
    return Tag(
        described["hub"],
        {**architecture, "quick_gelu": described["quick_gelu"]},
        described["preprocess"],
    )


@functools.cache
def _read(table: Path) -> Any:
    return json.loads(table.read_text(encoding="utf-8"))
