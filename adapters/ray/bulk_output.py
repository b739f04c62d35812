"""The folder that a Ray Data job writes, and the state that survives a killed job."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet

from application.bulk_ports import BulkFailure
from application.ports import EncoderDescription


class BulkOutput:
    """What survives the job: which model's embeddings these are, and which are done."""

    def __init__(self, output: Path) -> None:
        """Name the folder; nothing is read or written yet.

        Args:
            output: the folder; beside it, ``OUTPUT.journal`` is kept until it is complete.
        """
        self._output = output
        self._file = output / "_run.json"  # readers of Parquet folders pass over such names
        self.folder = output.with_name(f"{output.name}.journal")

    def check_unfinished(self) -> None:
        """See that there is something left to do, which needs neither a cluster nor a model.

        Raises:
            BulkFailure: the folder is complete, or holds something else.
        """
        if self._file.exists():
            if self._earlier()["complete"]:
                raise BulkFailure(f"{self._output} is complete already; name another folder.")
        elif self._output.exists() and any(self._output.iterdir()):
            raise BulkFailure(f"{self._output} holds something else already; name another folder.")

    def begin(self, model: EncoderDescription) -> None:
        """Begin, or continue where an earlier job stopped.

        Raises:
            BulkFailure: the folder is complete, of another model, or something else.
        """
        self.check_unfinished()
        if self._file.exists():
            earlier = self._earlier()
            if earlier["model_fingerprint"] != model.fingerprint:
                raise BulkFailure(
                    f"{self._output} holds embeddings of the model with fingerprint "
                    f"{earlier['model_fingerprint']}, and the model loaded now has "
                    f"{model.fingerprint}: they must not be mixed."
                )
            if not self.folder.exists():
                raise BulkFailure(
                    f"{self._output} is unfinished, and {self.folder}, which records what is "
                    "done, is missing: name another folder."
                )
        else:
            # With a journal but no output, the job would skip rows that are not written anywhere.
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._output.mkdir(exist_ok=True)
        self._fingerprint = model.fingerprint
        self._write(complete=False)

    def _earlier(self) -> dict[str, Any]:
        earlier: dict[str, Any] = json.loads(self._file.read_text(encoding="utf-8"))
        return earlier

    def complete(self, expected: int) -> int:
        """Mark the output as complete, and delete what was kept to continue the job.

        Raises:
            BulkFailure: the number of rows is not the number of images.
        """
        if (rows := count_rows(self._output)) != expected:
            raise BulkFailure(
                f"{self._output} has {rows} rows for {expected} images. Is every path there once?"
            )
        self._write(complete=True)
        shutil.rmtree(self.folder)
        return rows

    def _write(self, *, complete: bool) -> None:
        unfinished = self._file.with_suffix(".unfinished")
        described = {"model_fingerprint": self._fingerprint, "complete": complete}
        unfinished.write_text(json.dumps(described) + "\n", encoding="utf-8")
        unfinished.replace(self._file)


def count_rows(parquet: Path) -> int:
    """How many rows a Parquet file, or all files of a folder, have."""
    files = [parquet] if parquet.is_file() else parquet.glob("*.parquet")
    return sum(pyarrow.parquet.read_metadata(file).num_rows for file in files)
