"""Image files by name, by folder and by pattern, on this machine's file systems."""

import glob
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Final

from application.bulk_ports import BulkFailure, ImageFile, ImageFilesPort
from domain.errors import ImageTooLarge
from domain.limits import MAX_IMAGE_BYTES

SUFFIXES: Final = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".bmp", ".dib", ".webp"),
    # Refused, each with its reason in the error column: better than passed over in silence.
    *(".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl"),
)
"""What counts as an image in a folder, in small letters."""


class LocalImageFiles(ImageFilesPort):
    """Files, folders and patterns as a person names them.

    A file that is named or matched is taken whatever it is called; of a folder, all that is called
    like an image, down to its deepest subfolder. Links to files are followed, links to folders
    inside a folder are not: they may lead round in circles.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        """Take ``paths``: files, folders, or patterns with ``*``, ``?``, ``[…]`` and ``**``."""
        self._paths = paths

    def listing(self) -> Iterator[ImageFile]:
        """See `ImageFilesPort.listing`."""
        for path in self._paths:
            if os.path.lexists(path):
                yield from _under(path)
                continue
            if not glob.has_magic(path):
                raise BulkFailure(f"{path} does not exist.")
            nothing = True
            for match in glob.iglob(path, recursive=True):
                nothing = False
                yield from _under(match)
            if nothing:
                raise BulkFailure(f"nothing matches {path!r}.")

    def read(self, file: ImageFile) -> bytes:
        """See `ImageFilesPort.read`."""
        mode = os.stat(file.path).st_mode
        if stat.S_ISDIR(mode):
            os.scandir(file.path).close()  # listed because it could not be looked into; tells why
        if not stat.S_ISREG(mode):  # opening a pipe would wait for its other end
            raise OSError("not a regular file")
        with open(file.path, "rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            if size > MAX_IMAGE_BYTES:
                raise ImageTooLarge(
                    f"image is {size} bytes; at most {MAX_IMAGE_BYTES} bytes (10 MiB) are allowed."
                )
            return opened.read(MAX_IMAGE_BYTES + 1)


def _under(path: str) -> Iterator[ImageFile]:
    if not os.path.isdir(path):
        yield _seen(path)
        return
    unreadable: list[OSError] = []
    for folder, _, names in os.walk(path, onerror=unreadable.append):
        for name in names:
            if name.lower().endswith(SUFFIXES):
                yield _seen(os.path.join(folder, name))
        # A folder that cannot be looked into gets a row too, whose error says so.
        while unreadable:
            yield _seen(unreadable.pop().filename)
    while unreadable:
        yield _seen(unreadable.pop().filename)


def _seen(path: str) -> ImageFile:
    path = str(PurePath(path))  # ./photo.jpg and photo.jpg are one
    try:
        found = os.stat(path)
    except OSError:
        return ImageFile(path, size=0, modified_ns=0)  # reading it will tell why
    return ImageFile(path, size=found.st_size, modified_ns=found.st_mtime_ns)
