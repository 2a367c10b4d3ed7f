"""Values through their JSON forms: the same again, or refused; nothing is bent."""

import enum
import json
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from whimbrel import Directory, File
from whimbrel.artifacts import NoStore
from whimbrel.errors import InvalidInput
from whimbrel.interface import fits
from whimbrel.local import LocalStore
from whimbrel.spec import Artifact, canonical
from whimbrel.values import from_json, schema, to_json


class Level(enum.Enum):
    LOW = 1
    HIGH = "high"


@dataclass
class Inner:
    level: Level
    when: datetime


@dataclass
class Outer:
    name: str
    inner: Inner | None = None
    table: dict[str, list[float]] = field(default_factory=dict[str, list[float]])


class Model(BaseModel):
    size: int
    at: datetime


@dataclass
class Holder:
    file: File
    more: list[File]


texts = st.text(st.characters(exclude_categories=["Cs"]))
finite = st.floats(allow_nan=False, allow_infinity=False)
moments = st.datetimes(timezones=st.just(UTC))
inners = st.builds(Inner, st.sampled_from(Level), moments)
cases: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers()),
    (float, finite),
    (bool, st.booleans()),
    (str, texts),
    (Level, st.sampled_from(Level)),
    (datetime, moments),
    (timedelta, st.timedeltas(timedelta(0), timedelta(days=900))),
    (int | None, st.none() | st.integers()),
    (list[dict[str, float]], st.lists(st.dictionaries(texts, finite))),
    (dict[int, str], st.dictionaries(st.integers(), texts)),
    (tuple[int, str], st.tuples(st.integers(), texts)),
    (Outer, st.builds(Outer, texts, st.none() | inners)),
    (Model, st.builds(Model, size=st.integers(), at=moments)),
]
pairs = st.sampled_from(cases).flatmap(lambda case: st.tuples(st.just(case[0]), case[1]))


@given(pairs)
def test_a_value_comes_back(pair: tuple[Any, Any]) -> None:
    kind, value = pair
    document = json.loads(canonical(to_json(value, kind)))
    assert from_json(document, kind) == value


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [
        (True, int, "valid integer"),
        (1.0, int, "valid integer"),
        ("1", int, "valid integer"),
        (1, str, "valid string"),
        (1, bool, "valid boolean"),
        (None, int, "valid integer"),
        ([1, "a"], list[int], "at 1"),
        ({"a": {"b": True}}, dict[str, dict[str, int]], "at a.b"),
        (math.nan, float, "NaN"),
        ([math.inf], list[float], "NaN and infinity"),
        (datetime(2026, 1, 1), datetime, "no time zone"),
        ([Inner(Level.LOW, datetime(2026, 1, 1))], list[Inner], "no time zone"),
        (Model(size=1, at=datetime(2026, 1, 1)), Model, "no time zone"),
        (Outer(name=3), Outer, "Outer"),
        ("red", Level, "Level"),
        (object(), Any, "Any"),
        (File("/nowhere/at/all"), File, "no file"),
        (3, File, "a File is needed"),
        (Directory("/"), File, "a File is needed"),
    ],
)
def test_a_value_that_does_not_fit(value: Any, kind: Any, words: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        to_json(value, kind, what="output 'o0'")
    assert words in refused.value.message
    assert refused.value.message.startswith("output 'o0'")


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        (True, int),
        ("1", int),
        ("2026-01-01T00:00:00", datetime),
        ({"name": 3}, Outer),
        ({"$artifact": {"uri": "file:///x"}}, File),
        (
            {"$artifact": {"uri": "u", "sha256": "s", "bytes": 1, "region": "r", "kind": "file"}},
            Directory,
        ),
        ("/etc/passwd", File),
    ],
)
def test_a_document_that_does_not_fit(document: Any, kind: Any) -> None:
    with pytest.raises(InvalidInput):
        from_json(document, kind)


def test_a_whole_number_fits_a_float() -> None:
    assert canonical(to_json(1, float)) == "1.0"
    assert canonical(from_json(1, float)) == "1.0"


def test_files_inside_a_value_are_stored_and_listed(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("A")
    (tmp_path / "b").write_text("B")
    store, found = LocalStore(tmp_path / "store"), list[Artifact]()
    holder = Holder(File(tmp_path / "a"), [File(tmp_path / "b")])
    document = to_json(holder, Holder, store, artifacts=found)
    back = from_json(json.loads(canonical(document)), Holder, store)
    assert [item.bytes for item in found] == [1, 1]
    assert Path(back.file.path).read_text() == "A"
    assert Path(back.more[0]).read_text() == "B"


def test_a_file_is_fetched_only_when_it_is_read(tmp_path: Path) -> None:
    artifact = {"uri": "file:///gone", "sha256": "0", "bytes": 1, "region": "r"}
    file = from_json({"$artifact": artifact}, File, LocalStore(tmp_path))
    again = to_json(file, File, NoStore())
    assert again["$artifact"]["uri"] == "file:///gone"
    with pytest.raises(FileNotFoundError):
        _ = file.path


def test_trouble_of_the_store_is_not_the_value_s(tmp_path: Path) -> None:
    class Full:
        def put_file(self, path: Path, *, kind: str = "file") -> Artifact:
            raise OSError("no space left")

        def get_file(self, artifact: Artifact) -> Path:
            raise AssertionError

    (tmp_path / "a").write_text("A")
    with pytest.raises(OSError, match="no space left"):
        to_json([File(tmp_path / "a")], list[File], Full())


def test_a_remote_address_is_no_file() -> None:
    with pytest.raises(InvalidInput, match="only a path"):
        File("s3://bucket/key")


def test_schemas_tell_files_apart() -> None:
    assert schema(File)["x-artifact"] == "file"
    assert schema(list[Directory])["items"]["x-artifact"] == "directory"


@pytest.mark.parametrize(
    ("source", "target", "answer"),
    [
        (int, float, True),
        (bool, int, False),
        (bool, float, False),
        (float, int, False),
        (int, int | None, True),
        (int | None, int, False),
        (int | None, float | str | None, True),
        (list[int], list[float], True),
        (list[str], list[int], False),
        (list[int], list, True),
        (list[int], dict[str, int], False),
        (dict[str, int], dict[str, float], True),
        (Annotated[int, "x"], int, True),
        (int, Any, True),
        (File, Directory, False),
        (str, Level, False),
        (None, int | None, True),
    ],
)
def test_which_type_fits_which(source: Any, target: Any, answer: bool) -> None:
    assert fits(source, target) is answer
