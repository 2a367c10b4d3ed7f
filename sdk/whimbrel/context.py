"""What a task can ask about the try it is in: `current_context()`.

Set by whoever runs the task (`local.py`, `runtime_task.py`) with `entered(Context(...))`; read by
user code.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from whimbrel.checkpoint import Checkpoint
from whimbrel.errors import NotFound, Refused

if TYPE_CHECKING:
    from logging import Logger


class Secrets:
    """Values of the secrets a task asked for, from WHIMBREL_SECRET_<NAME> of its environment."""

    def get(self, key: str, group: str = "") -> str:
        name = f"{group}/{key}" if group else key
        variable = "WHIMBREL_SECRET_" + "".join(c if c.isalnum() else "_" for c in name).upper()
        value = os.environ.get(variable)
        if value is None:
            raise NotFound(f"there is no secret {name!r} here", remedy=f"set {variable}")
        return value


@dataclass(frozen=True, slots=True)
class Context:
    """`attempt` counts from 1.

    `idempotency_key` is the same for every try of a node: for effects outside the platform.
    `migration_requested` turns True, while the task runs, when its machine is about to go: save a
    checkpoint soon; `checkpoint.write` and `checkpoint.save` then end the try and the next one
    resumes elsewhere. A task that does neither may finish in the time that is left, or is begun
    anew.
    """

    execution_id: str
    node_id: str
    attempt: int
    epoch: int
    region: str
    working_directory: str
    checkpoint: Checkpoint
    secrets: Secrets = field(default_factory=Secrets)

    @property
    def migration_requested(self) -> bool:
        return self.checkpoint.moving()

    @property
    def logging(self) -> "Logger":
        import logging

        return logging.getLogger("whimbrel.task")

    @property
    def idempotency_key(self) -> str:
        return f"{self.execution_id}/{self.node_id}"


_current: ContextVar[Context | None] = ContextVar("whimbrel_context", default=None)


def current_context() -> Context:
    """Raises Refused outside a run: a task called as a plain function has none."""
    context = _current.get()
    if context is None:
        raise Refused(
            "current_context() is there only while a workflow runs",
            remedy="call the workflow, or use whimbrel.testing.local_run",
        )
    return context


@contextmanager
def entered(context: Context) -> Generator[None]:
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)
