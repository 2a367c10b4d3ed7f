"""Small graphs, written as {node: nodes it reads}."""

from collections.abc import Mapping, Sequence

from whimbrel.spec import Interface, ListBinding, NodeSpec, OutputRef, TaskSpec, WorkflowSpec


def reading(nodes: Sequence[str]) -> ListBinding:
    return ListBinding(tuple(OutputRef(node, "o0") for node in nodes))


def graph(reads: Mapping[str, Sequence[str]], *, result: Sequence[str] = ()) -> WorkflowSpec:
    return WorkflowSpec(
        name="graph",
        interface=Interface(),
        nodes=tuple(
            NodeSpec(id=node, task="t", inputs={"x": reading(inputs)})
            for node, inputs in reads.items()
        ),
        tasks=(TaskSpec(name="t", entry_point="m:t", bundle="b", interface=Interface()),),
        outputs={"o0": reading(result)},
        bundle="b",
    )
