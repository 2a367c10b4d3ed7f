"""A launcher with real code and a real store below one directory, and what tests ask of it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from textwrap import dedent
from typing import Any

from whimbrel.spec import Artifact, Interface, Resources, TaskSpec

from data_plane_agent.launcher import Attempt, AttemptEvent, AttemptKey, Broke, Finished
from data_plane_agent.process_settings import ProcessSettings
from data_plane_agent.processes import ProcessLauncher

DEADLINE = 60.0
NOTHING_SAID = Resources()


class Region:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.code = root / "code"
        self.code.mkdir(parents=True, exist_ok=True)
        self.marks = root / "marks"
        self.marks.mkdir(exist_ok=True)

    def write(self, source: str, *, module: str = "flow") -> None:
        (self.code / f"{module}.py").write_text(dedent(source))

    def launcher(self, *, slots: int = 2, **settings: Any) -> ProcessLauncher:
        async def fetch(digest: str) -> Path:
            return self.code

        return ProcessLauncher(
            ProcessSettings(
                data_dir=self.root / "agent",
                store=f"file://{self.root}/store",
                region="us-east",
                slots=slots,
                **settings,
            ),
            fetch_bundle=fetch,
        )


def attempt(
    entry: str,
    *,
    node: str = "n",
    number: int = 1,
    inputs: Mapping[str, Any] | None = None,
    limits: Resources = NOTHING_SAID,
    requests: Resources = NOTHING_SAID,
    timeout: float = 0.0,
    environment: Mapping[str, str] | None = None,
    checkpoint: Artifact | None = None,
) -> Attempt:
    task = TaskSpec(
        entry.replace(":", "."), entry, "b1", Interface(), environment=dict(environment or {})
    )
    return Attempt(
        key=AttemptKey("p/d/run", node, number, 7),
        task=task,
        inputs=inputs or {},
        input_digest=f"digest of {node}",
        project="p",
        domain="d",
        requests=requests,
        limits=limits,
        timeout_seconds=timeout,
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        checkpoint=checkpoint,
    )


Events = AsyncIterator[Sequence[AttemptEvent]]


async def until_ended(events: Events, count: int) -> list[AttemptEvent]:
    """Everything that is told until `count` attempts have ended."""
    seen: list[AttemptEvent] = []
    async with asyncio.timeout(DEADLINE):
        while sum(isinstance(event, Finished | Broke) for event in seen) < count:
            seen.extend(await anext(events))
    return seen


def ends(seen: Sequence[AttemptEvent]) -> dict[str, Finished | Broke]:
    return {event.key.node: event for event in seen if isinstance(event, Finished | Broke)}


async def eventually(condition: Callable[[], bool]) -> None:
    """Another process makes it true."""
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.01)


async def appears(path: Path) -> str:
    """What the task wrote there, once it has."""
    await eventually(lambda: path.exists() and path.read_text().endswith("\n"))
    return path.read_text().strip()


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}/fd/0").exists()
