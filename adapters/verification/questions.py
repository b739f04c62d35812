"""Test pictures and texts on which servers differ, to verify a server."""

import io
from collections.abc import Mapping

from PIL import Image, ImageDraw

from adapters.images.photos import photo

_ORIENTATION = 0x0112

TEXTS: Mapping[str, str] = {
    "short": "a dog",
    "upper case": "A Photo of TWO People",
    "longer than any context": "a delivery truck in front of a house at night, " * 40,
    "other scripts": "красный грузовик, 赤い自転車, شاحنة",
    "accents and signs": "café — naïve façade & “quotes” 100 %",
}
"""Name → text."""


def pictures() -> Mapping[str, bytes]:
    """Name → image file; the first is an ordinary photo. Always the same."""
    astronaut, coffee, cat, rocket = map(photo, ("astronaut", "coffee", "cat", "rocket"))
    transparent = rocket.convert("RGBA")
    mask = Image.new("L", rocket.size, 0)
    ImageDraw.Draw(mask).ellipse((40, 20, rocket.width - 60, rocket.height - 30), fill=255)
    transparent.putalpha(mask)
    turned = Image.Exif()
    turned[_ORIENTATION] = 6
    wide = astronaut.crop((0, 100, astronaut.width, 100 + astronaut.width // 3))
    return {
        "an ordinary photo": _file(coffee, "JPEG", quality=95),
        "wide": _file(wide, "PNG"),
        "tall": _file(cat.crop((100, 0, 100 + cat.height // 3, cat.height)), "PNG"),
        "turned by EXIF": _file(cat, "JPEG", quality=95, exif=turned),
        "partly transparent": _file(transparent, "PNG"),
        "tiny": _file(coffee.resize((32, 24)), "PNG"),
        "huge": _file(coffee.resize((3600, 2400), Image.Resampling.BICUBIC), "JPEG", quality=90),
        "grey": _file(rocket.convert("L"), "PNG"),
    }


def _file(image: Image.Image, kind: str, **options: object) -> bytes:
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()
