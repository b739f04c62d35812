"""The folder of a Ray Data job: never mixed, never taken for complete before it is."""

import dataclasses
import shutil
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from adapters.ray.bulk_output import BulkOutput
from application.bulk_ports import BulkFailure
from tests.ray.test_remote_encoder import DESCRIPTION


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A folder that a job has begun and written two rows to."""
    output = tmp_path / "out"
    BulkOutput(output).begin(DESCRIPTION)
    pyarrow.parquet.write_table(pyarrow.table({"path": ["a", "b"]}), output / "0.parquet")
    return output


def journal(output: Path) -> Path:
    return output.with_name("out.journal")


def test_a_complete_folder_is_not_written_to_again(output: Path) -> None:
    run = BulkOutput(output)
    run.begin(DESCRIPTION)
    assert run.complete(2) == 2
    assert not journal(output).exists()
    with pytest.raises(BulkFailure, match="is complete already"):
        BulkOutput(output).begin(DESCRIPTION)


def test_a_missing_row_is_noticed_and_nothing_forgotten(output: Path) -> None:
    run = BulkOutput(output)
    run.begin(DESCRIPTION)
    with pytest.raises(BulkFailure, match="has 2 rows for 3 images"):
        run.complete(3)
    assert journal(output).exists()


def test_another_model_is_refused(output: Path) -> None:
    other = dataclasses.replace(DESCRIPTION, fingerprint="f2")
    with pytest.raises(BulkFailure, match=r"fingerprint f1, .* has f2: .* must not be mixed"):
        BulkOutput(output).begin(other)


def test_without_the_journal_nobody_knows_what_is_done(output: Path) -> None:
    shutil.rmtree(journal(output))
    with pytest.raises(BulkFailure, match="is missing"):
        BulkOutput(output).begin(DESCRIPTION)


def test_a_journal_without_its_folder_counts_for_nothing(output: Path) -> None:
    (journal(output) / "done").mkdir()
    shutil.rmtree(output)
    BulkOutput(output).begin(DESCRIPTION)
    assert list(journal(output).iterdir()) == []


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(BulkFailure, match="holds something else"):
        BulkOutput(tmp_path).begin(DESCRIPTION)
