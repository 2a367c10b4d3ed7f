"""Workflow specifications for the agent's tests: chains, fans, anything from a table of edges."""

from collections.abc import Mapping, Sequence
from typing import Any

from whimbrel.spec import (
    InputRef,
    Interface,
    ListBinding,
    NodeSpec,
    OutputRef,
    TaskSpec,
    Variable,
    WorkflowSpec,
)


def graph(edges: Mapping[str, Sequence[str]], *, retries: int = 0, **kwargs: Any) -> WorkflowSpec:
    """`edges`: node -> the nodes it reads, each after those. Output "all": every node's o0."""
    task = TaskSpec("m.f", "m:f", "b" * 64, Interface((), (Variable("o0", {}),)), retries=retries)
    nodes = tuple(
        NodeSpec(
            id=node,
            task="m.f",
            inputs={
                "x": InputRef("x"),
                "before": ListBinding(tuple(OutputRef(one, "o0") for one in before)),
            },
        )
        for node, before in edges.items()
    )
    everything = ListBinding(tuple(OutputRef(node, "o0") for node in edges))
    interface = Interface((Variable("x", {}, required=False, default=7),), (Variable("all", {}),))
    return WorkflowSpec("m.w", interface, nodes, (task,), {"all": everything}, "b" * 64, **kwargs)


def chain(length: int) -> WorkflowSpec:
    return graph({f"n{i}": [f"n{i - 1}"] if i else [] for i in range(length)})


def fan(width: int) -> WorkflowSpec:
    """One source, `width` nodes, one join."""
    middle = {f"m{i}": ["source"] for i in range(width)}
    return graph({"source": [], **middle, "join": list(middle)})
