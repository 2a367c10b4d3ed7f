"""The asynchronous client: registers what is new, launches, follows; survives an endpoint that
restarts.

Called by users' programs and by `client.py`, which is the same without `await`; hands to `rpc.py`.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from whimbrel import client_source
from whimbrel.client_moves import DrainView, MigrationView
from whimbrel.client_source import Source
from whimbrel.client_views import (
    ClusterView,
    ExecutionView,
    LogView,
    RegisteredView,
    SpanView,
)
from whimbrel.errors import ExecutionFailed, TooLarge, Unreachable
from whimbrel.rpc import Wire
from whimbrel.spec import Phase, PlacementPolicy, WorkflowSpec

PATIENCE_SECONDS = 120.0
"""How long a run is still followed while its endpoint is away. Too short ends `wait` at a
restart."""
PAUSES = (0.1, 0.2, 0.5, 1.0)


class AsyncExecution:
    """A handle on one run; `view` is what was last heard of it."""

    def __init__(self, wire: Wire, view: ExecutionView) -> None:
        self._wire = wire
        self.view = view

    @property
    def name(self) -> str:
        return self.view.name

    @property
    def phase(self) -> Phase:
        return self.view.phase

    async def refresh(self) -> ExecutionView:
        self.view = await self._wire.get(self.name)
        return self.view

    def watch(self) -> AsyncIterator[ExecutionView]:
        """What is known now, then again at every change; ends after a terminal phase."""
        return self._follow(end_only=False)

    async def _follow(self, *, end_only: bool) -> AsyncIterator[ExecutionView]:
        lost_at, pause = 0.0, 0
        while True:
            try:
                async for view in self._wire.watch(self.name, end_only=end_only):
                    lost_at, pause, self.view = 0.0, 0, view
                    yield view
                    if view.phase.terminal:
                        return
            except Unreachable:
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > PATIENCE_SECONDS:
                    raise
            await asyncio.sleep(PAUSES[min(pause, len(PAUSES) - 1)])
            pause += 1

    async def wait(self, *, timeout: float | None = None) -> ExecutionView:
        """Until the run has ended. Raises ExecutionFailed unless it SUCCEEDED, TimeoutError after
        `timeout` seconds."""
        async with asyncio.timeout(timeout):
            async for _ in self._follow(end_only=True):
                pass
        return succeeded(self.view)

    async def outputs(self, *, timeout: float | None = None) -> Mapping[str, Any]:
        """Output name to JSON form, once the run has SUCCEEDED; waits for it."""
        view = self.view if self.view.phase.terminal else await self.wait(timeout=timeout)
        return succeeded(view).outputs or {}

    async def cancel(self, *, reason: str = "") -> ExecutionView:
        self.view = await self._wire.cancel(self.name, reason=reason)
        return self.view

    async def migrate(self, *, to: str = "", dry_run: bool = False) -> MigrationView:
        """Begins a planned move to the cluster `to` ("" = the router chooses another one), or
        answers the one under way; with `dry_run` only what it would do."""
        return await self._wire.migrate(self.name, to=to, dry_run=dry_run)

    async def explain(self) -> str:
        """Why it is where it is, or why it waits."""
        return explanation(await self.refresh())

    def logs(
        self, *, node: str = "", attempt: int = 0, follow: bool = False
    ) -> AsyncIterator[LogView]:
        """What its tasks wrote. Node "" = every node, attempt 0 = the newest."""
        return self._wire.logs(self.name, node=node, attempt=attempt, follow=follow)

    async def trace(self) -> tuple[SpanView, ...]:
        return (await self._wire.trace(self.name))[1]


class AsyncClient:
    """One endpoint, one project, one domain. Use it as a context manager, inside one event loop."""

    def __init__(
        self,
        endpoint: str = "127.0.0.1:8470",
        *,
        project: str = "default",
        domain: str = "development",
    ) -> None:
        self.wire = Wire(endpoint, project=project, domain=domain)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self.wire.close()

    async def register(self, source: Any, *, version: str = "") -> tuple[RegisteredView, ...]:
        """Every workflow of a module, or one workflow. Version "" is derived from the code and its
        meaning."""
        made = source if isinstance(source, Source) else client_source.prepare(source)
        await self._send_bundle(made)
        return await self.wire.register(made.workflows, version=version or made.version)

    async def _send_bundle(self, made: Source) -> None:
        present, limit = await self.wire.has_bundle(made.bundle)
        if present:
            return
        if limit and len(made.data) > limit:
            raise TooLarge(
                f"the code archive has {len(made.data):,} bytes, the limit is {limit:,}",
                remedy="move the workflow into a folder of its own, or take data out of .py files",
            )
        await self.wire.put_bundle(made.bundle, made.data)

    async def launch(
        self,
        workflow: Any,
        inputs: Mapping[str, Any] | None = None,
        *,
        version: str = "",
        name: str = "",
        placement: PlacementPolicy | None = None,
        dry_run: bool = False,
    ) -> AsyncExecution:
        """A workflow (registered first where that is new) or the name of a registered one.

        `inputs` are Python values for a workflow, JSON forms for a name.
        """
        if isinstance(workflow, str):
            target, forms = workflow, dict(inputs or {})
        else:
            made = client_source.prepare(workflow)
            (registered,) = await self.register(made, version=version)
            target, version = registered.name, registered.version
            forms = client_source.input_forms(workflow, inputs or {})
        view = await self.wire.launch(
            target,
            version=version,
            inputs_json=json.dumps(forms),
            name=name,
            placement=placement,
            dry_run=dry_run,
        )
        return AsyncExecution(self.wire, view)

    async def get(self, name: str) -> AsyncExecution:
        return AsyncExecution(self.wire, await self.wire.get(name))

    async def list(
        self, *, phases: Sequence[str] = (), limit: int = 0, before: str = ""
    ) -> tuple[ExecutionView, ...]:
        return await self.wire.list(phases=phases, limit=limit, before=before)

    async def workflow(self, name: str, *, version: str = "") -> WorkflowSpec:
        return await self.wire.workflow(name, version=version)

    async def clusters(self) -> tuple[ClusterView, ...]:
        return await self.wire.clusters()

    async def drain(
        self, *, cluster: str = "", region: str = "", dry_run: bool = False
    ) -> tuple[DrainView, ...]:
        """Empties a cluster, or each cluster of a region: nothing new goes there, and what runs
        there migrates. The same again answers the drain under way."""
        return await self.wire.drain(cluster=cluster, region=region, dry_run=dry_run)

    async def drained(self, cluster: str) -> DrainView | None:
        """The newest drain of a cluster, None if there never was one."""
        return next(iter(await self.wire.drained(cluster)), None)


def succeeded(view: ExecutionView) -> ExecutionView:
    """The view, or what went wrong as an error."""
    if view.phase is Phase.SUCCEEDED:
        return view
    if view.error is not None:
        where = f" in {view.error.node}" if view.error.node else ""
        message = f"{view.name} {view.phase}{where}: {view.error.message}"
    else:
        message = f"{view.name} {view.phase}: {view.reason or 'cancelled'}"
    raise ExecutionFailed(message, remedy=f"see `whimbrel execution logs {view.name}`")


def explanation(view: ExecutionView) -> str:
    """The newest placement with its reasons, as lines."""
    lines = [f"{view.name} is {view.phase}" + (f" ({view.reason})" if view.reason else "")]
    for placement in view.placements:
        place = placement.cluster or f"nowhere: {placement.reason}"
        lines.append(f"epoch {placement.epoch} ({placement.cause}): {place}")
        for verdict in placement.verdicts:
            word = "accepted" if verdict.accepted else f"refused by {verdict.rule}"
            score = f", score {verdict.score:.2f}" if verdict.accepted else ""
            lines.append(f"  {verdict.cluster}: {word}{score}: {verdict.why}")
    return "\n".join(lines)
