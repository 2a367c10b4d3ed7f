"""Launch inputs against the workflow's interface: unknown, missing and wrong ones are named. Pure.

Called by `service.py` before anything is stored; answers the inputs with defaults filled in.
"""

import json
from collections.abc import Mapping
from typing import Any, cast

from jsonschema import Draft202012Validator
from whimbrel.errors import InvalidInput, TooLarge
from whimbrel.spec import Interface, Resources, TaskSpec, WorkflowSpec

LIMIT = 1024 * 1024
"""Bytes of all inputs of a run, as they travel to the agent in one message; data goes into a
File."""


def parse(document: str) -> dict[str, Any]:
    if len(document) > LIMIT:
        raise TooLarge(
            f"the inputs take {len(document)} bytes, at most {LIMIT} are allowed",
            remedy="pass large data as a File",
        )
    try:
        value: Any = json.loads(document or "{}")
    except ValueError as error:
        raise InvalidInput(f"the inputs are no JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidInput("the inputs must be a JSON object: input name to value")
    return cast("dict[str, Any]", value)


def complete(given: Mapping[str, Any], interface: Interface, *, workflow: str) -> dict[str, Any]:
    known = {variable.name: variable for variable in interface.inputs}
    if unknown := sorted(set(given) - set(known)):
        raise InvalidInput(
            f"{workflow} has no input {', '.join(unknown)}",
            remedy=f"its inputs are: {', '.join(known) or 'none'}",
        )
    values: dict[str, Any] = {}
    for name, variable in known.items():
        if name not in given:
            if variable.required:
                raise InvalidInput(f"{workflow} needs input {name!r}", remedy=f"give {name}=...")
            values[name] = variable.default
            continue
        values[name] = given[name]
        schema: Any = dict(variable.schema)
        validator: Any = Draft202012Validator(schema)
        for error in validator.iter_errors(given[name]):
            where = "".join(f"[{step!r}]" for step in error.absolute_path)
            raise InvalidInput(
                f"input {name}{where} of {workflow}: {error.message}",
                remedy=f"it must fit {json.dumps(schema)[:200]}",
            )
    return values


def container_images(spec: WorkflowSpec) -> tuple[str, ...]:
    """Container images that the nodes' tasks name."""
    return tuple(sorted({task.container_image for task in used(spec) if task.container_image}))


def secret_names(spec: WorkflowSpec) -> tuple[str, ...]:
    """Names of the secrets that the nodes' tasks ask for."""
    return tuple(sorted({name for task in used(spec) for name in task.secrets}))


def used(spec: WorkflowSpec) -> list[TaskSpec]:
    wanted = {node.task for node in spec.nodes}
    return [task for task in spec.tasks if task.name in wanted]


def largest(spec: WorkflowSpec) -> Resources:
    """Component-wise maximum over the nodes' requests: what one cluster must be able to hold."""
    tasks = {task.name: task for task in spec.tasks}
    asked = [node.overrides.requests or tasks[node.task].requests for node in spec.nodes]
    return Resources(
        cpu=max((item.cpu for item in asked), default=0.0),
        mem_bytes=max((item.mem_bytes for item in asked), default=0),
        gpu=max((item.gpu for item in asked), default=0),
        ephemeral_storage_bytes=max((item.ephemeral_storage_bytes for item in asked), default=0),
    )
