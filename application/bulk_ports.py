"""What embedding whole folders of images needs from the outside world, besides `ports`."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from application.ports import EncoderDescription
from domain.embedding import Embedding
from domain.errors import EncoderFault, InvalidInput


class BulkFailure(Exception):
    """The run cannot continue. The message is for users: it says what to do."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One file to embed, as it was when the files were listed.

    Attributes:
        path: its name; unique within a run.
        size: bytes; 0 if its metadata could not be read.
        modified_ns: time of the last change, in nanoseconds since 1970; 0 if unknown.
    """

    path: str
    size: int
    modified_ns: int


@dataclass(frozen=True, slots=True)
class EmbeddedFile:
    """The outcome of one file: an embedding or an error, never both.

    Attributes:
        file: the file.
        embedding: None if there is an error.
        error: ``code: detail`` of what is wrong with the file, else None.
    """

    file: ImageFile
    embedding: Embedding | None
    error: str | None


def error_of(failure: InvalidInput | EncoderFault | OSError) -> str:
    """The error in the row of a file that could not be embedded: ``code: detail``."""
    if isinstance(failure, OSError):
        return f"unreadable_file: {failure.strerror or failure}"
    return f"{failure.code}: {failure.detail}"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come.

    Attributes:
        total: number of files.
        done: files with an embedding or an error, from earlier runs too.
        failed: those of them with an error.
    """

    total: int
    done: int
    failed: int


class ImageFilesPort(ABC):
    """The files of one run. `read` blocks and may be called from several threads."""

    @abstractmethod
    def listing(self) -> Iterator[ImageFile]:
        """Every file, in any order; a file that was named twice may come twice.

        Raises:
            BulkFailure: a file or folder that was asked for does not exist.
        """

    @abstractmethod
    def read(self, file: ImageFile) -> bytes:
        """The file's bytes.

        Raises:
            ImageTooLarge: the file has more bytes than allowed. It is not read.
            OSError: it cannot be read.
        """


class EmbeddingsFilePort(ABC):
    """A file of embeddings being written. It appears, complete, once every image has its row.

    Recorded rows survive if the process dies at any moment; a later run continues from them. Rows
    are in the order of their paths' bytes, one for each path. Calls block and come from one thread
    at a time.
    """

    @abstractmethod
    def resume(self, model: EncoderDescription, files: Iterable[ImageFile]) -> Progress:
        """Continue from what earlier runs recorded, or begin.

        Embeddings of files that have changed since, or that are no longer listed, are left out;
        files with an error are tried again.

        Args:
            model: the model that makes the embeddings.
            files: all files that need a row; a repeated path counts once.

        Raises:
            BulkFailure: the file exists already, another run is writing it, the recorded rows are
                from another model, or no files are listed.
        """

    @abstractmethod
    def remaining(self) -> Iterator[ImageFile]:
        """The files that have no row yet, in order."""

    @abstractmethod
    def record(self, rows: Sequence[EmbeddedFile]) -> None:
        """Save the rows durably: all of them or, if the process dies meanwhile, none."""

    @abstractmethod
    def finish(self) -> None:
        """Write the file in one step and delete the recorded rows.

        Raises:
            BulkFailure: it cannot be written; everything recorded is kept.
        """

    @abstractmethod
    def close(self) -> None:
        """Release the recorded rows, so that another run can continue from them."""


@dataclass(frozen=True, slots=True, eq=False)
class IndexBlock:
    """Some rows of an index, in order.

    Attributes:
        paths: of the images, as many as rows.
        vectors: float32 ``[rows, dimension]``, unit rows; NaN if an image has no embedding.
    """

    paths: Sequence[str] | NDArray[np.str_]
    vectors: NDArray[np.float32]


class EmbeddingsIndexPort(ABC):
    """A finished file of embeddings."""

    name: str
    """The name that users know it by."""

    fingerprint: str
    """Fingerprint of the model that made the embeddings."""

    dimension: int
    """Floats of an embedding."""

    @abstractmethod
    def blocks(self) -> Iterator[IndexBlock]:
        """All rows from first to last, a few thousand at a time. Blocks.

        Raises:
            BulkFailure: the file is damaged or has changed.
        """
