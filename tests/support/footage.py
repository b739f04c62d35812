"""Drawings as cameras would see them: for the documentation's examples, on the demo model."""

from pathlib import Path

from PIL import Image, ImageEnhance

_DRAWINGS = Path(__file__).parents[2] / "adapters" / "models" / "demo" / "held_out"


def drawing(name: str) -> Image.Image:
    """One of the demo model's held-out drawings, with transparency."""
    with Image.open(_DRAWINGS / f"{name}.png") as image:
        return image.convert("RGBA")


def sighting(
    name: str, *, ground: str, size: int = 190, mirrored: bool = False, light: float = 1.0
) -> Image.Image:
    """A crop in which something stands before a plain ground, in the camera's light."""
    thing = drawing(name)
    thing.thumbnail((size, size))
    thing = thing.resize([round(side * size / max(thing.size)) for side in thing.size])
    if mirrored:
        thing = thing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    crop = Image.new("RGB", (224, 224), ground)
    crop.paste(thing, ((224 - thing.width) // 2, (224 - thing.height) // 2), thing)
    return ImageEnhance.Brightness(crop).enhance(light)


def scene(*, light: float = 1.0, sway: int = 0, visitor: str | None = None) -> Image.Image:
    """A frame of a house and a tree; with a visitor in front of them if there is one."""
    frame = Image.new("RGB", (320, 240), "#bfe0f5")
    frame.paste("#8fb573", (0, 170, 320, 240))
    for name, side, place in (("house", 140, (20, 50)), ("tree", 110, (200 + sway, 76))):
        thing = drawing(name).resize((side, side))
        frame.paste(thing, place, thing)
    if visitor is not None:
        thing = drawing(visitor).resize((170, 170))
        frame.paste(thing, (60, 62), thing)
    return ImageEnhance.Brightness(frame).enhance(light)
