"""A checkpoint is bytes; files and folders go through it and come back."""

from pathlib import Path

import pytest
from whimbrel.checkpoint import Checkpoint
from whimbrel.errors import InvalidInput


def test_nothing_at_first(tmp_path: Path) -> None:
    assert Checkpoint().read() is None
    assert Checkpoint().restore(tmp_path / "x") is False


def test_the_newest_counts() -> None:
    checkpoint = Checkpoint()
    checkpoint.write(b"1")
    checkpoint.write(b"2")
    assert checkpoint.read() == b"2"


def test_a_file_comes_back(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"weights")
    checkpoint = Checkpoint()
    checkpoint.save(tmp_path / "model.bin")
    (tmp_path / "new").mkdir()
    assert checkpoint.restore(tmp_path / "new" / "other-name.bin")
    assert (tmp_path / "new" / "other-name.bin").read_bytes() == b"weights"


def test_a_folder_comes_back_over_an_old_one(tmp_path: Path) -> None:
    (tmp_path / "state" / "sub").mkdir(parents=True)
    (tmp_path / "state" / "sub" / "f").write_text("new")
    checkpoint = Checkpoint()
    checkpoint.save(tmp_path / "state")
    (tmp_path / "state" / "sub" / "f").write_text("old")
    (tmp_path / "state" / "left-over").write_text("old")
    assert checkpoint.restore(tmp_path / "state")
    assert (tmp_path / "state" / "sub" / "f").read_text() == "new"
    assert not (tmp_path / "state" / "left-over").exists()


def test_nothing_to_save(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="nothing to save"):
        Checkpoint().save(tmp_path / "x")
