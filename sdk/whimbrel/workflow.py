"""`@workflow`: a function whose calls of tasks are the graph; called outside of one it runs here.

Recorded once, at first need; `compiler.py` turns the graph into a specification, `local.py` runs
it.
"""

import functools
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import cached_property
from typing import Any, Generic, ParamSpec, TypeVar, overload

from whimbrel import interface, place, spec
from whimbrel.errors import InvalidInput, WhimbrelError
from whimbrel.promise import Handle, Promise, Several
from whimbrel.recording import Graph, Node, Recorder, bind, checked, order, wrap
from whimbrel.requirements import Placement
from whimbrel.task import module_name

P = ParamSpec("P")
R = TypeVar("R")


class WorkflowFailurePolicy(StrEnum):
    FAIL_IMMEDIATELY = "fail_immediately"
    FAIL_AFTER_EXECUTABLE_NODES_COMPLETE = "fail_after_executable_nodes_complete"


class Workflow(Generic[P, R]):
    def __init__(
        self,
        function: Callable[P, R],
        *,
        failure_policy: WorkflowFailurePolicy,
        placement: Placement | None,
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.module = module_name(function)
        self.short_name = function.__name__
        self.failure_policy = failure_policy
        self.placement = placement
        self.interface = interface.of(function)

    @functools.cached_property
    def place(self) -> str:
        return place.of_function(self.function)

    @property
    def name(self) -> str:
        return f"{self.module}.{self.function.__qualname__}"

    def __repr__(self) -> str:
        return f"<workflow {self.name}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        recorder = Recorder.current()
        where = place.of_caller()
        if recorder is not None:
            return self._inline(recorder, args, kwargs, where)
        from whimbrel.local import run_workflow

        given = bind(self.interface, args, kwargs, name=self.short_name, where=where)
        return run_workflow(self, given, where=where)

    @cached_property
    def graph(self) -> Graph:
        """Raises InvalidInput with the line of the call that does not fit."""
        recorder = Recorder()
        promises = {
            name: Promise(spec.InputRef(name), kind, what=f"the input {name!r}")
            for name, kind in self.interface.inputs.items()
        }
        with recorder.active():
            result = self._record(promises)
            outputs = self._outputs(recorder, result)
        return Graph(order(recorder.nodes), outputs)

    def _record(self, promises: dict[str, Promise]) -> Any:
        try:
            return self.function(**promises)  # pyright: ignore[reportCallIssue] for values
        except WhimbrelError:
            raise
        except Exception as error:
            raise InvalidInput(
                f"workflow {self.short_name} raised {type(error).__name__}: {error}",
                remedy="it runs once to record its graph; what needs values belongs into tasks",
                place=place.of_error(error),
            ) from error

    def _outputs(self, recorder: Recorder, result: Any) -> dict[str, spec.Binding]:
        if isinstance(result, Handle) and not isinstance(result, Promise | Several):
            result = None
        try:
            parts = self.interface.split(result)
        except InvalidInput as error:
            message = f"workflow {self.short_name} {error.message}"
            raise InvalidInput(message, remedy=error.remedy, place=self.place) from None
        return {
            name: recorder.binding(
                value,
                self.interface.outputs[name],
                what=f"the output {name} of {self.short_name}",
                where=self.place,
            )
            for name, value in parts.items()
        }

    def _inline(
        self, recorder: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any], where: str
    ) -> Any:
        """A workflow called by another is part of it.

        Its nodes are recorded there, under its name.
        """
        if self.placement is not None:
            raise InvalidInput(
                f"{self.short_name} has a placement of its own and can't be part of another",
                remedy="put the placement on the outer workflow",
                place=where,
            )
        given = bind(self.interface, args, kwargs, name=self.short_name, where=where)
        promises: dict[str, Promise] = {}
        for name, kind in self.interface.inputs.items():
            what = f"{self.short_name}({name}=...)"
            if name in given:
                binding = recorder.binding(given[name], kind, what=what, where=where)
            else:
                default = self.interface.defaults[name]
                binding = spec.Literal(checked(default, kind, what=what, where=where))
            promises[name] = Promise(binding, kind, what=f"the input {name!r}")
        before = set(recorder.nodes)
        with recorder.inside(self.short_name):
            outputs = self._outputs(recorder, self._record(promises))
        nodes = tuple(node for name, node in recorder.nodes.items() if name not in before)
        return wrap(self.interface, self._promises(outputs, nodes), nodes)

    def _promises(
        self, outputs: Mapping[str, spec.Binding], nodes: tuple[Node, ...]
    ) -> dict[str, Promise]:
        return {
            name: Promise(
                binding, self.interface.outputs[name], what=f"{self.short_name}(...)", nodes=nodes
            )
            for name, binding in outputs.items()
        }


@overload
def workflow(function: Callable[P, R], /) -> Workflow[P, R]: ...
@overload
def workflow(
    function: None = None,
    /,
    *,
    failure_policy: WorkflowFailurePolicy | str | None = None,
    placement: Placement | None = None,
) -> Callable[[Callable[P, R]], Workflow[P, R]]: ...
def workflow(
    function: Callable[..., Any] | None = None,
    /,
    *,
    failure_policy: WorkflowFailurePolicy | str | None = None,
    placement: Placement | None = None,
    **unknown: Any,
) -> Any:
    """Make a workflow of a function. Raises InvalidInput for an unknown argument or interface."""
    where = place.of_caller()
    if unknown:
        raise InvalidInput(
            f"@workflow got an unexpected keyword argument {next(iter(unknown))!r}",
            remedy="it knows failure_policy, placement",
            place=where,
        )
    try:
        policy = WorkflowFailurePolicy(failure_policy or WorkflowFailurePolicy.FAIL_IMMEDIATELY)
    except ValueError:
        known = ", ".join(WorkflowFailurePolicy)
        raise InvalidInput(
            f"failure_policy={failure_policy!r}", remedy=f"one of {known}", place=where
        ) from None

    def make(inner: Callable[..., Any]) -> Workflow[..., Any]:
        return Workflow(inner, failure_policy=policy, placement=placement)

    return make if function is None else make(function)
