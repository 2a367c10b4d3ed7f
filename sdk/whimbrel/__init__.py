"""Whimbrel: one global endpoint, many regions, every run arrives once."""

from typing import TYPE_CHECKING, Any

from whimbrel.artifacts import Directory, File
from whimbrel.context import Context, current_context
from whimbrel.errors import WhimbrelError
from whimbrel.requirements import Placement, Resources, Secret
from whimbrel.task import task
from whimbrel.workflow import WorkflowFailurePolicy, workflow

if TYPE_CHECKING:
    from whimbrel.client import AsyncClient, Client, Execution

__all__ = [
    "AsyncClient",
    "Client",
    "Context",
    "Directory",
    "Execution",
    "File",
    "Placement",
    "Resources",
    "Secret",
    "WhimbrelError",
    "WorkflowFailurePolicy",
    "current_context",
    "task",
    "workflow",
]


def __getattr__(name: str) -> Any:
    if name in ("AsyncClient", "Client", "Execution"):  # they bring grpc, which a task never needs
        from whimbrel import client

        return getattr(client, name)
    raise AttributeError(f"module 'whimbrel' has no attribute {name!r}")
