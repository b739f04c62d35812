"""The pictures of a folder as frames of a scene."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from adapters.bulk.local_files import LocalImageFiles
from adapters.watching.pictures import brightness_of
from application.bulk_ports import ImageFile, error_of
from application.watch_ports import Frame, FrameSourcePort, SourceFailure
from domain.errors import ImageTooLarge


class FolderSource(FrameSourcePort):
    """Every picture in a folder, ordered by name, as if taken a few seconds apart."""

    live = False

    def __init__(self, path: Path, *, name: str, every_s: float) -> None:
        """Name a folder.

        Args:
            path: of the folder.
            name: the name that users know it by.
            every_s: seconds from one picture to the next; 0 counts as 1.
        """
        self.name = name
        self._folder = LocalImageFiles([str(path)])
        self._every_s = every_s or 1.0
        self._files: Iterator[tuple[int, ImageFile]] | None = None
        self._closed = False

    def take(self) -> Frame | None:
        """See `FrameSourcePort.take`."""
        if self._files is None:
            files = sorted(self._folder.listing(), key=lambda file: file.path)
            if not files:
                raise SourceFailure(f"{self.name} has no pictures.")
            self._files = enumerate(files)
        following = None if self._closed else next(self._files, None)
        if following is None:
            return None
        number, file = following
        try:
            picture, error = self._folder.read(file), None
        except (ImageTooLarge, OSError) as failure:
            picture, error = None, error_of(failure)
        return Frame(
            number=number,
            at=datetime.fromtimestamp(file.modified_ns / 1e9, UTC),
            at_s=number * self._every_s,
            picture=picture,
            brightness=None if picture is None else brightness_of(picture),
            path=file.path,
            error=error,
        )

    def close(self) -> None:
        """See `FrameSourcePort.close`."""
        self._closed = True
