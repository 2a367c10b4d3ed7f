"""Run a workflow in this process, node by node; values go through their JSON forms as in a region.

Called when a workflow is called as a function, and by `whimbrel run`. Honours `>>`, retries,
timeouts, environment.
"""

import json
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, cast

from whimbrel import spec, values
from whimbrel.artifacts import Store, digest_of
from whimbrel.checkpoint import Checkpoint
from whimbrel.context import Context, entered
from whimbrel.errors import InvalidInput
from whimbrel.recording import Node, checked
from whimbrel.task import run_task
from whimbrel.workflow import Workflow

REGION = "local"


class LocalStore:
    """A folder. Copies in and out, so that nobody changes what another has."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._numbers = count()

    def put_file(self, path: Path, *, kind: str = "file") -> spec.Artifact:
        kept = self._fresh(path.name)
        shutil.copyfile(path, kept)
        return spec.Artifact(kept.as_uri(), digest_of(kept), kept.stat().st_size, REGION, kind=kind)

    def get_file(self, artifact: spec.Artifact) -> Path:
        source = _path(artifact.uri)
        copy = self._fresh(source.name)
        shutil.copyfile(source, copy)
        return copy

    def _fresh(self, name: str) -> Path:
        folder = self.root / str(next(self._numbers))
        folder.mkdir(parents=True)
        return folder / name


def _path(uri: str) -> Path:
    from urllib.parse import unquote, urlsplit

    parts = urlsplit(uri)
    if parts.scheme != "file":
        raise InvalidInput(f"{uri}: a local run reads files of this machine only")
    return Path(unquote(parts.path))


def run_workflow(
    workflow: Workflow[..., Any], inputs: Mapping[str, Any], *, where: str = ""
) -> Any:
    """Python values in and out.

    The first exception of a task that has no tries left passes, with a note.
    """
    forms: dict[str, Any] = {}
    with _folder() as folder:
        store = LocalStore(folder.root / "store")
        for name, value in inputs.items():
            kind = workflow.interface.inputs[name]
            what = f"{workflow.short_name}({name}=...)"
            try:
                forms[name] = values.to_json(value, kind, store, what=what)
            except InvalidInput as error:
                raise InvalidInput(error.message, remedy=error.remedy, place=where) from error
        document = folder.results = run_json(workflow, forms, store, root=folder.root)
    outputs = {
        name: values.from_json(document[name], kind, store)
        for name, kind in workflow.interface.outputs.items()
    }
    return workflow.interface.join(outputs)


def run_here(workflow: Workflow[..., Any], forms: Mapping[str, Any]) -> dict[str, Any]:
    """JSON forms in, JSON forms out."""
    with _folder() as folder:
        store = LocalStore(folder.root / "store")
        folder.results = run_json(workflow, forms, store, root=folder.root)
    return folder.results


@dataclass
class _Folder:
    root: Path
    results: dict[str, Any] = field(default_factory=dict[str, Any])


@contextmanager
def _folder() -> Generator[_Folder]:
    """Of one run, and gone with it, unless there are files among its results."""
    folder = _Folder(Path(tempfile.mkdtemp(prefix="whimbrel-")))
    try:
        yield folder
    finally:
        kept = spec.ARTIFACT_KEY in json.dumps(folder.results)
        shutil.rmtree(folder.root / "work" if kept else folder.root, ignore_errors=True)


def run_json(
    workflow: Workflow[..., Any], inputs: Mapping[str, Any], store: Store, *, root: Path
) -> dict[str, Any]:
    """JSON forms in, the workflow's outputs document out."""
    known = workflow.interface
    given = dict(inputs)
    for name, kind in known.inputs.items():
        if name not in given:
            if name not in known.defaults:
                raise InvalidInput(
                    f"{workflow.short_name} needs the input {name!r}", place=workflow.place
                )
            given[name] = checked(
                known.defaults[name], kind, what=f"the default of {name!r}", where=workflow.place
            )
        values.from_json(given[name], kind, store, what=f"the input {name!r}")
    if unknown := sorted(set(given) - set(known.inputs)):
        known_names = ", ".join(known.inputs) or "none"
        raise InvalidInput(
            f"{workflow.short_name} has no input {unknown[0]!r}", remedy=f"it has {known_names}"
        )
    done: dict[str, dict[str, Any]] = {}
    for node in workflow.graph.nodes:
        forms = {name: _resolve(item, given, done) for name, item in node.inputs.items()}
        done[node.id] = _run_node(workflow, node, forms, store, root)
    return {name: _resolve(item, given, done) for name, item in workflow.graph.outputs.items()}


def _run_node(
    workflow: Workflow[..., Any], node: Node, forms: dict[str, Any], store: Store, root: Path
) -> dict[str, Any]:
    task, overrides = node.task, node.overrides
    retries = task.retries if overrides.retries is None else overrides.retries
    limit = overrides.timeout_seconds
    limit = task.timeout_seconds if limit is None else limit
    checkpoint = Checkpoint()
    for attempt in count(1):
        folder = root / "work" / node.id / str(attempt)
        folder.mkdir(parents=True)
        context = Context(
            execution_id=f"local/development/{workflow.short_name}",
            node_id=node.id,
            attempt=attempt,
            epoch=1,
            region=REGION,
            working_directory=str(folder),
            checkpoint=checkpoint,
        )
        try:
            with entered(context), _environment(task.environment), _time_limit(limit):
                return run_task(task, forms, store)[0]
        except InvalidInput:
            raise  # the same values won't fit the next time
        except Exception as error:
            if attempt > retries:
                error.add_note(f"in node {node.id} of {workflow.name}, attempt {attempt}")
                raise
    raise AssertionError("unreachable")


def _resolve(
    binding: spec.Binding, inputs: Mapping[str, Any], done: Mapping[str, Mapping[str, Any]]
) -> Any:
    match binding:
        case spec.Literal(value):
            return value
        case spec.InputRef(name):
            return inputs[name]
        case spec.OutputRef(node, name, path):
            value: Any = done[node][name]
            for step in path:
                value = cast("Any", value[int(step)] if isinstance(value, list) else value[step])
            return value
        case spec.ListBinding(items):
            return [_resolve(item, inputs, done) for item in items]
        case spec.MapBinding(items):
            return {key: _resolve(item, inputs, done) for key, item in items.items()}


@contextmanager
def _environment(extra: Mapping[str, str]) -> Generator[None]:
    before = {name: os.environ.get(name) for name in extra}
    os.environ.update(extra)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _time_limit(limit: float) -> Generator[None]:
    """By an alarm, which only the main thread of a Unix process can have.

    Elsewhere there is no limit.
    """
    if not limit or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(_number: int, _frame: object) -> None:
        raise TimeoutError(f"the task took longer than its timeout of {limit:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
