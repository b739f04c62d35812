"""Chooses how many processes serve HTTP if the settings do not say."""

from typing import Final

_MOST: Final = 8
"""A front serves hundreds of pictures a second; eight fronts keep any single card busy."""


def http_processes(asked: int | None, *, card: bool, cores: int) -> int:
    """Processes that serve HTTP.

    On a CPU the encoder uses all cores, and one front keeps it busy. A card is faster than one
    front, and leaves the cores free for more fronts.

    Args:
        asked: the settings' number; None if they do not say.
        card: whether there is an NVIDIA card.
        cores: that this server may use.
    """
    if asked is not None:
        return asked
    return max(1, min(_MOST, cores // 2)) if card else 1
