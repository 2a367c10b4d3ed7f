"""What calling a task inside a workflow gives: a value that will exist once the run is there.

Made by `recording.py`; read by it again as an input of a later node. Any use as a value now is
refused with its line.
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, NoReturn, Protocol

from whimbrel import interface, place, spec, values
from whimbrel.errors import InvalidInput
from whimbrel.requirements import Resources, seconds, tries


class Step(Protocol):
    """A recorded node, as far as a handle needs it."""

    overrides: spec.NodeOverrides

    def follow(self, other: Any, *, where: str) -> None: ...


class Handle:
    """The result of one call, for what concerns the call itself: `a >> b` and `with_overrides`."""

    _nodes: tuple[Step, ...] = ()

    def __rshift__(self, other: Any) -> Any:
        where = place.of_caller()
        if not isinstance(other, Handle) or not self._nodes or not other._nodes:
            raise InvalidInput(
                "`a >> b` orders two calls of tasks",
                remedy="write it between results of calls inside the workflow",
                place=where,
            )
        for later in other._nodes:
            for earlier in self._nodes:
                later.follow(earlier, where=where)
        return other

    def with_overrides(
        self,
        *,
        requests: Resources | None = None,
        limits: Resources | None = None,
        retries: int | None = None,
        timeout: float | timedelta | None = None,
        **unknown: Any,
    ) -> Any:
        """For this call alone. Raises InvalidInput for what can't be overridden."""
        where = place.of_caller()
        if unknown or len(self._nodes) != 1:
            what = (
                f"with_overrides takes no {', '.join(unknown)}"
                if unknown
                else ("with_overrides is for the call of one task")
            )
            known = "requests, limits, retries, timeout"
            raise InvalidInput(what, remedy=f"it knows {known}", place=where)
        (node,) = self._nodes
        old = node.overrides
        try:
            node.overrides = spec.NodeOverrides(
                requests=requests.to_spec() if requests else old.requests,
                limits=limits.to_spec() if limits else old.limits,
                retries=old.retries if retries is None else tries(retries),
                timeout_seconds=old.timeout_seconds
                if timeout is None
                else seconds(timeout, what="timeout"),
            )
        except InvalidInput as error:
            raise InvalidInput(error.message, remedy=error.remedy, place=where) from error
        return self


class Nothing(Handle):
    """The result of a task without outputs."""

    def __init__(self, nodes: tuple[Step, ...]) -> None:
        self._nodes = nodes


class Several(tuple[Any, ...], Handle):  # type: ignore[misc]  # the layouts fit: Handle has no slots
    """The results of a task with several outputs: unpacked, indexed, or by name."""

    _names: tuple[str, ...]

    @classmethod
    def of(cls, promises: dict[str, "Promise"], nodes: tuple[Step, ...]) -> "Several":
        several = cls(promises.values())
        several._names, several._nodes = tuple(promises), nodes
        return several

    def __getattribute__(self, name: str) -> Any:
        # before the lookup of methods: an output may be called `count` or `index`, as a tuple's are
        if not name.startswith("_") and name in self._names:
            return self[self._names.index(name)]
        try:
            return super().__getattribute__(name)
        except AttributeError:
            if name.startswith("_"):
                raise
            known = ", ".join(self._names)
            raise InvalidInput(
                f"there is no output {name!r}", remedy=f"it has {known}", place=place.of_caller()
            ) from None


class Promise(Handle):
    """One output that is not there yet, or an input of the workflow."""

    def __init__(
        self, binding: spec.Binding, kind: Any, *, what: str, nodes: tuple[Step, ...] = ()
    ) -> None:
        self._binding, self._kind, self._what, self._nodes = binding, kind, what, nodes

    def __getattr__(self, name: str) -> "Promise":
        if name.startswith("_"):
            raise AttributeError(name)
        return self._part(name)

    def __getitem__(self, step: str | int) -> "Promise":
        return self._part(step)

    def _part(self, step: str | int) -> "Promise":
        text = f"[{step!r}]" if isinstance(step, int) else f".{step}"
        if not isinstance(self._binding, spec.OutputRef):
            raise InvalidInput(
                f"{self._what}{text}: parts of inputs and constants can't be taken in a workflow",
                remedy="give the whole value to a task and take the part there",
                place=place.of_caller(),
            )
        try:
            kind = interface.part(self._kind, step)
        except LookupError:
            raise InvalidInput(
                f"{self._what} is {values.name_of(self._kind)}, which has no {text}",
                remedy="take a field of a dataclass, a key of a dict or an index of a list",
                place=place.of_caller(),
            ) from None
        ref = self._binding
        binding = spec.OutputRef(ref.node, ref.name, (*ref.path, str(step)))
        return Promise(binding, kind, what=self._what + text, nodes=self._nodes)

    def _refuse(self, use: str) -> NoReturn:
        raise InvalidInput(
            f"{self._what} is a promise: it has no value yet and can't be {use}",
            remedy="move this into a task, where the value is there",
            place=place.of_caller(),
        )

    def __bool__(self) -> bool:
        self._refuse("used in if, and, or, not")

    def __str__(self) -> str:
        self._refuse("turned into text")

    __repr__ = __str__

    def __format__(self, _spec: str) -> str:
        self._refuse("put into an f-string")

    def __iter__(self) -> Iterator[Any]:
        self._refuse("iterated or unpacked")

    def __len__(self) -> int:
        self._refuse("measured")

    def __contains__(self, _item: object) -> bool:
        self._refuse("searched")

    def __call__(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        self._refuse("called")

    def __int__(self) -> int:
        self._refuse("turned into a number")

    def __float__(self) -> float:
        self._refuse("turned into a number")

    def __index__(self) -> int:
        self._refuse("used as an index")

    def __fspath__(self) -> str:
        self._refuse("used as a path")

    def _compared(self, _other: object) -> Any:
        self._refuse("compared")

    def _computed(self, _other: object) -> Any:
        self._refuse("computed with")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _compared
    __hash__ = object.__hash__
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _computed
    __truediv__ = __rtruediv__ = __mod__ = __rmod__ = __and__ = __or__ = _computed
