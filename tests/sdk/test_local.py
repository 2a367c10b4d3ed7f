"""A run in this process: what a task sees, in which order, how often, and what comes out."""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import NamedTuple

import pytest
from whimbrel import Directory, File, Resources, current_context, task, workflow
from whimbrel import spec as specs
from whimbrel.artifacts import digest_of
from whimbrel.codec import workflow_from_wire, workflow_to_wire
from whimbrel.compiler import compile_workflow
from whimbrel.errors import InvalidInput, NotFound, Refused
from whimbrel.local import LocalStore
from whimbrel.task import load_task, run_task
from whimbrel.testing import local_run, task_mock

story: list[str] = []


class Colour(Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    at: datetime | None = None


class Both(NamedTuple):
    point: Point
    colour: Colour


@task
def make(x: int = 2, colour: Colour = Colour.RED) -> Both:
    return Both(Point(x, datetime(2026, 1, 1, tzinfo=UTC)), colour)


@task
def mutate(items: list[int]) -> int:
    items.append(1)
    return len(items)


@task
def say(word: str) -> None:
    story.append(word)


@task(retries=2, environment={"WHIMBREL_TEST": "set"})
def resumes(until: int) -> int:
    context = current_context()
    saved = int(context.checkpoint.read() or b"0")
    story.append(f"{context.node_id} {context.attempt} {saved} {os.environ['WHIMBREL_TEST']}")
    if context.attempt < until:
        context.checkpoint.write(str(saved + 10).encode())
        raise ConnectionError("not yet")
    return saved


@task(timeout=0.2)
def slow() -> int:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        pass
    return 1


@task
def write() -> tuple[File, Directory]:
    folder = Path(current_context().working_directory)
    (folder / "a").mkdir()
    (folder / "a" / "b.txt").write_text("hello")
    return File(folder / "a" / "b.txt"), Directory(folder / "a")


@task
def read(file: File, folder: Directory, more: dict[str, File]) -> str:
    with file.open() as first, more["c"].open() as second:
        return first.read() + (Path(folder) / "b.txt").read_text() + second.read()


@workflow
def values_pass(x: int = 3) -> tuple[Point, Colour, int]:
    made = make(x=x)
    return made.point, made.colour, made.point.x


@workflow
def files_pass() -> tuple[str, File]:
    file, folder = write()
    return read(file=file, folder=folder, more={"c": file}), file


@workflow
def ordered() -> None:
    a, b, c = say(word="a"), say(word="b"), say(word="c")
    c >> b >> a


@workflow
def resumed(until: int) -> int:
    return resumes(until=until)


@workflow
def slowly() -> int:
    return slow()


@workflow
def shared(items: list[int]) -> tuple[int, int]:
    return mutate(items=items), mutate(items=items)


@workflow
def nested(x: int) -> tuple[Point, int]:
    first, _, value = values_pass(x=x)
    second = values_pass()
    say(word="last") >> say(word="never before")
    return first, mutate(items=[value, second[2], 5])


@workflow
def overridden() -> int:
    return resumes(until=2).with_overrides(retries=0, requests=Resources(cpu=2), timeout=60)


@pytest.fixture(autouse=True)
def _fresh_story() -> None:
    story.clear()


def test_values_arrive_as_they_were() -> None:
    assert values_pass() == (Point(3, datetime(2026, 1, 1, tzinfo=UTC)), Colour.RED, 3)
    assert values_pass(x=4)[2] == 4


def test_files_arrive() -> None:
    text, file = files_pass()
    assert text == "hellohellohello"
    assert Path(file.path).read_text() == "hello"


def test_a_run_leaves_nothing_but_the_files_among_its_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    test_values_arrive_as_they_were()
    test_the_exception_keeps_its_class_when_tries_are_used_up()
    assert list(tmp_path.iterdir()) == []
    test_files_arrive()
    assert [folder.name for folder in tmp_path.glob("whimbrel-*/*")] == ["store"]


def test_order_without_data_is_kept() -> None:
    ordered()
    assert story == ["c", "b", "a"]


def test_a_retry_finds_the_checkpoint() -> None:
    assert resumed(until=3) == 20
    assert story == ["resumes 1 0 set", "resumes 2 10 set", "resumes 3 20 set"]
    assert "WHIMBREL_TEST" not in os.environ


def test_the_exception_keeps_its_class_when_tries_are_used_up() -> None:
    with pytest.raises(ConnectionError, match="not yet") as raised:
        resumed(until=9)
    assert "in node resumes of" in raised.value.__notes__[0]
    assert len(story) == 3


def test_a_timeout_is_enforced() -> None:
    with pytest.raises(TimeoutError, match=r"0\.2 s"):
        slowly()


def test_a_callee_cannot_change_what_another_gets() -> None:
    assert shared(items=[5]) == (2, 2)


def test_a_workflow_inside_another() -> None:
    assert nested(x=7) == (Point(7, datetime(2026, 1, 1, tzinfo=UTC)), 4)
    ids = [node.id for node in nested.graph.nodes]
    assert sorted(ids) == ["mutate", "say", "say-2", "values-pass-2-make", "values-pass-make"]


def test_overrides_hold_for_one_call() -> None:
    with pytest.raises(ConnectionError):
        overridden()
    assert len(story) == 1
    (node,) = compile_workflow(overridden, bundle="b").nodes
    assert node.overrides.requests == specs.Resources(cpu=2.0)
    assert (node.overrides.retries, node.overrides.timeout_seconds) == (0, 60.0)


@pytest.mark.parametrize("flow", [values_pass, files_pass, ordered, nested, overridden])
def test_a_compiled_workflow_keeps_its_digest(flow: "workflow") -> None:  # type: ignore[valid-type]
    made = compile_workflow(flow, bundle="b")
    assert specs.digest(workflow_from_wire(workflow_to_wire(made))) == specs.digest(made)
    seen: set[str] = set()
    for node in made.nodes:
        assert set(node.upstream) <= seen
        seen.add(node.id)


def test_wrong_inputs_are_refused_where_the_call_is() -> None:
    for wrong in ({"x": "a"}, {"y": 1}, {"x": True}):
        with pytest.raises(InvalidInput) as refused:
            values_pass(**wrong)
        assert refused.value.place.startswith(__file__)


def test_a_result_of_another_type_is_refused(tmp_path: Path) -> None:
    with (
        task_mock(mutate, lambda items: "many"),
        pytest.raises(InvalidInput, match="output 'o0' of mutate is not int"),
    ):
        local_run(shared, items=[1])


def test_a_task_can_be_stood_in_for() -> None:
    with task_mock(mutate, lambda items: 9):
        assert local_run(shared, items=[1]) == (9, 9)
    assert local_run(shared, items=[1]) == (2, 2)


def test_a_task_outside_a_workflow_is_its_function() -> None:
    assert mutate([1, 2]) == 3
    with pytest.raises(Refused, match="while a workflow runs"):
        resumes(until=1)


def test_run_task_from_json(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    document, artifacts = run_task(make, {"x": 5, "colour": "red"}, store)
    assert document == {"point": {"x": 5, "at": "2026-01-01T00:00:00Z"}, "colour": "red"}
    assert artifacts == []
    with pytest.raises(InvalidInput, match="input 'x' of make is not int"):
        run_task(make, {"x": "5"}, store)


def test_tasks_are_found_by_entry_point() -> None:
    found = load_task(f"{make.module}:make")
    assert found is make
    with pytest.raises(NotFound):
        load_task(f"{make.module}:Point")


def test_a_directory_is_its_content(tmp_path: Path) -> None:
    from whimbrel.values import to_json

    store = LocalStore(tmp_path / "store")
    digests: set[str] = set()
    for name in ("one", "two"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "f").write_text("same")
        digests.add(to_json(Directory(tmp_path / name), Directory, store)["$artifact"]["sha256"])
    assert len(digests) == 1


def test_a_stored_file_is_named_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    artifact = LocalStore(tmp_path / "store").put_file(tmp_path / "f")
    assert artifact.sha256 == digest_of(tmp_path / "f")


def test_importing_the_package_is_cheap() -> None:
    code = (
        "import sys, whimbrel;"
        "print([m for m in ('grpc','obstore','typer','pydantic','asyncio') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
