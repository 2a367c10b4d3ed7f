"""For users' own unit tests: run a workflow here, and stand in for single tasks.

Used by test suites outside this package; built on `local.py`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from whimbrel.task import Task, replaced
from whimbrel.workflow import Workflow

__all__ = ["local_run", "task_mock"]


def local_run(workflow: Workflow[..., Any], /, **inputs: Any) -> Any:
    """The workflow's result, computed in this process."""
    return workflow(**inputs)


def task_mock(
    task: Task[..., Any], function: Callable[..., Any], /
) -> AbstractContextManager[None]:
    """`with task_mock(train, lambda data.

    0.9): ...` runs the function in the task's place; types are still checked.
    """
    return replaced(task, function)
