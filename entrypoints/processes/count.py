"""How many processes serve HTTP where the settings leave it open."""

from typing import Final

_MOST: Final = 8
"""A front serves hundreds of pictures a second; eight of them feed any one card."""


def http_processes(asked: int | None, *, card: bool, cores: int) -> int:
    """Processes that serve HTTP.

    On a processor the encoder takes all cores, and one front keeps it busy. A card is faster than
    one front, and leaves the cores to more of them.

    Args:
        asked: by the settings; None leaves it open.
        card: whether there is an NVIDIA card.
        cores: that this server may use.
    """
    if asked is not None:
        return asked
    return max(1, min(_MOST, cores // 2)) if card else 1
