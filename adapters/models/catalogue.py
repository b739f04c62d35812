"""A dozen recommended models on the hub, out of the thousands that can be served.

The figures are from the models' cards and papers. Operations are computed from the image tower's
shape: those of its matrix products, a multiplication and an addition counted as two.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from adapters.models.architecture import Family


@dataclass(frozen=True, slots=True)
class ImageTower:
    """The shape of a vision transformer.

    Attributes:
        width: numbers per token.
        layers: blocks.
        patch: pixels on each side of a patch.
        size: pixels of each side of an image.
        mlp: numbers between the two layers of an MLP.
    """

    width: int
    layers: int
    patch: int
    size: int
    mlp: int

    @property
    def operations(self) -> float:
        """Floating-point operations for one image, without the parts that run once per image."""
        tokens = (self.size // self.patch) ** 2
        layer = 4 * self.width**2 + 2 * self.width * self.mlp + 2 * tokens * self.width
        first = self.patch**2 * 3 * self.width
        return 2.0 * tokens * (self.layers * layer + first)


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model on the hub.

    Attributes:
        name: as `CLIP_MODEL_PATH` takes it.
        family: how its towers are built.
        dimension: numbers in an embedding.
        megabytes: size of the downloaded files, in millions of bytes.
        languages: of its training texts.
        licence: of its weights.
        image_tower: takes most of the time.
        note: why to choose it.
    """

    name: str
    family: Family
    dimension: int
    megabytes: int
    languages: str
    licence: str
    image_tower: ImageTower
    note: str


_B32: Final = ImageTower(768, 12, 32, 224, 3072)
_B16: Final = ImageTower(768, 12, 16, 224, 3072)
_L14: Final = ImageTower(1024, 24, 14, 224, 4096)

IMAGE_TOWERS: Final[Mapping[str, ImageTower]] = {
    "CLIP ViT-B/32": _B32,
    "CLIP ViT-B/16": _B16,
    "SigLIP 2 B/16": _B16,
    "CLIP ViT-L/14": _L14,
}
"""Usual ones by name."""

KNOWN: Final[Sequence[KnownModel]] = (
    KnownModel(
        "openai/clip-vit-base-patch32", Family.CLIP, 512, 605, "English", "MIT", _B32,
        "the fastest",
    ),
    KnownModel(
        "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", Family.CLIP, 512, 605, "English", "MIT", _B32,
        "the fastest, trained on more",
    ),
    KnownModel(
        "laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K", Family.CLIP, 512, 599, "English", "MIT", _B16,
        "between the two sizes",
    ),
    KnownModel(
        "openai/clip-vit-large-patch14", Family.CLIP, 768, 1710, "English", "MIT", _L14,
        "what the contract was written for",
    ),
    KnownModel(
        "laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K", Family.CLIP, 768, 1711, "English", "MIT", _L14,
        "the same size, better at naming things",
    ),
    KnownModel(
        "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", Family.CLIP, 1024, 3944, "English", "MIT",
        ImageTower(1280, 32, 14, 224, 5120), "large",
    ),
    KnownModel(
        "laion/CLIP-ViT-B-32-xlm-roberta-base-laion5B-s13B-b90k", Family.XLM_ROBERTA, 512, 1480,
        "about 100", "MIT", _B32, "the fastest with many languages",
    ),
    KnownModel(
        "google/siglip-base-patch16-224", Family.SIGLIP, 768, 816, "English", "Apache 2.0", _B16,
        "yes or no for each label",
    ),
    KnownModel(
        "google/siglip2-base-patch16-224", Family.SIGLIP, 768, 1535, "about 100", "Apache 2.0",
        _B16, "where to begin: good, fast and multilingual",
    ),
    KnownModel(
        "google/siglip2-base-patch16-384", Family.SIGLIP, 768, 1537, "about 100", "Apache 2.0",
        ImageTower(768, 12, 16, 384, 3072), "the same, with more detail",
    ),
    KnownModel(
        "google/siglip2-large-patch16-256", Family.SIGLIP, 1024, 3561, "about 100", "Apache 2.0",
        ImageTower(1024, 24, 16, 256, 4096), "better, slower",
    ),
    KnownModel(
        "google/siglip2-so400m-patch14-384", Family.SIGLIP, 1152, 4579, "about 100", "Apache 2.0",
        ImageTower(1152, 27, 14, 384, 4304), "the best of these, for a GPU",
    ),
)  # fmt: skip
