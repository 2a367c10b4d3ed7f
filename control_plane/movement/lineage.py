"""What must be computed again because bytes are out of reach, and what is kept. Pure.

Asked by a takeover with the graph, its live outputs and the artifacts a live agent could not read;
answers the nodes to declare unreachable, each with its reason.
"""

from collections.abc import Mapping, Set

from whimbrel.spec import (
    Binding,
    InputRef,
    ListBinding,
    Literal,
    MapBinding,
    OutputRef,
    WorkflowSpec,
)


def sources(binding: Binding) -> set[str]:
    """Nodes whose outputs a binding reads."""
    match binding:
        case OutputRef():
            return {binding.node}
        case ListBinding():
            return set[str]().union(*(sources(item) for item in binding.items))
        case MapBinding():
            return set[str]().union(*(sources(item) for item in binding.items.values()))
        case Literal() | InputRef():
            return set()


def to_declare(
    graph: WorkflowSpec, *, live: Set[str], unreadable: Mapping[str, str]
) -> dict[str, str]:
    """Nodes to run again -> why. `unreadable` maps a live node to the uri nobody can read.

    A node is declared when something still to run reads it and its bytes are out of reach, or when
    it was made from a declared one (so that what is committed stays a prefix that one run could
    have made). A declared node is itself still to run, hence the fixed point. The run's own
    outputs count as a reader: a result that nobody can read has not arrived. An unreadable output
    that nothing reads any more is kept.
    """
    reads = {
        node.id: set[str]().union(*(sources(binding) for binding in node.inputs.values()))
        for node in graph.nodes
    }
    result = set[str]().union(*(sources(binding) for binding in graph.outputs.values()))
    declared: dict[str, str] = {}
    while True:
        pending = {node for node in reads if node not in live or node in declared}
        wanted = result.union(*(reads[node] for node in pending))
        found = {
            node: f"{uri} can't be read from any live region"
            for node, uri in unreadable.items()
            if node in live and node in wanted and node not in declared
        }
        for node, inputs in reads.items():
            lost = sorted(inputs & (declared.keys() | found.keys()))
            if lost and node in live and node not in declared and node not in found:
                found[node] = f"made from {lost[0]}, which is computed again"
        if not found:
            return declared
        declared |= found
