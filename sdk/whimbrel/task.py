"""`@task`: a typed function that is a plain function outside a workflow and a node inside one.

Called by users' modules at import; `run_task` runs one attempt from JSON forms to a JSON outputs
document, for the local run and for `runtime_task.py` in a region.
"""

import contextlib
import functools
import importlib
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar, overload

from whimbrel import interface, place, spec, values
from whimbrel.artifacts import Store
from whimbrel.errors import InvalidInput, NotFound
from whimbrel.recording import Recorder
from whimbrel.requirements import Resources, Secret, seconds, tries

P = ParamSpec("P")
R = TypeVar("R")
_replaced: ContextVar[Mapping[int, Callable[..., Any]]] = ContextVar("whimbrel_mocks", default={})  # noqa: B039 never changed in place


class Task(Generic[P, R]):
    """What `@task` makes of a function.

    Calling it in a workflow records a node; elsewhere it just runs.
    """

    def __init__(self, function: Callable[P, R], options: dict[str, Any]) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.module = module_name(function)
        self.qualname = function.__qualname__
        self.short_name = function.__name__
        self.interface = interface.of(function)
        self._options = options

    @functools.cached_property
    def place(self) -> str:
        return place.of_function(self.function)

    @property
    def name(self) -> str:
        return f"{self.module}.{self.qualname}"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        recorder = Recorder.current()
        if recorder is not None:
            return recorder.call(self, args, kwargs)
        return self.run(*args, **kwargs)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        function = _replaced.get().get(id(self), self.function)
        return function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<task {self.name}>"

    def to_spec(self, *, bundle: str) -> spec.TaskSpec:
        """Raises InvalidInput when a region could not find the task again by its name."""
        module = sys.modules.get(self.function.__module__)
        found: Any = module
        for step in self.qualname.split("."):
            found = getattr(found, step, None)
        if found is not self:
            raise InvalidInput(
                f"task {self.qualname} is not found by that name in {self.module}",
                remedy="define it at the top level of its module with @task, under its own name",
                place=self.place,
            )
        return spec.TaskSpec(
            name=self.name,
            entry_point=f"{self.module}:{self.qualname}",
            bundle=bundle,
            interface=self.interface.wire,
            **self._options,
        )

    @property
    def retries(self) -> int:
        return self._options["retries"]

    @property
    def timeout_seconds(self) -> float:
        return self._options["timeout_seconds"]

    @property
    def warm(self) -> bool:
        return self._options["warm"]

    @property
    def environment(self) -> Mapping[str, str]:
        return self._options["environment"]


@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    function: None = None,
    /,
    *,
    cache: bool = False,
    cache_version: str = "",
    cache_serialize: bool = False,
    cache_ignore_input_vars: Sequence[str] = (),
    retries: int = 0,
    timeout: float | timedelta = 0,
    interruptible: bool | None = None,
    requests: Resources | None = None,
    limits: Resources | None = None,
    container_image: str | None = None,
    environment: Mapping[str, str] | None = None,
    secret_requests: Sequence[Secret | str] | None = None,
    warm: bool = False,
) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def task(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a task of a function; all arguments are optional.

    `timeout` in seconds (or a timedelta) for one attempt: too short fails honest work, 0 waits for
    ever. `retries` are tries after the first for failures of the task's own. `requests` is what to
    reserve, `limits` what may be used. `warm`: in a cluster of pods it may run in one that stays
    ready and ran others of the same code before; a node then costs milliseconds instead of a pod's
    start, and may find what those left in module variables. Raises InvalidInput for an unknown
    argument or an interface that can't travel.
    """
    where = place.of_caller()

    def make(inner: Callable[..., Any]) -> Task[..., Any]:
        made = Task(inner, {})
        made._options = _options(where, made.interface, **options)  # pyright: ignore[reportPrivateUsage] its own factory
        return made

    return make if function is None else make(function)


def _options(where: str, known: interface.Interface, **given: Any) -> dict[str, Any]:
    try:
        return _spec_fields(known, **given)
    except TypeError as cause:
        text = str(cause).removeprefix("_spec_fields() ").replace("got an", "@task got an")
        raise InvalidInput(text, remedy=f"it knows {_KNOWN}", place=where) from None
    except InvalidInput as error:
        raise InvalidInput(f"@task: {error.message}", remedy=error.remedy, place=where) from error


def _spec_fields(
    known: interface.Interface,
    *,
    cache: bool = False,
    cache_version: str = "",
    cache_serialize: bool = False,
    cache_ignore_input_vars: Sequence[str] = (),
    retries: int = 0,
    timeout: float | timedelta = 0,
    interruptible: bool | None = None,
    requests: Resources | None = None,
    limits: Resources | None = None,
    container_image: str | None = None,
    environment: Mapping[str, str] | None = None,
    secret_requests: Sequence[Secret | str] | None = None,
    warm: bool = False,
) -> dict[str, Any]:
    if cache and not cache_version:
        raise InvalidInput("cache=True needs a cache_version", remedy='add cache_version="1"')
    for name in cache_ignore_input_vars:
        if name not in known.inputs:
            raise InvalidInput(f"cache_ignore_input_vars names {name!r}, which is no input")
    for name, value in (environment or {}).items():
        if type(name) is not str or type(value) is not str:
            raise InvalidInput(f"environment: {name!r}: {value!r} must both be strings")
    if container_image is not None and type(container_image) is not str:
        raise InvalidInput("container_image takes the name of an image, as a string")
    for item in secret_requests or ():
        if not isinstance(item, str | Secret):  # pyright: ignore[reportUnnecessaryIsInstance] users' code is not checked
            raise InvalidInput(f"secret_requests takes names or Secret(...), not {item!r}")
    for name, value in (("requests", requests), ("limits", limits)):
        if value is not None and not isinstance(value, Resources):  # pyright: ignore[reportUnnecessaryIsInstance] users' code is not checked
            raise InvalidInput(f"{name} takes Resources(...), not {type(value).__name__}")
    return {
        "requests": (requests or Resources()).to_spec(),
        "limits": (limits or Resources()).to_spec(),
        "retries": tries(retries),
        "timeout_seconds": seconds(timeout, what="timeout"),
        "environment": dict(environment or {}),
        "container_image": container_image or "",
        "interruptible": bool(interruptible),
        "secrets": tuple(
            item if isinstance(item, str) else item.name for item in secret_requests or ()
        ),
        "cache": spec.CacheSpec(
            enabled=cache,
            version=cache_version,
            serialize=cache_serialize,
            ignored_inputs=tuple(cache_ignore_input_vars),
        ),
        "warm": bool(warm),
    }


_KNOWN = ", ".join(name for name in _spec_fields.__kwdefaults__ or {})


def run_task(
    task: Task[..., Any], inputs: Mapping[str, Any], store: Store
) -> tuple[dict[str, Any], list[spec.Artifact]]:
    """JSON forms in.

    The outputs document and the artifacts it refers to out. The task's own exception passes.
    """
    arguments: dict[str, Any] = {}
    for name, kind in task.interface.inputs.items():
        if name in inputs:
            what = f"input {name!r} of {task.short_name}"
            arguments[name] = values.from_json(inputs[name], kind, store, what=what)
    unknown = sorted(set(inputs) - set(task.interface.inputs))
    if unknown:
        raise InvalidInput(f"{task.short_name} has no input {', '.join(unknown)}", place=task.place)
    result = task.run(**arguments)
    try:
        outputs = task.interface.split(result)
    except InvalidInput as error:
        message = f"{task.short_name} {error.message}"
        raise InvalidInput(message, remedy=error.remedy, place=task.place) from None
    artifacts: list[spec.Artifact] = []
    document: dict[str, Any] = {}
    for name, value in outputs.items():
        kind = task.interface.outputs[name]
        what = f"output {name!r} of {task.short_name}"
        try:
            document[name] = values.to_json(value, kind, store, what=what, artifacts=artifacts)
        except InvalidInput as error:
            raise InvalidInput(error.message, remedy=error.remedy, place=task.place) from error
    return document, artifacts


@functools.cache
def load_task(entry_point: str) -> Task[..., Any]:
    """The task named "module:qualname".

    What its module raises at import passes; NotFound when it has no such task.
    """
    module, _, qualname = entry_point.partition(":")
    found: Any = importlib.import_module(module)
    for step in qualname.split("."):
        found = getattr(found, step, None)
    if not isinstance(found, Task):
        raise NotFound(f"there is no task {qualname!r} in {module}")
    return found  # pyright: ignore[reportUnknownVariableType] its parameters are known to the module alone


@contextlib.contextmanager
def replaced(task: Task[..., Any], function: Callable[..., Any]) -> Generator[None]:
    """Within the block the task runs `function` instead: for `whimbrel.testing`."""
    token = _replaced.set({**_replaced.get(), id(task): function})
    try:
        yield
    finally:
        _replaced.reset(token)


def module_name(function: Callable[..., Any]) -> str:
    """As a region will import it: a file run as a script is called by its file's name."""
    name = function.__module__
    if name != "__main__":
        return name
    main = sys.modules["__main__"]
    named = getattr(main, "__spec__", None)
    if named is not None:
        return named.name
    return Path(getattr(main, "__file__", None) or "__main__").stem
