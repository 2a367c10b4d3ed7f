"""The graph under construction while a workflow function runs: each call of a task becomes a node.

Driven by `workflow.py`, fed by `task.py`; the compiler and the local run read the finished `Graph`.
"""

import re
import typing
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from whimbrel import place, spec, values
from whimbrel.errors import InvalidInput
from whimbrel.interface import Interface, fits
from whimbrel.promise import Handle, Nothing, Promise, Several

if TYPE_CHECKING:
    from whimbrel.task import Task

type_of = values.name_of
_active: ContextVar["Recorder | None"] = ContextVar("whimbrel_recorder", default=None)


@dataclass(eq=False)
class Node:
    id: str
    task: "Task[..., Any]"
    inputs: dict[str, spec.Binding]
    where: str
    overrides: spec.NodeOverrides = field(default_factory=spec.NodeOverrides)
    upstream: list["Node"] = field(default_factory=list["Node"])

    def follow(self, other: "Node", *, where: str) -> None:
        if self is other or other.behind(self):
            raise InvalidInput(
                f"`>>` makes a cycle: {other.id} already waits for {self.id}",
                remedy="take one of the two away",
                place=where,
            )
        if other not in self.upstream:
            self.upstream.append(other)

    # set by the recorder: nodes by id, to follow references
    graph: Mapping[str, "Node"] = field(default_factory=dict[str, "Node"], repr=False)

    def behind(self, other: "Node") -> bool:
        """Does this node wait, however far up, for `other`?"""
        seen: set[str] = set()
        stack: list[Node] = [self]
        while stack:
            node = stack.pop()
            if node is other:
                return True
            if node.id not in seen:
                seen.add(node.id)
                stack.extend(node.before())
        return False

    def before(self) -> list["Node"]:
        read = {ref.node for binding in self.inputs.values() for ref in references(binding)}
        return [*(self.graph[name] for name in sorted(read)), *self.upstream]


def references(binding: spec.Binding) -> Iterator[spec.OutputRef]:
    match binding:
        case spec.OutputRef():
            yield binding
        case spec.ListBinding(items):
            for item in items:
                yield from references(item)
        case spec.MapBinding(items):
            for item in items.values():
                yield from references(item)
        case _:
            return


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which each follows those it waits for."""

    nodes: tuple[Node, ...]
    outputs: Mapping[str, spec.Binding]


class Recorder:
    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self._prefix = ""
        self._counts: dict[str, int] = {}

    @staticmethod
    def current() -> "Recorder | None":
        return _active.get()

    @contextmanager
    def active(self) -> Generator[None]:
        token = _active.set(self)
        try:
            yield
        finally:
            _active.reset(token)

    @contextmanager
    def inside(self, name: str) -> Generator[None]:
        """Names of nodes of a workflow called by another begin with the call's own name."""
        outer, self._prefix = self._prefix, f"{self._fresh(name)}-"
        try:
            yield
        finally:
            self._prefix = outer

    def _fresh(self, name: str) -> str:
        base = self._prefix + (re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "node")
        number = self._counts.get(base, 0) + 1
        while (found := base if number == 1 else f"{base}-{number}") in self.nodes:
            number += 1
        self._counts[base] = number
        return found

    def call(self, task: "Task[..., Any]", args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        where = place.of_caller()
        given = bind(task.interface, args, kwargs, name=task.short_name, where=where)
        inputs = {
            key: self.binding(
                value, task.interface.inputs[key], what=f"{task.short_name}({key}=...)", where=where
            )
            for key, value in given.items()
        }
        node = Node(self._fresh(task.short_name), task, inputs, where, graph=self.nodes)
        self.nodes[node.id] = node
        promises = {
            name: Promise(
                spec.OutputRef(node.id, name), kind, what=f"{task.short_name}(...)", nodes=(node,)
            )
            for name, kind in task.interface.outputs.items()
        }
        return wrap(task.interface, promises, (node,))

    def binding(self, value: Any, kind: Any, *, what: str, where: str) -> spec.Binding:
        """Where an input comes from; refuses a promise or a constant of another type."""
        match value:
            case Promise():
                source, given = value._binding, value._kind  # pyright: ignore[reportPrivateUsage] its other half
                if not fits(given, kind):
                    raise InvalidInput(
                        f"{what} takes {type_of(kind)}, not {type_of(given)}",
                        remedy=f"give it a value of type {type_of(kind)}, or change the annotation",
                        place=where,
                    )
                return source
            case Handle():
                raise InvalidInput(
                    f"{what} takes one {type_of(kind)}, not the results of a whole call",
                    remedy="take one of its outputs by name or index",
                    place=where,
                )
            case list() | tuple() if _holds_promise(value):
                items = cast("list[Any]", value)
                inner = _item_kind(kind, list, what=what, where=where)
                made = [
                    self.binding(item, inner, what=f"{what}[...]", where=where) for item in items
                ]
                return spec.ListBinding(tuple(made))
            case dict() if _holds_promise(value):
                pairs = cast("dict[str, Any]", value).items()
                inner = _item_kind(kind, dict, what=what, where=where)
                return spec.MapBinding(
                    {
                        key: self.binding(item, inner, what=f"{what}[{key!r}]", where=where)
                        for key, item in pairs
                    }
                )
            case _:
                return spec.Literal(checked(value, kind, what=what, where=where))


def checked(value: Any, kind: Any, *, what: str, where: str) -> Any:
    try:
        return values.to_json(value, kind, what=what)
    except InvalidInput as error:
        remedy = error.remedy or f"give it a value of type {type_of(kind)}"
        raise InvalidInput(error.message, remedy=remedy, place=where) from error


def _holds_promise(value: Any) -> bool:
    match value:
        case Handle():
            return True
        case dict():
            return any(map(_holds_promise, cast("dict[Any, Any]", value).values()))
        case list() | tuple():
            return any(map(_holds_promise, cast("list[Any]", value)))
        case _:
            return False


def _item_kind(kind: Any, container: type, *, what: str, where: str) -> Any:
    if kind in (Any, container):
        return Any
    for option in (kind, *typing.get_args(kind)):
        if typing.get_origin(option) is container:
            return typing.get_args(option)[-1]
    raise InvalidInput(
        f"{what} takes {type_of(kind)}, not a {container.__name__}",
        remedy=f"give it a value of type {type_of(kind)}, or change the annotation",
        place=where,
    )


def wrap(interface: Interface, promises: dict[str, Promise], nodes: tuple[Node, ...]) -> Any:
    match interface.form:
        case "none":
            return Nothing(nodes)
        case "one":
            return next(iter(promises.values()))
        case "many":
            return Several.of(promises, nodes)


def bind(
    interface: Interface, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, name: str, where: str
) -> dict[str, Any]:
    """Arguments by input name; refuses unknown, doubled and missing ones. Defaults are left out."""
    for key in kwargs:
        if key not in interface.inputs:
            import difflib

            near = difflib.get_close_matches(key, interface.inputs, n=1)
            known = ", ".join(interface.inputs) or "no inputs"
            hint = f"did you mean {near[0]!r}?" if near else f"it takes {known}"
            raise InvalidInput(f"{name} has no input {key!r}", remedy=hint, place=where)
    try:
        given = dict(interface.signature.bind_partial(*args, **kwargs).arguments)
    except TypeError as cause:
        raise InvalidInput(f"{name}: {cause}", remedy="name the inputs", place=where) from None
    missing = [
        key for key in interface.inputs if key not in given and key not in interface.defaults
    ]
    if missing:
        what = ", ".join(f"{key}: {type_of(interface.inputs[key])}" for key in missing)
        raise InvalidInput(
            f"{name} needs {what}", remedy=f"write {name}({missing[0]}=...)", place=where
        )
    return given


def order(nodes: Mapping[str, Node]) -> tuple[Node, ...]:
    """As recorded where possible, each after those it waits for."""
    done: dict[str, Node] = {}

    def visit(first: Node) -> None:
        stack: list[tuple[Node, Iterator[Node]]] = [(first, iter(first.before()))]
        while stack:
            node, rest = stack[-1]
            following = next((other for other in rest if other.id not in done), None)
            if following is None:
                done[node.id] = node
                stack.pop()
            else:
                stack.append((following, iter(following.before())))

    for node in nodes.values():
        if node.id not in done:
            visit(node)
    return tuple(done.values())
