"""From what a person names to the source that reads it."""

import importlib.util
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from adapters.watching.folder import FolderSource
from adapters.watching.video import VideoFile, VideoStream, is_address, without_credentials
from application.watch_ports import FrameSourcePort, SourceFailure

_NAMED: Final = re.compile(r"([\w.-]{1,64})=(.+)", re.DOTALL)


def open_sources(
    given: Sequence[str], *, every_s: float, say: Callable[[str, str], None]
) -> list[FrameSourcePort]:
    """A source for each of a folder, a video file, or a stream's address.

    ``NAME=`` before it names a source; without, it is called by its path, or by its address without
    credentials.

    Args:
        given: as a person wrote them.
        every_s: seconds between two frames; 0: every frame.
        say: called with a source's name and what is wrong, while it keeps trying.

    Raises:
        SourceFailure: one does not exist, needs a package that is not installed, or two have the
            same name.
    """
    sources: list[FrameSourcePort] = []
    for each in given:
        named = None if Path(each).exists() else _NAMED.fullmatch(each)
        name, what = named.groups() if named else (None, each)
        sources.append(_open(what, name, every_s=every_s, say=say))
    names = [source.name for source in sources]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise SourceFailure(
            f"two sources are called {repeated[0]}; name them, such as front={repeated[0]}."
        )
    return sources


def _open(
    what: str, name: str | None, *, every_s: float, say: Callable[[str, str], None]
) -> FrameSourcePort:
    if is_address(what):
        _need_pyav(name or without_credentials(what))
        return VideoStream(what, name=name or without_credentials(what), every_s=every_s, say=say)
    if "://" in what:
        raise SourceFailure(
            f"{name or without_credentials(what)} is not a URL that can be watched; it must begin "
            "with rtsp://, rtsps://, http:// or https://."
        )
    path = Path(what)
    if path.is_dir():
        return FolderSource(path, name=name or what, every_s=every_s)
    if not path.exists():
        raise SourceFailure(f"{what} does not exist.")
    _need_pyav(what)
    return VideoFile(path, name=name or what, every_s=every_s)


def _need_pyav(name: str) -> None:
    if importlib.util.find_spec("av") is None:
        raise SourceFailure(
            f"{name}: videos and streams need the extra 'video' "
            "(pip install 'clip-embedding-server[video]')."
        )
