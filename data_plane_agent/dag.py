"""The graph of one execution, decided: pure, no clock, no input or output.

Called by the engine with what happened to a node; answers what to do now (start, succeed, fail,
report a value that can't be read); hands nothing on by itself. One event costs as much as the node
has successors.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from whimbrel.spec import (
    Artifact,
    Binding,
    Failure,
    NodeSpec,
    Owner,
    TaskSpec,
    WorkflowSpec,
    digest,
    input_digest,
)

from data_plane_agent.bindings import Opaque, resolve, sources

SYSTEM_TRIES = 10
"""Failures of the platform a node survives. Fewer: a bad minute ends a run; more: a broken machine
hides for long."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds before a retry after a system failure, doubled each time; user failures are retried at
once."""

Outputs = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Graph:
    """Indexes over an immutable WorkflowSpec. `needs` are the distinct nodes that must have
    succeeded first."""

    spec: WorkflowSpec
    nodes: Mapping[str, NodeSpec]
    tasks: Mapping[str, TaskSpec]
    task_digests: Mapping[str, str]
    needs: Mapping[str, frozenset[str]]
    successors: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, spec: WorkflowSpec) -> "Graph":
        needs = {
            node.id: frozenset(node.upstream).union(*map(sources, node.inputs.values()))
            for node in spec.nodes
        }
        successors: dict[str, list[str]] = {node.id: [] for node in spec.nodes}
        for node, before in needs.items():
            for other in before:
                successors[other].append(node)
        return cls(
            spec=spec,
            nodes={node.id: node for node in spec.nodes},
            tasks={task.name: task for task in spec.tasks},
            task_digests={task.name: digest(task) for task in spec.tasks},
            needs=needs,
            successors={node: tuple(after) for node, after in successors.items()},
        )


@dataclass(frozen=True, slots=True)
class Known:
    """An output committed before. `outputs` None: its document can't be read from here."""

    outputs: Outputs | None
    input_digest: str
    artifact: Artifact | None = None


@dataclass(frozen=True, slots=True)
class Tries:
    attempts: int = 0
    user_failures: int = 0
    system_failures: int = 0


@dataclass(frozen=True, slots=True)
class NodeSucceeded:
    node: str
    attempt: int
    outputs: Outputs


@dataclass(frozen=True, slots=True)
class NodeFailed:
    """`saved`: this very attempt has stored a checkpoint."""

    node: str
    attempt: int
    failure: Failure
    saved: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    node: str
    attempt: int
    inputs: Mapping[str, Any]
    input_digest: str
    after_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Succeed:
    outputs: Outputs


@dataclass(frozen=True, slots=True)
class Fail:
    failure: Failure


@dataclass(frozen=True, slots=True)
class Unreadable:
    """`node` is to run and reads a committed value that can't be read here."""

    node: str
    uris: tuple[str, ...]


Event = NodeSucceeded | NodeFailed
Decision = Start | Succeed | Fail | Unreadable


@dataclass(slots=True)
class State:
    """Where one execution stands. Made by `begin`, changed by `advance` only."""

    graph: Graph
    inputs: Mapping[str, Any]
    known: dict[str, Known]
    tries: dict[str, Tries]
    waits: dict[str, int] = field(default_factory=dict[str, int])
    running: dict[str, int] = field(default_factory=dict[str, int])
    done: dict[str, Known] = field(default_factory=dict[str, Known])
    failures: list[Failure] = field(default_factory=list[Failure])
    ended: bool = False


def begin(
    graph: Graph,
    inputs: Mapping[str, Any],
    *,
    known: Mapping[str, Known] | None = None,
    tries: Mapping[str, Tries] | None = None,
) -> tuple[State, list[Decision]]:
    """The state at a Claim, with what to start. A known output is kept only where its inputs are
    still the same."""
    defaults = {v.name: v.default for v in graph.spec.interface.inputs if not v.required}
    state = State(graph, {**defaults, **inputs}, dict(known or {}), dict(tries or {}))
    state.waits = {node: len(before) for node, before in graph.needs.items()}
    return state, _settle(state, [node for node, count in state.waits.items() if count == 0])


def advance(state: State, event: Event) -> list[Decision]:
    """What to do now. An event of an attempt that is not the running one, or after the end,
    changes nothing."""
    if state.ended:
        return []
    match event:
        case NodeSucceeded(node, attempt, outputs):
            if state.running.get(node) != attempt:
                return []
            del state.running[node]
            known = state.known[node]
            return _settle(state, _complete(state, node, Known(outputs, known.input_digest)))
        case NodeFailed(node, attempt, failure, saved):
            if state.running.get(node) != attempt:
                return []
            del state.running[node]
            if moved(failure, saved=saved):
                state.known.pop(node, None)
                return _settle(state, [node])
            return _failed(state, node, failure)


_LEFT = ("interrupted", "no_renewal")


def moved(failure: Failure, *, saved: bool) -> bool:
    """It was asked to leave its host, or its session was in doubt, and it took its progress along:
    nobody's failure. Without a checkpoint of its own it counts, else one that always starts anew
    would do so for ever."""
    return saved and failure.owner is Owner.SYSTEM and failure.kind in _LEFT


def adopt(state: State, node: str, attempt: int) -> None:
    """The node that was just to be started runs already, on the same inputs, as this attempt."""
    tries = state.tries[node]
    used = max(tries.attempts - 1, attempt)
    state.tries[node] = Tries(used, tries.user_failures, tries.system_failures)
    state.running[node] = attempt


def _settle(state: State, ready: Iterable[str]) -> list[Decision]:
    """Start what is ready, or take its known output, and so on; then see whether this was the
    end."""
    decisions: list[Decision] = []
    stack = list(ready)
    stack.reverse()
    while stack and not state.ended:
        node = stack.pop()
        if _stopping(state):
            continue
        spec = state.graph.nodes[node]
        known = state.known.get(node)
        try:
            inputs = _resolve(state, spec.inputs)
        except Opaque as opaque:
            if known is None:
                decisions.append(Unreadable(node, opaque.uris))
                state.ended = True
            else:
                # The ledger declares an output unreachable together with everything made from it:
                # both are live, so they belong together.
                stack.extend(reversed(_complete(state, node, known)))
            continue
        except LookupError as error:
            decisions.extend(_failed(state, node, _misfit(node, error)))
            continue
        made_from = input_digest(state.graph.task_digests[spec.task], inputs)
        if known is not None and known.input_digest == made_from:
            stack.extend(reversed(_complete(state, node, known)))
        else:
            decisions.append(_start(state, node, inputs, made_from))
    return [*decisions, *_end(state)]


def _start(state: State, node: str, inputs: Mapping[str, Any], made_from: str) -> Start:
    tries = state.tries.get(node, Tries())
    attempt = tries.attempts + 1
    state.tries[node] = Tries(attempt, tries.user_failures, tries.system_failures)
    state.running[node] = attempt
    state.known[node] = Known(None, made_from)
    pause = 0.0
    if tries.system_failures:
        pause = min(FIRST_PAUSE * 2 ** (tries.system_failures - 1), LONGEST_PAUSE)
    return Start(node, attempt, inputs, made_from, pause)


def _complete(state: State, node: str, known: Known) -> list[str]:
    """The node has its output; answers the successors that waited for it alone."""
    state.done[node] = known
    state.known.pop(node, None)
    ready: list[str] = []
    waits = state.waits
    for after in state.graph.successors[node]:
        waits[after] -= 1
        if waits[after] == 0:
            ready.append(after)
    return ready


def _failed(state: State, node: str, failure: Failure) -> list[Decision]:
    spec = state.graph.nodes[node]
    tries = state.tries.get(node, Tries())
    match failure.owner:
        case Owner.USER:
            tries = Tries(tries.attempts, tries.user_failures + 1, tries.system_failures)
            budget = spec.overrides.retries
            if budget is None:
                budget = state.graph.tasks[spec.task].retries
            again = tries.user_failures <= budget
        case Owner.SYSTEM:
            tries = Tries(tries.attempts, tries.user_failures, tries.system_failures + 1)
            again = tries.system_failures < SYSTEM_TRIES
        case Owner.CONFIG:
            again = False
    state.tries[node] = tries
    state.known.pop(node, None)
    if again:
        return _settle(state, [node])
    state.failures.append(failure)
    return _end(state)


def _stopping(state: State) -> bool:
    return bool(state.failures) and state.graph.spec.failure_policy == "fail_immediately"


def _end(state: State) -> list[Decision]:
    if state.ended:
        return []
    if _stopping(state) or (state.failures and not state.running):
        state.ended = True
        return [Fail(state.failures[0])]
    if len(state.done) < len(state.graph.nodes):
        return []
    state.ended = True
    try:
        outputs = _resolve(state, state.graph.spec.outputs)
    except Opaque as opaque:
        return [Unreadable("", opaque.uris)]
    except LookupError as error:
        return [Fail(_misfit("", error))]
    return [Succeed(outputs)]


def _resolve(state: State, bindings: Mapping[str, Binding]) -> dict[str, Any]:
    def outputs(node: str) -> Outputs:
        known = state.done[node]
        if known.outputs is None:
            raise Opaque(known.artifact)
        return known.outputs

    return {
        name: resolve(one, inputs=state.inputs, outputs=outputs) for name, one in bindings.items()
    }


def _misfit(node: str, error: LookupError) -> Failure:
    where = f"an input of node {node}" if node else "an output of the workflow"
    return Failure(Owner.USER, "binding", f"{where} reads a part that is not there: {error}", node)
