"""Clusters as people register and schedule them; SQL has the truth, the router gets a copy.

Called by `rpc.py`; opens sessions for the ledger; `keep_synced` tells the router after a change
and every few seconds, so that a router that lost everything knows again.
"""

import asyncio
import json
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, insert, select, update
from whimbrel.errors import Conflict, InvalidInput, NotFound, Unreachable
from whimbrel.spec import canonical

from control_plane.clusters.store import Cluster
from control_plane.database import Database, exclusive, table
from control_plane.ledger.fence import FENCE
from control_plane.ledger.store import EventCursor
from control_plane.routing.port import LiveCluster, Registration, Router

LOG = logging.getLogger(__name__)
CLUSTER = table(Cluster)
CURSOR = table(EventCursor)
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
SCHEDULING = ("active", "cordoned", "drained")
SYNC_SECONDS = 2.0
"""Between two copies to the router. Longer: a router that lost etcd's data places nothing for as
long; shorter: idle traffic."""


@dataclass(frozen=True, slots=True)
class Known:
    """A cluster from SQL, with what the router sees of it (None when it can't be asked)."""

    registration: Registration
    cluster_epoch: int
    owned_executions: int
    registered_ns: int
    live: LiveCluster | None = None


class Clusters:
    def __init__(self, database: Database, router: Router) -> None:
        self._database = database
        self._router = router
        self._changed = asyncio.Event()

    async def register(self, wanted: Registration) -> Known:
        """The same again is a no-op; a cluster never changes its region."""
        for what, value in (("cluster", wanted.name), ("region", wanted.region)):
            if not NAME.fullmatch(value):
                raise InvalidInput(
                    f"{value!r} is no name for a {what}",
                    remedy="use lower-case letters, digits and -, at most 63",
                )
        async with self._database.write() as connection:
            query = exclusive(select(CLUSTER).where(CLUSTER.c.name == wanted.name))
            row = (await connection.execute(query)).mappings().one_or_none()
            if row is None:
                await connection.execute(
                    insert(CLUSTER).values(
                        name=wanted.name,
                        region=wanted.region,
                        labels=canonical(dict(wanted.labels)),
                        scheduling=checked(wanted.scheduling or "active"),
                        cluster_epoch=0,
                        incarnation="",
                        registered_ns=time.time_ns(),
                    )
                )
            elif row["region"] != wanted.region:
                raise Conflict(
                    f"cluster {wanted.name} is registered in region {row['region']}",
                    remedy="register it under another name",
                )
            else:
                await connection.execute(
                    update(CLUSTER)
                    .where(CLUSTER.c.name == wanted.name)
                    .values(labels=canonical(dict(wanted.labels)))
                )
        return await self._after_change(wanted.name)

    async def set_scheduling(self, name: str, scheduling: str) -> Known:
        async with self._database.write() as connection:
            changed = await connection.execute(
                update(CLUSTER)
                .where(CLUSTER.c.name == name)
                .values(scheduling=checked(scheduling))
                .returning(CLUSTER.c.name)
            )
            if changed.first() is None:
                raise unknown(name)
        return await self._after_change(name)

    async def _after_change(self, name: str) -> Known:
        self._changed.set()
        try:
            await self._sync()
        except Unreachable:
            LOG.warning("the router does not know yet", extra={"cluster": name})
        return await self.get(name)

    async def get(self, name: str) -> Known:
        for known in await self.list():
            if known.registration.name == name:
                return known
        raise unknown(name)

    async def list(self) -> list[Known]:
        owned = (
            select(FENCE.c.owner_cluster, func.count().label("n"))
            .where(FENCE.c.terminal.is_(False), FENCE.c.owner_cluster != "")
            .group_by(FENCE.c.owner_cluster)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(select(CLUSTER).order_by(CLUSTER.c.name))).mappings()
            rows = rows.all()
            counts = {row[0]: row[1] for row in await connection.execute(owned)}
        live: dict[str, LiveCluster] = {}
        try:
            live = {item.name: item for item in (await self._router.snapshot()).clusters}
        except Unreachable:
            LOG.warning("the router can't be asked who is alive")
        return [
            Known(
                registration=registration(row),
                cluster_epoch=row["cluster_epoch"],
                owned_executions=counts.get(row["name"], 0),
                registered_ns=row["registered_ns"],
                live=live.get(row["name"]),
            )
            for row in rows
        ]

    async def open_session(self, name: str, *, incarnation: str, region: str) -> tuple[int, str]:
        """The next cluster epoch, one a session, and the scheduling state."""
        async with self._database.write() as connection:
            query = exclusive(select(CLUSTER).where(CLUSTER.c.name == name))
            row = (await connection.execute(query)).mappings().one_or_none()
            if row is None:
                raise unknown(name)
            if row["region"] != region:
                raise InvalidInput(
                    f"cluster {name} is registered in region {row['region']}, not {region}",
                    remedy="correct the agent's region, or register the cluster under another name",
                )
            epoch = row["cluster_epoch"] + 1
            await connection.execute(
                update(CLUSTER)
                .where(CLUSTER.c.name == name)
                .values(cluster_epoch=epoch, incarnation=incarnation)
            )
            await connection.execute(
                insert(CURSOR).values(cluster=name, cluster_epoch=epoch, cursor=0)
            )
        return epoch, row["scheduling"]

    async def keep_synced(self) -> None:
        while True:
            try:
                await self._sync()
            except Unreachable as error:
                LOG.debug("the router has no copy of the registrations: %s", error)
            except Exception:
                LOG.exception("registrations were not copied to the router")
            try:
                await asyncio.wait_for(self._changed.wait(), SYNC_SECONDS)
            except TimeoutError:
                continue
            self._changed.clear()

    async def _sync(self) -> None:
        async with self._database.read() as connection:
            rows = (await connection.execute(select(CLUSTER))).mappings().all()
        await self._router.sync([registration(row) for row in rows])


def registration(row: Mapping[Any, Any]) -> Registration:
    return Registration(
        name=row["name"],
        region=row["region"],
        labels=tuple(sorted(json.loads(row["labels"]).items())),
        scheduling=row["scheduling"],
    )


def checked(scheduling: str) -> str:
    if scheduling not in SCHEDULING:
        raise InvalidInput(
            f"{scheduling!r} is no scheduling state", remedy=f"use one of {', '.join(SCHEDULING)}"
        )
    return scheduling


def unknown(name: str) -> NotFound:
    return NotFound(f"no cluster {name} is registered", remedy="whimbrel cluster register NAME")
