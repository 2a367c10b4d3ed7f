"""Planned moves and drains as people ask for them: planned, refused with a reason, or begun.

Called by the doors and by a drain's steps; writes the row first, then has its story told.
`keep_told` tells the stories of rows whose teller died in between.
"""

import asyncio
import logging
import time
from dataclasses import replace
from typing import Protocol

from sqlalchemy import select
from whimbrel.errors import InvalidInput, NotFound, Refused
from whimbrel.service.crash import crash_point

from control_plane.clusters.service import CLUSTER, Clusters, unknown
from control_plane.database import Database, exclusive
from control_plane.executions.dispatch import load
from control_plane.executions.timeline import Entry, tell
from control_plane.ledger.fence import FENCE, locked
from control_plane.movement import journal
from control_plane.movement.planning import Plan, Planning, why, why_stays
from control_plane.movement.views import DrainView, MigrationView
from control_plane.registry.graphs import Graphs
from control_plane.routing.port import Router

log = logging.getLogger(__name__)

TOLD_EVERY_SECONDS = 5.0
"""Between two looks for open rows without a story; a start that is not needed costs one call."""


STOPPED = "its story was ended in Temporal, not by itself"


class Stories(Protocol):
    """What `client.py` does; each story has one id and is started once. False: it has been told
    before, to its end."""

    def check(self) -> None:
        """Raises Refused when no story can ever be told here."""
        ...

    async def migrate(self, execution: str, number: int, *, cause: str) -> bool: ...
    async def drain(self, cluster: str, number: int) -> bool: ...


class Moves:
    def __init__(
        self, database: Database, router: Router, *, graphs: Graphs, clusters: Clusters,
        stories: Stories,
    ) -> None:  # fmt: skip
        self._database = database
        self._clusters = clusters
        self._stories = stories
        self._planning = Planning(database, router, graphs)

    async def plan(self, execution: str, *, to: str = "") -> MigrationView:
        """What `migrate` would do now; changes nothing."""
        return planned(await self._planning.plan(execution, to=to), to)

    async def migrate(
        self, execution: str, *, to: str = "", cause: str = "migration", drain: str = ""
    ) -> MigrationView:
        """One open migration a run: the same again answers it. `drain` is the key of the drain
        that asks."""
        self._stories.check()
        if under_way := await self._under_way(execution):
            return under_way
        plan = await self._planning.plan(execution, to=to)
        said = planned(plan, to)
        async with self._database.write() as connection:
            row = await journal.request(
                connection, execution=execution, cause=cause, drain=drain,
                from_cluster=plan.row.owner_cluster, from_epoch=plan.row.epoch, wanted=to,
                to_cluster=said.to_cluster, refused=(said.reason, said.why),
            )  # fmt: skip
            if row["phase"] == "REFUSED":
                text = f"{cause} to {to or 'another cluster'}: {said.why}"
                await tell(connection, [Entry(execution, plan.row.epoch, "refused", to, text)])
        crash_point("migrate.after_request")
        if row["ended_ns"] == 0:
            await self._stories.migrate(execution, row["number"], cause=row["cause"])
        elif not drain:
            raise Refused(
                f"{execution} can't go to {to or 'another cluster'}: {said.why}",
                remedy="whimbrel execution migrate --dry-run shows what each cluster says",
            )
        return journal.migration_view(row, nodes=plan.nodes, verdicts=plan.decision.verdicts)

    async def _under_way(self, execution: str) -> MigrationView | None:
        async with self._database.read() as connection:
            row = await journal.newest_of(connection, execution)
        if row is None or row["ended_ns"]:
            return None
        await self._stories.migrate(execution, row["number"], cause=row["cause"])
        return journal.migration_view(row)

    async def newest(self, execution: str) -> MigrationView | None:
        async with self._database.read() as connection:
            row = await journal.newest_of(connection, execution)
        return journal.migration_view(row) if row else None

    async def drain(
        self, *, cluster: str = "", region: str = "", dry_run: bool = False
    ) -> list[DrainView]:
        """Every cluster is cordoned before the first run leaves, or runs would go round in
        circles."""
        names = await self._named(cluster, region)
        if dry_run:
            return [await self._drain_plan(name) for name in names]
        self._stories.check()
        for name in names:
            await self._clusters.set_scheduling(name, "drained")
        views: list[DrainView] = []
        for name in names:
            async with self._database.write() as connection:
                await connection.execute(exclusive(select(CLUSTER).where(CLUSTER.c.name == name)))
                row = await journal.begin_drain(connection, name)
                view = await journal.drain_view(connection, row)
            await self._stories.drain(name, row["number"])
            views.append(view)
        return views

    async def drained(self, cluster: str) -> DrainView | None:
        async with self._database.read() as connection:
            row = await journal.newest_drain(connection, cluster)
            return await journal.drain_view(connection, row) if row else None

    async def keep_told(self) -> None:
        """Whoever wrote a row may have died before its story began; Temporal may have lost it."""
        while True:
            await asyncio.sleep(TOLD_EVERY_SECONDS)
            try:
                await self.tell_open()
            except Exception:
                log.exception("open moves were not looked at")

    async def tell_open(self) -> None:
        async with self._database.read() as connection:
            moves = await journal.open_migrations(connection, limit=journal.AT_MOST)
            drains = await journal.open_drains(connection)
        for row in moves:
            name, number = row["execution"], row["number"]
            if not await self._stories.migrate(name, number, cause=row["cause"]):
                await self._stopped(name, number)
        for row in drains:
            if not await self._stories.drain(row["cluster"], row["number"]):
                await self._drain_stopped(row["cluster"], row["number"])

    async def _stopped(self, execution: str, number: int) -> None:
        """A story ends its row before it ends itself: this one was ended from outside. The sweeper
        sees to the run."""
        async with self._database.write() as connection:
            noted = await journal.note(
                connection, execution, number, phase="FAILED", reason="stopped", why=STOPPED,
                ended_ns=time.time_ns(),
            )  # fmt: skip
            if noted:
                epoch = (await locked(connection, [execution]))[execution].epoch
                await tell(connection, [Entry(execution, epoch, "stayed", text=STOPPED)])

    async def _drain_stopped(self, cluster: str, number: int) -> None:
        async with self._database.write() as connection:
            await journal.note_drain(
                connection, cluster, number, phase="CANCELLED", ended_ns=time.time_ns(),
                total=await journal.asked(connection, cluster, number),
            )  # fmt: skip

    async def _named(self, cluster: str, region: str) -> list[str]:
        if bool(cluster) == bool(region):
            raise InvalidInput(
                "a drain is of one cluster or of one region", remedy="name one of the two"
            )
        query = select(CLUSTER.c.name).order_by(CLUSTER.c.name)
        query = query.where(CLUSTER.c.name == cluster if cluster else CLUSTER.c.region == region)
        async with self._database.read() as connection:
            names = list((await connection.execute(query)).scalars())
        if not names and cluster:
            raise unknown(cluster)
        if not names:
            raise NotFound(
                f"no cluster is registered in region {region}",
                remedy="whimbrel cluster list shows them",
            )
        return names

    async def _drain_plan(self, cluster: str) -> DrainView:
        owned = select(FENCE.c.execution).where(
            FENCE.c.owner_cluster == cluster, FENCE.c.terminal.is_(False)
        )
        async with self._database.read() as connection:
            names = list((await connection.execute(owned)).scalars())
            runs = await load(connection, names[: journal.AT_MOST])
        views = [await self._stay_or_go(name) for name, _ in sorted(runs.items())]
        going = [view for view in views if view is not None]
        staying = sum(1 for view in going if view.reason)
        return DrainView(
            cluster, 0, "PLAN", total=len(names), staying=staying, migrations=tuple(going)
        )

    async def _stay_or_go(self, execution: str) -> MigrationView | None:
        """None: it has ended, or left, since it was counted."""
        try:
            plan = await self._planning.plan(execution)
        except (Refused, NotFound):
            return None
        view = planned(plan, "", cause="drain")
        stays = why_stays(plan.loaded.requirement.policy, plan.row.owner_cluster)
        if stays is None:
            return view
        return replace(view, to_cluster="", phase="REFUSED", reason=stays[0], why=stays[1])


def planned(plan: Plan, to: str, *, cause: str = "migration") -> MigrationView:
    decision = plan.decision
    refused = "" if decision.cluster else (decision.reason or "no_place")
    return MigrationView(
        execution=plan.row.execution, number=0, cause=cause, from_cluster=plan.row.owner_cluster,
        to_cluster=decision.cluster, phase="REFUSED" if refused else "PREPARE", reason=refused,
        why=why(decision, to), nodes=plan.nodes, verdicts=decision.verdicts,
    )  # fmt: skip
