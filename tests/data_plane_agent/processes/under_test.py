"""A launcher with real code and a real store below one directory, and what tests ask of it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from textwrap import dedent
from typing import Any
from urllib.parse import urlsplit

from whimbrel.spec import Artifact, Interface, Resources, TaskSpec

from data_plane_agent.launcher import (
    Attempt,
    AttemptEvent,
    AttemptKey,
    Broke,
    Finished,
    Renewal,
)
from data_plane_agent.processes.launcher import ProcessLauncher
from data_plane_agent.processes.settings import ProcessSettings

FLOW = """
    import os, sys, time, subprocess
    from whimbrel import File, current_context, task

    print("imported")

    @task
    def double(x: int) -> int:
        return 2 * x

    @task
    def big(size: int) -> str:
        return "x" * size

    @task
    def inner_raise() -> int:
        def deeper():
            raise ValueError("no such luck\\nsecond line")
        return deeper()

    @task
    def leave(status: int) -> int:
        os._exit(status)

    @task
    def politely_leave() -> int:
        sys.exit(4)

    @task
    def crash() -> int:
        os.kill(os.getpid(), 11)
        time.sleep(60)
        return 1

    @task
    def say_and_sleep(mark: str, seconds: float) -> int:
        print("hello from", mark)
        print("a complaint", file=sys.stderr)
        with open(mark, "w") as file:
            file.write(f"{os.getpid()}\\n")
        time.sleep(seconds)
        print("done")
        return os.getpid()

    @task
    def quiet() -> int:
        return os.getpid()

    @task
    def chatty(line: str) -> int:
        print(line)
        subprocess.run(["sh", "-c", "echo from a child"])
        return 0

    @task
    def hoard(mebibytes: int) -> int:
        block = bytearray(mebibytes << 20)
        time.sleep(60)
        return len(block)

    @task
    def greedy() -> int:
        raise MemoryError

    @task
    def produce(text: str) -> File:
        with open("made.txt", "w") as file:
            file.write(text)
        return File("made.txt")

    @task
    def consume(file: File) -> str:
        with file.open() as opened:
            return opened.read().upper()

    @task
    def remember(value: str) -> str:
        checkpoint = current_context().checkpoint
        found = checkpoint.read()
        checkpoint.write(value.encode())
        return found.decode() if found else "nothing"

    @task
    def surroundings() -> dict[str, str]:
        names = ["IDEMPOTENCY_KEY", "EPOCH", "WHIMBREL_EXECUTION", "WHIMBREL_NODE",
                 "WHIMBREL_ATTEMPT", "WHIMBREL_REGION", "TRACEPARENT", "COLOUR"]
        return {name: os.environ.get(name, "") for name in names}
"""

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

    def launcher(
        self, *, slots: int = 2, renewal: Renewal | None = None, **settings: Any
    ) -> ProcessLauncher:
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
            renewal=renewal,
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
    exclusive: bool = False,
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
        exclusive=exclusive,
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


async def one_end(events: Events) -> Finished | Broke:
    return next(iter(ends(await until_ended(events, 1)).values()))


async def broken(events: Events) -> Broke:
    end = await one_end(events)
    assert isinstance(end, Broke)
    return end


def content(artifact: Artifact | None) -> str:
    assert artifact is not None
    data = Path(urlsplit(artifact.uri).path).read_bytes()
    assert len(data) == artifact.bytes
    return data.decode()
