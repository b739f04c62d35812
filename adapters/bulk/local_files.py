"""Image files on this machine, given by name, by folder or by pattern."""

import glob
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Final

from application.bulk_ports import BulkFailure, ImageFile, ImageFilesPort
from domain.errors import ImageTooLarge
from domain.limits import MAX_IMAGE_BYTES

SUFFIXES: Final = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".bmp", ".dib", ".webp"),
    # Not supported: their rows say so, which is better than leaving them out silently.
    *(".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl"),
)
"""Lower-case endings of files in a folder that count as images."""


class LocalImageFiles(ImageFilesPort):
    """Files, folders and patterns that a user named.

    A named or matched file is always taken. From a folder and its subfolders, every file with an
    image's suffix is taken. Links to files are followed. Links to folders are followed if they are
    named, or matched by anything but ``**``. Below a folder, and by ``**``, they are not followed,
    since they may form a loop. Files whose names begin with a dot are not skipped.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        """Take ``paths``: files, folders, or patterns with ``*``, ``?``, ``[…]`` and ``**``."""
        self._paths = paths

    def listing(self) -> Iterator[ImageFile]:
        """See `ImageFilesPort.listing`."""
        for path in self._paths:
            if _exists(path):
                yield from _under(path)
                continue
            if not glob.has_magic(path):
                raise BulkFailure(f"{path} does not exist.")
            nothing = True
            for match in _matches(path):
                nothing = False
                yield from _under(match)
            if nothing:
                raise BulkFailure(f"nothing matches {path!r}.")

    def read(self, file: ImageFile) -> bytes:
        """See `ImageFilesPort.read`."""
        mode = os.stat(file.path).st_mode
        if stat.S_ISDIR(mode):
            os.scandir(file.path).close()  # an unreadable folder: raises the reason
        if not stat.S_ISREG(mode):  # opening a pipe would wait for its other end
            raise OSError("not a regular file")
        with open(file.path, "rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            if size > MAX_IMAGE_BYTES:
                raise ImageTooLarge(
                    f"image is {size} bytes; at most {MAX_IMAGE_BYTES} bytes (10 MiB) are allowed."
                )
            return opened.read(MAX_IMAGE_BYTES + 1)


def _exists(path: str) -> bool:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as failure:
        raise BulkFailure(f"{path} cannot be read: {failure.strerror}.") from failure
    return True


def _matches(pattern: str) -> Iterator[str]:
    """Files and folders that match.

    pathlib's ``**``, unlike that of `glob`, does not follow links. ``photos/**`` and
    ``photos/**/*`` are the folder itself.
    """
    parts = PurePath(pattern).parts
    plain = next(place for place, part in enumerate(parts) if glob.has_magic(part))
    folder, rest = Path(*parts[:plain]), parts[plain:]
    while rest[-1:] == ("**",) or rest[-2:] == ("**", "*"):
        rest = rest[: rest.index("**", len(rest) - 2)]
    if not rest:
        if folder.is_dir():
            yield str(folder)
        return
    recursive = "**" in rest
    for match in folder.glob(str(PurePath(*rest))):
        if not (recursive and match.is_symlink() and match.is_dir()):
            yield str(match)


def _under(path: str) -> Iterator[ImageFile]:
    if not os.path.isdir(path):
        yield _seen(path)
        return
    unreadable: list[OSError] = []
    for folder, _, names in os.walk(path, onerror=unreadable.append):
        for name in names:
            if name.lower().endswith(SUFFIXES):
                yield _seen(os.path.join(folder, name))
        # An unreadable folder gets a row too, with an error.
        while unreadable:
            yield _seen(unreadable.pop().filename)
    while unreadable:
        yield _seen(unreadable.pop().filename)


def _seen(path: str) -> ImageFile:
    path = str(PurePath(path))  # ./photo.jpg and photo.jpg are one
    try:
        found = os.stat(path)
    except OSError:
        return ImageFile(path, size=0, modified_ns=0)  # reading it will raise the reason
    return ImageFile(path, size=found.st_size, modified_ns=found.st_mtime_ns)
