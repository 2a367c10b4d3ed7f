"""Launch, look, cancel. From the insert of its row on a run can't be lost: the sweeper takes it
up.

Called by `rpc.py`; hands new runs to the dispatcher and cancelled ones to the delivery of wake-
ups.
"""

import re
import secrets
import time
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import insert, select, update
from whimbrel.errors import Conflict, InvalidInput, NotFound, Refused
from whimbrel.spec import Phase, PlacementPolicy, Want, WorkflowSpec, canonical, sha256

from control_plane import documents
from control_plane.database import Database, table
from control_plane.executions.changes import Changes
from control_plane.executions.delivery import Delivery
from control_plane.executions.dispatcher import Dispatcher
from control_plane.executions.inputs import complete, container_images, largest, parse, secret_names
from control_plane.executions.lifecycle import move
from control_plane.executions.residency import Residency
from control_plane.executions.store import Execution
from control_plane.executions.timeline import Entry, tell
from control_plane.executions.view import (
    NodeView,
    PlacementView,
    View,
    head,
    heads,
    trace_id,
    view,
)
from control_plane.ledger.fence import FENCE, end
from control_plane.ledger.rows import insert_into
from control_plane.ledger.store import Wakeup
from control_plane.registry.graphs import Graphs
from control_plane.registry.service import Key, Stored, find
from control_plane.routing.port import Requirement, Router
from control_plane.traces.spans import Spans

EXECUTION = table(Execution)
WAKEUP = table(Wakeup)
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
LISTED, AT_MOST = 100, 1000


@dataclass(frozen=True, slots=True)
class Launch:
    """`name` "" = chosen here; `policy` None = the workflow's own; `inputs` a JSON object as
    text."""

    project: str
    domain: str
    name: str
    workflow: Key
    inputs: str = "{}"
    policy: PlacementPolicy | None = None
    traceparent: str = ""
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    project: str = ""
    domain: str = ""
    phases: tuple[Phase, ...] = ()
    limit: int = 0
    before: str = ""


class Executions:
    def __init__(
        self, database: Database, router: Router, *, graphs: Graphs, dispatcher: Dispatcher,
        delivery: Delivery, changes: Changes, spans: Spans, region: str = "",
    ) -> None:  # fmt: skip
        """`region` is where this control plane keeps what it is told, "" = everything may be."""
        self.residency = Residency(database, region)
        self._database = database
        self._router = router
        self._graphs = graphs
        self._dispatcher = dispatcher
        self._delivery = delivery
        self._changes = changes
        self._spans = spans

    async def launch(self, wanted: Launch) -> View:
        """The same request under the same name again answers the run that is there."""
        async with self._database.read() as connection:
            stored = await find(connection, wanted.workflow)
            spec = await self._graphs.get(connection, stored.digest)
        given = parse(wanted.inputs)
        policy = self.residency.launch(wanted.policy or spec.placement, given)
        inputs = canonical(complete(given, spec.interface, workflow=stored.key.name))
        row = self._row(wanted, stored, spec, policy=policy, inputs=inputs)
        if wanted.dry_run:
            return await self._dry_run(row, spec, policy)
        async with self._database.write() as connection:
            # The key decides between two launches of one name.
            fresh = await connection.execute(
                insert_into(connection)(EXECUTION)
                .values(row)
                .on_conflict_do_nothing()
                .returning(EXECUTION.c.id)
            )
            if fresh.first() is None:
                there = select(EXECUTION.c.request_digest).where(EXECUTION.c.id == row["id"])
                if (await connection.execute(there)).scalar_one() != row["request_digest"]:
                    raise Conflict(
                        f"there is another execution {row['id']}, launched with other inputs, "
                        "another version or another placement",
                        remedy="choose another name",
                    )
                return await view(connection, row["id"], self._graphs)
            await connection.execute(
                insert(FENCE).values(
                    execution=row["id"], epoch=0, owner_cluster="", owner_cluster_epoch=0,
                    decision_digest="", released=0, terminal=False, fenced_ns=0, key_epoch=0,
                    want=Want.RUN, gate=0,
                )
            )  # fmt: skip
            text = f"{stored.key.name} version {stored.key.version}"
            await tell(connection, [Entry(row["id"], 0, "launched", "", text)])
        self._dispatcher.wake([row["id"]])
        nodes = tuple(NodeView(node.id, node.task) for node in spec.nodes)
        return replace(head(row | {"epoch": 0}), nodes=nodes)

    def _row(
        self, wanted: Launch, stored: Stored, spec: WorkflowSpec, *, policy: PlacementPolicy,
        inputs: str,
    ) -> dict[str, Any]:  # fmt: skip
        name = wanted.name or chosen(stored.key.name)
        project, domain = wanted.project or stored.key.project, wanted.domain or stored.key.domain
        for what, value in (("project", project), ("domain", domain), ("execution", name)):
            if not NAME.fullmatch(value):
                raise InvalidInput(
                    f"{value!r} is no name for a {what}",
                    remedy="use lower-case letters, digits and -, at most 63",
                )
        execution = f"{project}/{domain}/{name}"
        traceparent = "" if wanted.dry_run else self._spans.root(
            wanted.traceparent, {"execution": execution, "workflow": stored.key.name}
        )  # fmt: skip
        return {
            "id": execution, "project": project, "domain": domain, "name": name,
            "workflow": stored.key.name, "version": stored.key.version,
            "spec_digest": stored.digest, "phase": Phase.QUEUED.value, "reason": "", "region": "",
            "cluster": "", "mode": policy.mode.value, "policy": documents.text(policy),
            "largest": documents.text(largest(spec)), "inputs": inputs, "outputs": "", "error": "",
            "request_digest": sha256(canonical([stored.digest, inputs, documents.text(policy)])),
            "traceparent": traceparent, "created_ns": time.time_ns(), "started_ns": 0,
            "ended_ns": 0, "waiting_ns": 0, "images": documents.names_text(container_images(spec)),
            "secrets": documents.names_text(secret_names(spec)), "no_room": "",
            "replicating": bool(policy.replicate), "priority": policy.priority,
        }  # fmt: skip

    async def _dry_run(
        self, row: dict[str, Any], spec: WorkflowSpec, policy: PlacementPolicy
    ) -> View:
        wanted = Requirement(
            row["id"],
            policy,
            largest(spec),
            images=container_images(spec),
            secrets=secret_names(spec),
        )
        [decision] = await self._router.place([wanted])
        placement = PlacementView(
            epoch=0, cluster=decision.cluster, region=decision.region, cause="launch",
            reason=decision.reason, verdicts=decision.verdicts, decided_ns=decision.decided_ns,
        )  # fmt: skip
        shown = replace(head(row | {"epoch": 0}), reason=decision.reason, region=decision.region)
        return replace(shown, cluster=decision.cluster, placements=(placement,))

    async def get(self, execution: str) -> View:
        async with self._database.read() as connection:
            return await view(connection, execution, self._graphs)

    async def list(self, listing: Listing) -> list[View]:
        query = heads().order_by(EXECUTION.c.created_ns.desc(), EXECUTION.c.id)
        if listing.project:
            query = query.where(EXECUTION.c.project == listing.project)
        if listing.domain:
            query = query.where(EXECUTION.c.domain == listing.domain)
        if listing.phases:
            query = query.where(EXECUTION.c.phase.in_([phase.value for phase in listing.phases]))
        if listing.before:
            page = select(EXECUTION.c.created_ns).where(
                EXECUTION.c.project == listing.project,
                EXECUTION.c.domain == listing.domain,
                EXECUTION.c.name == listing.before,
            )
            query = query.where(EXECUTION.c.created_ns < page.scalar_subquery())
        async with self._database.read() as connection:
            found = await connection.execute(query.limit(min(listing.limit or LISTED, AT_MOST)))
            return [head(row) for row in found.mappings()]

    async def cancel(self, execution: str, *, reason: str = "") -> View:
        """Raises the epoch and writes ABORTED in one transaction; the owner is told afterwards."""
        async with self._database.write() as connection:
            before = (await end(connection, [execution])).get(execution)
            if before is None:
                raise NotFound(
                    f"there is no execution {execution}",
                    remedy="whimbrel execution list shows them",
                )
            phase = (
                await connection.execute(
                    select(EXECUTION.c.phase).where(EXECUTION.c.id == execution)
                )
            ).scalar_one()
            if before.terminal and phase != Phase.ABORTED:
                raise Refused(f"{execution} has ended already: {phase}")
            if not before.terminal:
                now = time.time_ns()
                await connection.execute(
                    update(EXECUTION)
                    .where(EXECUTION.c.id == execution)
                    .values(phase=move(phase, Phase.ABORTED), reason="cancelled", ended_ns=now)
                )
                text = reason or "cancelled"
                epoch = before.epoch + 1
                await tell(
                    connection,
                    [Entry(execution, epoch, "cancelled", before.owner_cluster, text)],
                )
                await connection.execute(
                    insert(WAKEUP).values(execution=execution, kind="finished", created_ns=now)
                )
            answer = await view(connection, execution, self._graphs)
        self._changes.notify([execution])
        self._delivery.hint()
        return answer

    async def trace_of(self, execution: str) -> str:
        """The id of its trace, "" when it was launched without a tracer."""
        async with self._database.read() as connection:
            found = await connection.execute(
                select(EXECUTION.c.traceparent).where(EXECUTION.c.id == execution)
            )
            traceparent = found.scalar_one_or_none()
        if traceparent is None:
            raise NotFound(f"there is no execution {execution}")
        return trace_id(traceparent)


def chosen(workflow: str) -> str:
    """A name for a run whose launcher gave none: the workflow's function and chance."""
    base = re.sub(r"[^a-z0-9]+", "-", workflow.rpartition(".")[2].lower()).strip("-")
    return f"{base[:40] or 'run'}-{secrets.token_hex(5)}"
