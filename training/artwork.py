"""Emoji artwork from npm packages, named by Unicode CLDR and rasterised to sprites."""

from __future__ import annotations

import io
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from training.concepts import CAMERA_CONCEPTS

TRAINING_FAMILIES: tuple[str, ...] = (
    "noto",
    "noto-v1",
    "fluent-emoji",
    "fluent-emoji-flat",
    "emojione",
    "fxemoji",
    "streamline-emojis",
    "fluent-emoji-high-contrast",
    "emojione-monotone",
)
MONOCHROME_FAMILIES: frozenset[str] = frozenset({"fluent-emoji-high-contrast", "emojione-monotone"})
HELD_OUT_FAMILY = "twemoji"
SPRITE_SIZE = 144

_SKIN = re.compile(r"-(medium-light|medium-dark|light|medium|dark)(-skin-tone)?(?=-|$)")
_DIRECTION = re.compile(r"-facing-right$")
_VARIANT_NUMBER = re.compile(r"-\d$")
# Pictures of writing, flags and arrows teach the model nothing that a camera sees.
_UNWANTED = re.compile(
    r"^(flag|keycap|letter|digit|japanese-.*button|input-|family-|couple-|kiss-|cjk|regional)"
    r"|(button|arrow|oclock|thirty|-flag|circle|square|diamond|triangle)s?$"
    r"|holding-hands|arrow"
)
# FxEmoji names its icons after what they show, not after Unicode.
_FXEMOJI_NAMES: dict[str, str] = {
    "bicyclist": "person biking",
    "birthdaycake": "birthday cake",
    "blackwaving": "black flag",
    "bunny": "rabbit face",
    "bunnyside": "rabbit",
    "catside": "cat",
    "cat": "cat face",
    "cellphone": "mobile phone",
    "chicken": "chicken",
    "construct": "construction worker",
    "cop": "police officer",
    "cow": "cow",
    "crossmark": "cross mark",
    "daggerknife": "dagger",
    "dog": "dog face",
    "dogside": "dog",
    "electrictorch": "flashlight",
    "evergreen": "evergreen tree",
    "foggy": "foggy",
    "horizontaltrafficlight": "horizontal traffic light",
    "horse": "horse",
    "housebuilding": "house",
    "housebuildings": "houses",
    "housewithgarden": "house with garden",
    "lightningmood": "high voltage",
    "lock": "locked",
    "mensrunner": "running shoe",
    "running": "person running",
    "monkey": "monkey",
    "mouse": "mouse face",
    "mouseside": "mouse",
    "openlock": "unlocked",
    "pandaface": "panda",
    "personalcomputer": "laptop",
    "policecarsrevolvinglight": "police car light",
    "schoolsatchel": "backpack",
    "snowmanwithoutsnow": "snowman without snow",
    "steamlocomotive": "locomotive",
    "stormcloud": "cloud with lightning",
    "stormcloudrain": "cloud with lightning and rain",
    "swimming": "person swimming",
    "tiger": "tiger face",
    "umbrellawithraindrops": "umbrella with rain drops",
    "verticaltrafficlight": "vertical traffic light",
    "walking": "person walking",
    "warningsign": "warning",
}


@dataclass(frozen=True, slots=True)
class ConceptName:
    """What a sprite shows.

    Attributes:
        name: CLDR short name, or the camera concept's label.
        emoji: the character.
        keywords: CLDR keywords and, for camera concepts, their synonyms.
        camera: whether it is one of the 50 camera concepts.
    """

    name: str
    emoji: str
    keywords: tuple[str, ...]
    camera: bool


@dataclass(frozen=True, slots=True)
class Drawing:
    """One SVG drawing of a concept by one artwork family."""

    concept: str
    variant: str
    family: str
    svg: str


@dataclass(frozen=True, slots=True)
class SpriteSheet:
    """Rasterised drawings.

    Attributes:
        pixels: uint8 [n, SPRITE_SIZE, SPRITE_SIZE, 4], straight-alpha RGBA, cropped to content.
        concepts: n concept names, keys of the catalogue.
        variants: n names of the variants drawn ("man walking").
        families: n names of artwork families.
    """

    pixels: npt.NDArray[np.uint8]
    concepts: tuple[str, ...]
    variants: tuple[str, ...]
    families: tuple[str, ...]

    def save(self, folder: Path) -> None:
        """Writes the sheet to `folder` (pixels as .npy, names as JSON)."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "pixels.npy", self.pixels)
        names = {"concepts": self.concepts, "variants": self.variants, "families": self.families}
        (folder / "names.json").write_text(json.dumps(names), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> SpriteSheet:
        """Reads a sheet that `save` wrote; raises FileNotFoundError where there is none."""
        names = json.loads((folder / "names.json").read_text(encoding="utf-8"))
        pixels: npt.NDArray[np.uint8] = np.load(folder / "pixels.npy")
        return cls(
            pixels, tuple(names["concepts"]), tuple(names["variants"]), tuple(names["families"])
        )


def _slug(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower().replace("’", "")).strip("-")


def _bare(character: str) -> str:
    """The character without the variation selector that asks for a coloured glyph."""
    return character.replace("\ufe0f", "")


@cache
def read_catalogue(node_modules: Path) -> dict[str, ConceptName]:
    """Reads the English CLDR names and keywords; camera concepts take their own label.

    Kin of a camera concept is folded into that concept.
    """
    by_emoji: dict[str, tuple[str, list[str]]] = {}
    for package, section in (
        ("cldr-annotations-derived-full", "annotationsDerived"),
        ("cldr-annotations-full", "annotations"),
    ):
        path = node_modules / package / section / "en" / "annotations.json"
        entries = json.loads(path.read_text(encoding="utf-8"))[section]["annotations"]
        for character, entry in entries.items():
            if "tts" in entry:
                by_emoji[_bare(character)] = (entry["tts"][0], entry.get("default", []))
    catalogue: dict[str, ConceptName] = {}
    folded: set[str] = set()
    for concept in CAMERA_CONCEPTS:
        name, keywords = by_emoji[_bare(concept.emoji)]
        merged = dict.fromkeys((*concept.synonyms, name))
        catalogue[concept.label] = ConceptName(
            concept.label, concept.emoji, tuple(merged), camera=True
        )
        folded.update((_bare(concept.emoji), *map(_bare, concept.kin)))
    for character, (name, keywords) in by_emoji.items():
        plain = name.replace("“", "").replace("”", "").replace("’", "'")
        if character in folded or plain in catalogue or "skin tone" in plain:
            continue
        catalogue[plain] = ConceptName(
            plain, character, tuple(k for k in keywords if k != plain), camera=False
        )
    return catalogue


def _names_by_slug(node_modules: Path) -> dict[str, str]:
    """Maps slugs of CLDR names (with and without dashes) to keys of the catalogue."""
    catalogue = read_catalogue(node_modules)
    index: dict[str, str] = {}
    for key, concept in catalogue.items():
        names = [key]
        if len(concept.emoji) == 1:
            names.append(unicodedata.name(concept.emoji, key))
        for name in names:
            index.setdefault(_slug(name), key)
    path = node_modules / "cldr-annotations-full" / "annotations" / "en" / "annotations.json"
    entries = json.loads(path.read_text(encoding="utf-8"))["annotations"]["annotations"]
    for camera in CAMERA_CONCEPTS:
        for character in (camera.emoji, *camera.kin):
            name = entries[_bare(character)]["tts"][0]
            index[_slug(name)] = camera.label
            index[_slug(unicodedata.name(_bare(character)))] = camera.label
    for slug in list(index):
        index.setdefault(slug.replace("-", ""), index[slug])
    for fx_name, name in _FXEMOJI_NAMES.items():
        if (slug := _slug(name)) in index:
            index[f"fxemoji:{fx_name}"] = index[slug]
    return index


def _resolve(icon: str, family: str, index: dict[str, str]) -> tuple[str, str] | None:
    """Finds (concept, variant name) of an icon, or None where it shows nothing wanted."""
    if family == "fxemoji" and (key := index.get(f"fxemoji:{icon}")) is not None:
        return key, key
    slug = icon
    if slug not in index:
        # "traffic-light" is no skin tone, hence the look-up before.
        slug = _DIRECTION.sub("", _SKIN.sub("", icon))
    if family == "streamline-emojis":
        slug = _VARIANT_NUMBER.sub("", slug)
    if _UNWANTED.search(slug):
        return None
    variant = slug.replace("-", " ")
    for gender in ("man-", "woman-"):
        if slug.startswith(gender):
            rest = slug.removeprefix(gender)
            for base in (f"person-{rest}", rest):
                if base in index:
                    return index[base], variant
    if slug in index:
        return index[slug], index[slug]
    return None


def read_drawings(node_modules: Path, family: str, per_concept: int = 6) -> list[Drawing]:
    """Reads one family's drawings whose concept is known.

    Args:
        node_modules: where npm put the packages.
        family: an `@iconify-json` package.
        per_concept: at most so many variants (skin tone, gender) of a concept, twice as many
            of a camera concept.
    """
    icons = json.loads(
        (node_modules / "@iconify-json" / family / "icons.json").read_text(encoding="utf-8")
    )
    index = _names_by_slug(node_modules)
    catalogue = read_catalogue(node_modules)
    found: dict[str, list[Drawing]] = {}
    # Plain drawings come before their skin tones, so that a limit drops the latter.
    for icon in sorted(icons["icons"], key=lambda name: (bool(_SKIN.search(name)), name)):
        resolved = _resolve(icon, family, index)
        if resolved is not None:
            concept, variant = resolved
            svg = _svg(icons, icon)
            found.setdefault(concept, []).append(Drawing(concept, variant, family, svg))
    kept: list[Drawing] = []
    for concept, drawings in found.items():
        limit = per_concept * (2 if catalogue[concept].camera else 1)
        step = max(1, len(drawings) // limit)
        kept.extend(drawings[::step][:limit])
    return kept


def _svg(icons: dict[str, Any], icon: str) -> str:
    entry = icons["icons"][icon]
    width = entry.get("width", icons.get("width", 16))
    height = entry.get("height", icons.get("height", 16))
    left, top = entry.get("left", 0), entry.get("top", 0)
    body = entry["body"].replace("currentColor", "#333333")
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}">{body}</svg>'
    )


def rasterise(svg: str) -> npt.NDArray[np.uint8] | None:
    """Renders an SVG, cropped to its content and centred in a square.

    Returns:
        uint8 [SPRITE_SIZE, SPRITE_SIZE, 4] straight-alpha RGBA, or None where nothing is drawn.
    """
    # Imported here: the evaluation needs this module's names but no rasteriser.
    import resvg_py

    png = resvg_py.svg_to_bytes(svg_string=svg, width=192, height=192, skip_system_fonts=True)
    image = Image.open(io.BytesIO(png)).convert("RGBA")
    box = image.getchannel("A").point(lambda alpha: 255 if alpha > 16 else 0).getbbox()
    if box is None:
        return None
    content = image.crop(box)
    scale = SPRITE_SIZE / max(content.size)
    size = (max(1, round(content.width * scale)), max(1, round(content.height * scale)))
    content = content.resize(size, Image.Resampling.BICUBIC)
    square = Image.new("RGBA", (SPRITE_SIZE, SPRITE_SIZE))
    square.paste(content, ((SPRITE_SIZE - size[0]) // 2, (SPRITE_SIZE - size[1]) // 2))
    return np.asarray(square, dtype=np.uint8)


def _rasterise_drawing(drawing: Drawing) -> tuple[Drawing, npt.NDArray[np.uint8] | None]:
    try:
        return replace(drawing, svg=""), rasterise(drawing.svg)
    except ValueError:
        return replace(drawing, svg=""), None


def render_sheet(drawings: Iterable[Drawing], processes: int) -> SpriteSheet:
    """Rasterises drawings in parallel, leaving out those that the rasteriser refuses."""
    rendered: list[tuple[Drawing, npt.NDArray[np.uint8]]] = []
    with Pool(processes) as pool:
        results: Iterator[tuple[Drawing, npt.NDArray[np.uint8] | None]] = pool.imap(
            _rasterise_drawing, drawings, chunksize=32
        )
        rendered.extend((drawing, pixels) for drawing, pixels in results if pixels is not None)
    return SpriteSheet(
        np.stack([pixels for _, pixels in rendered]),
        tuple(drawing.concept for drawing, _ in rendered),
        tuple(drawing.variant for drawing, _ in rendered),
        tuple(drawing.family for drawing, _ in rendered),
    )


def load_training_sheet(node_modules: Path, cache_folder: Path, processes: int = 2) -> SpriteSheet:
    """Loads the training families' sprites, rendering them into `cache_folder` at first."""
    try:
        return SpriteSheet.load(cache_folder)
    except FileNotFoundError:
        drawings = [d for family in TRAINING_FAMILIES for d in read_drawings(node_modules, family)]
        sheet = render_sheet(drawings, processes)
        sheet.save(cache_folder)
        return sheet


def write_held_out(node_modules: Path, folder: Path) -> None:
    """Writes the held-out family's drawing of each camera concept as `<label>.png`."""
    icons_folder = node_modules / "@iconify-json" / HELD_OUT_FAMILY
    icons = json.loads((icons_folder / "icons.json").read_text(encoding="utf-8"))
    chars = json.loads((icons_folder / "chars.json").read_text(encoding="utf-8"))
    for concept in CAMERA_CONCEPTS:
        icon = chars[f"{ord(_bare(concept.emoji)):x}"]
        if icon not in icons["icons"]:
            icon = icons["aliases"][icon]["parent"]
        pixels = rasterise(_svg(icons, icon))
        if pixels is None:
            raise ValueError(f"the drawing of {concept.label!r} is empty")
        path = folder / f"{concept.label.replace(' ', '_')}.png"
        Image.fromarray(pixels, "RGBA").save(path, optimize=True)
