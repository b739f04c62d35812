"""Image files in memory: the fake of the port that lists and reads them."""

from collections.abc import Collection, Iterator, Mapping

from application.bulk_ports import ImageFile, ImageFilesPort


class MemoryFiles(ImageFilesPort):
    """Files in memory, some of which cannot be read. Counts the reads."""

    def __init__(self, files: Mapping[str, bytes], *, unreadable: Collection[str] = ()) -> None:
        self._files = files
        self._unreadable = unreadable
        self.read_so_far = 0

    def listing(self) -> Iterator[ImageFile]:
        return (ImageFile(path, size=1, modified_ns=0) for path in self._files)

    def read(self, file: ImageFile) -> bytes:
        self.read_so_far += 1
        if file.path in self._unreadable:
            raise PermissionError(13, "Permission denied")
        return self._files[file.path]
