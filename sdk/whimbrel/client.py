"""The client for programs without an event loop: `client_async.py`, run in a thread of its own.

Called by users' programs and the command line. No logic here: every call is the asynchronous one,
waited for.
"""

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from whimbrel.client_async import AsyncClient, AsyncExecution
from whimbrel.client_moves import DrainView, MigrationView
from whimbrel.client_views import (
    ClusterView,
    ExecutionView,
    LogView,
    RegisteredView,
    SpanView,
)
from whimbrel.spec import Phase, PlacementPolicy, WorkflowSpec

__all__ = ["AsyncClient", "AsyncExecution", "Client", "Execution"]

T = TypeVar("T")


class Background:
    """One event loop in one thread, for every client of this process: gRPC keeps to the first loop
    it meets, and what is in flight there when that loop is closed makes it complain for ever."""

    _made: "Background | None" = None
    _making = threading.Lock()

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._pid = os.getpid()
        threading.Thread(target=self._loop.run_forever, name="whimbrel client", daemon=True).start()

    @classmethod
    def shared(cls) -> "Background":
        with cls._making:
            if cls._made is None or cls._made._pid != os.getpid():  # a fork has no threads
                cls._made = cls()
            return cls._made

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        async def following() -> tuple[bool, Any]:
            try:
                return True, await anext(items)
            except StopAsyncIteration:
                return False, None

        try:
            while True:
                more, item = self.run(following())
                if not more:
                    return
                yield item
        finally:
            self.run(_close(items))


async def _close(items: AsyncIterator[Any]) -> None:
    close = getattr(items, "aclose", None)
    if close is not None:
        with contextlib.suppress(RuntimeError):  # cancelled in the middle: it is closing already
            await close()


class Execution:
    """A handle on one run; `view` is what was last heard of it."""

    def __init__(self, background: Background, inner: AsyncExecution) -> None:
        self._background, self._inner = background, inner

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def phase(self) -> Phase:
        return self._inner.phase

    @property
    def view(self) -> ExecutionView:
        return self._inner.view

    @property
    def outputs(self) -> Mapping[str, Any]:
        """Output name to JSON form; waits until the run has ended, raises ExecutionFailed unless
        it SUCCEEDED."""
        return self._background.run(self._inner.outputs())

    def refresh(self) -> ExecutionView:
        return self._background.run(self._inner.refresh())

    def watch(self) -> Iterator[ExecutionView]:
        return self._background.iterate(self._inner.watch())

    def wait(self, *, timeout: float | None = None) -> ExecutionView:
        return self._background.run(self._inner.wait(timeout=timeout))

    def cancel(self, *, reason: str = "") -> ExecutionView:
        return self._background.run(self._inner.cancel(reason=reason))

    def migrate(self, *, to: str = "", dry_run: bool = False) -> MigrationView:
        return self._background.run(self._inner.migrate(to=to, dry_run=dry_run))

    def explain(self) -> str:
        return self._background.run(self._inner.explain())

    def logs(self, *, node: str = "", attempt: int = 0, follow: bool = False) -> Iterator[LogView]:
        return self._background.iterate(self._inner.logs(node=node, attempt=attempt, follow=follow))

    def trace(self) -> tuple[SpanView, ...]:
        return self._background.run(self._inner.trace())


class Client:
    """One endpoint, one project, one domain; `close()` it or use it as a context manager."""

    def __init__(
        self,
        endpoint: str = "127.0.0.1:8470",
        *,
        project: str = "default",
        domain: str = "development",
    ) -> None:
        self._background = Background.shared()

        async def connect() -> AsyncClient:
            return AsyncClient(endpoint, project=project, domain=domain)

        self._inner = self._background.run(connect())
        self.endpoint, self.project, self.domain = endpoint, project, domain

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._background.run(self._inner.close())

    def register(self, source: Any, *, version: str = "") -> tuple[RegisteredView, ...]:
        return self._background.run(self._inner.register(source, version=version))

    def launch(
        self,
        workflow: Any,
        inputs: Mapping[str, Any] | None = None,
        *,
        version: str = "",
        name: str = "",
        placement: PlacementPolicy | None = None,
        dry_run: bool = False,
    ) -> Execution:
        work = self._inner.launch(
            workflow, inputs, version=version, name=name, placement=placement, dry_run=dry_run
        )
        return Execution(self._background, self._background.run(work))

    def get(self, name: str) -> Execution:
        return Execution(self._background, self._background.run(self._inner.get(name)))

    def list(
        self, *, phases: Sequence[str] = (), limit: int = 0, before: str = ""
    ) -> tuple[ExecutionView, ...]:
        return self._background.run(self._inner.list(phases=phases, limit=limit, before=before))

    def workflow(self, name: str, *, version: str = "") -> WorkflowSpec:
        return self._background.run(self._inner.workflow(name, version=version))

    def clusters(self) -> tuple[ClusterView, ...]:
        return self._background.run(self._inner.wire.clusters())

    def cluster(self, name: str) -> ClusterView:
        return self._background.run(self._inner.wire.cluster(name))

    def register_cluster(self, name: str, *, region: str) -> ClusterView:
        """So that its agent is let in. The same again changes nothing."""
        return self._background.run(self._inner.wire.register_cluster(name, region=region))

    def set_scheduling(self, name: str, *, scheduling: str) -> ClusterView:
        """`active` or `cordoned`."""
        return self._background.run(self._inner.wire.set_scheduling(name, scheduling=scheduling))

    def drain(
        self, *, cluster: str = "", region: str = "", dry_run: bool = False
    ) -> tuple[DrainView, ...]:
        work = self._inner.drain(cluster=cluster, region=region, dry_run=dry_run)
        return self._background.run(work)

    def drained(self, cluster: str) -> DrainView | None:
        return self._background.run(self._inner.drained(cluster))
