"""A recorded workflow -> its immutable specification. Pure: no clock, no I/O.

Called by the client before it registers; its result is stored by the registry and driven by an
agent.
"""

from typing import Any

from whimbrel import spec
from whimbrel.errors import InvalidInput
from whimbrel.task import Task
from whimbrel.workflow import Workflow


def compile_workflow(workflow: Workflow[..., Any], *, bundle: str) -> spec.WorkflowSpec:
    """Raises InvalidInput with file, line and remedy.

    The same code always gives the same digest.
    """
    graph = workflow.graph
    tasks: dict[str, Task[..., Any]] = {}
    for node in graph.nodes:
        if tasks.setdefault(node.task.name, node.task) is not node.task:
            raise InvalidInput(
                f"two tasks are called {node.task.name}",
                remedy="rename one of them",
                place=node.task.place,
            )
    policy = workflow.placement.to_spec() if workflow.placement else spec.PlacementPolicy()
    warm = next((task for task in tasks.values() if task.warm), None)
    if warm is not None and policy.mode is spec.Mode.EXCLUSIVE:
        raise InvalidInput(
            f"task {warm.short_name} is warm, but {workflow.short_name} is exclusive",
            remedy="leave out warm=True: what may run only once gets a pod of its own",
            place=warm.place,
        )
    return spec.WorkflowSpec(
        name=workflow.name,
        interface=workflow.interface.wire,
        nodes=tuple(
            spec.NodeSpec(
                id=node.id,
                task=node.task.name,
                inputs=node.inputs,
                upstream=tuple(sorted(other.id for other in node.upstream)),
                overrides=node.overrides,
            )
            for node in graph.nodes
        ),
        tasks=tuple(tasks[name].to_spec(bundle=bundle) for name in sorted(tasks)),
        outputs=graph.outputs,
        bundle=bundle,
        placement=policy,
        failure_policy=str(workflow.failure_policy),
    )
