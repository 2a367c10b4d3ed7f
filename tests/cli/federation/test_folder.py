"""A data folder belongs to one supervisor and one version, and is refused otherwise."""

from pathlib import Path

import pytest
from whimbrel.cli.federation import control
from whimbrel.cli.federation.faults import find_again, lose
from whimbrel.cli.federation.folder import Folder
from whimbrel.cli.federation.parts import check_regions
from whimbrel.errors import InvalidInput, NotFound, Refused, Unreachable


def test_a_second_supervisor_is_refused(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    with folder.locked():
        assert folder.running
        with pytest.raises(Refused, match="already runs"), folder.locked():
            pass
    assert not folder.running


def test_a_folder_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "version").write_text("0\n")
    with pytest.raises(Refused, match="another version") as caught:
        Folder(tmp_path).prepare()
    assert "--purge" in caught.value.remedy


def test_a_folder_with_something_else_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(Refused, match="not a data folder"):
        Folder(tmp_path).prepare()


def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Refused, match="can't write"), Folder(tmp_path / "file").locked():
        pass


def test_preparing_twice_is_fine(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "new")
    folder.prepare()
    folder.prepare()
    folder.write_sandbox({"endpoint": "x:1"})
    assert folder.sandbox() == {"endpoint": "x:1"}


def test_without_a_federation_the_remedy_is_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no federation"):
        Folder(tmp_path).sandbox()
    with pytest.raises(Unreachable) as caught:
        control.call(Folder(tmp_path), {"do": "status"})
    assert "whimbrel up" in caught.value.remedy


def test_a_long_path_gets_its_socket_elsewhere(tmp_path: Path) -> None:
    assert len(str(Folder(tmp_path / ("x" * 120)).socket)) < 100


def test_a_lost_store_comes_back_with_what_was_written_meanwhile(tmp_path: Path) -> None:
    store = tmp_path / "store"
    (store / "a").mkdir(parents=True)
    (store / "a" / "old").write_text("1")
    lose(store)
    assert not store.exists()
    (store / "a").mkdir(parents=True)
    (store / "a" / "new").write_text("2")
    find_again(store)
    assert sorted(path.name for path in (store / "a").iterdir()) == ["new", "old"]


@pytest.mark.parametrize("name", ["", "Us", "a b", "-a", "logs", "../x"])
def test_odd_names_of_regions_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        check_regions([name])
