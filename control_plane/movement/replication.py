"""Copies of what runs make, in the regions that their policies name, all the time.

Runs beside the servers and goes on from rows alone: wanted is whatever has no row. Hands what it
finds to agents of those regions by `copying.py`, newest checkpoints first, and waits longer after
each time that nothing arrived.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from whimbrel.errors import Refused, Unreachable
from whimbrel.residency import allows
from whimbrel.spec import Artifact, Phase, PlacementPolicy

from control_plane import documents
from control_plane.database import Database, table
from control_plane.executions.store import Execution
from control_plane.ledger.replicas import REPLICA, copies_of, keep
from control_plane.ledger.rows import CHECKPOINT, OUTPUT
from control_plane.movement.copying import QUESTION, ask, held_by, lacking
from control_plane.routing.port import Router, Snapshot

log = logging.getLogger(__name__)
EXECUTION = table(Execution)

PAGE = 100
"""Runs looked at in one round."""

AT_ONCE = 4
"""Questions in flight: each keeps up to four objects moving."""

ROUND_SECONDS = 1.0
SLOWEST_SECONDS = 60.0
"""Between two asks for what could not be copied: longer leaves a region that is back unused."""

GIVE_UP_SECONDS = 24 * 3600.0
"""After its end a run's results wait this long for a region that is away."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Artifacts of one run that a region is to have, and the cluster that fetches them."""

    execution: str
    region: str
    cluster: str
    artifacts: Sequence[Artifact]
    allowed: tuple[str, ...]


@dataclass(slots=True)
class Pause:
    """How long a run's copies to one region are let be after nothing of them arrived, and how many
    are then asked for later: those before them may never be readable."""

    seconds: float
    until: float
    later: int


Mark = tuple[int, int, int, frozenset[str]]
"""Newest live output, newest checkpoint, number of copies, regions: what a complete run must differ
in to be looked at again."""


class Replication:
    def __init__(
        self, database: Database, router: Router, *,
        clock: Callable[[], float] = time.monotonic, now_ns: Callable[[], int] = time.time_ns,
    ) -> None:  # fmt: skip
        self._database = database
        self._router = router
        self._clock = clock
        self._now_ns = now_ns
        self._after = ""
        self._pauses: dict[tuple[str, str], Pause] = {}
        self._complete: dict[str, Mark] = {}

    async def run(self) -> None:
        while True:
            try:
                await self.copy_some()
            except Unreachable as error:
                log.debug("replication waits for the router: %s", error.message)
            except Exception:
                log.exception("a round of replication failed")
            await asyncio.sleep(ROUND_SECONDS)

    async def copy_some(self) -> int:
        """One round over the next runs that ask for copies; answers how many copies were made."""
        async with self._database.read() as connection:
            found = await connection.execute(
                select(
                    EXECUTION.c.id, EXECUTION.c.policy, EXECUTION.c.phase, EXECUTION.c.ended_ns
                )
                .where(EXECUTION.c.replicating, EXECUTION.c.id > self._after)
                .order_by(EXECUTION.c.id)
                .limit(PAGE)
            )  # fmt: skip
            runs = found.all()
            marks = await newest(connection, [run.id for run in runs]) if runs else {}
        self._after = runs[-1].id if len(runs) == PAGE else ""
        if not runs:
            return 0
        snapshot = await self._router.snapshot()
        goals = {run.id: targets(documents.policy(run.policy), snapshot) for run in runs}
        now = {name: (*marks[name], frozenset(goal)) for name, goal in goals.items()}
        names = [name for name in goals if self._complete.get(name) != now[name]]
        async with self._database.read() as connection:
            held = await held_by(connection, names) if names else {}
            known = await copies_of(connection, names) if names else {}
        wanted: list[Wanted] = []
        over: list[str] = []
        for name, text, phase, ended_ns in runs:
            complete = True
            for region, cluster in goals[name].items() if name in held else ():
                missing = lacking(held[name], known.get(name, {}), region)
                complete = complete and not missing
                if missing and cluster and (turn := self._turn(name, region)) is not None:
                    at = turn % len(missing)
                    part = (missing[at:] + missing[:at])[:QUESTION]
                    allowed = documents.policy(text).regions
                    wanted.append(Wanted(name, region, cluster, part, allowed))
            if complete:
                self._complete[name] = now[name]
            if self._is_over(Phase(phase), ended_ns, complete=complete):
                over.append(name)
        await self._end(over)
        gate = asyncio.Semaphore(AT_ONCE)
        return sum(await asyncio.gather(*(self._fetch(item, gate) for item in wanted)))

    def _is_over(self, phase: Phase, ended_ns: int, *, complete: bool) -> bool:
        if phase is not Phase.SUCCEEDED:
            return phase.terminal
        return complete or self._now_ns() - ended_ns > GIVE_UP_SECONDS * 1e9

    async def _end(self, names: Sequence[str]) -> None:
        for name in names:
            self._complete.pop(name, None)
        self._pauses = {key: pause for key, pause in self._pauses.items() if key[0] not in names}
        if names:
            async with self._database.write() as connection:
                await connection.execute(
                    update(EXECUTION).where(EXECUTION.c.id.in_(names)).values(replicating=False)
                )

    async def _fetch(self, item: Wanted, gate: asyncio.Semaphore) -> int:
        copied: dict[str, Artifact] = {}
        async with gate:
            try:
                copied = await ask(
                    self._router, item.cluster, item.execution, item.artifacts,
                    allowed=item.allowed,
                )  # fmt: skip
            except (Unreachable, Refused) as error:
                log.info("%s copies nothing of %s: %s", item.cluster, item.execution, error.message)
            async with self._database.write() as connection:
                await keep(connection, item.execution, region=item.region, copied=copied)
        self._note(item, moved=bool(copied))
        return len(copied)

    def _turn(self, execution: str, region: str) -> int | None:
        """Where to begin among what is missing; None: not now."""
        pause = self._pauses.get((execution, region))
        if pause is None:
            return 0
        return pause.later if pause.until <= self._clock() else None

    def _note(self, item: Wanted, *, moved: bool) -> None:
        key = (item.execution, item.region)
        before = self._pauses.pop(key, None)
        if not moved:
            seconds = min(before.seconds * 2 if before else ROUND_SECONDS, SLOWEST_SECONDS)
            later = QUESTION + (before.later if before else 0)
            self._pauses[key] = Pause(seconds, self._clock() + seconds, later)


async def newest(
    connection: AsyncConnection, executions: Sequence[str]
) -> dict[str, tuple[int, int, int]]:
    """Of each run: its newest live output, the time of its newest checkpoint, and how many copies
    there are. No document is read for it."""
    names = list(executions)
    outputs = await connection.execute(
        select(OUTPUT.c.execution, func.max(OUTPUT.c.id))
        .where(OUTPUT.c.execution.in_(names), OUTPUT.c.live)
        .group_by(OUTPUT.c.execution)
    )
    saved = await connection.execute(
        select(CHECKPOINT.c.execution, func.max(CHECKPOINT.c.at_ns))
        .where(CHECKPOINT.c.execution.in_(names))
        .group_by(CHECKPOINT.c.execution)
    )
    copies = await connection.execute(
        select(REPLICA.c.execution, func.count())
        .where(REPLICA.c.execution.in_(names))
        .group_by(REPLICA.c.execution)
    )
    found = [{row[0]: row[1] for row in rows} for rows in (outputs, saved, copies)]
    made, checkpoints, copied = found
    return {
        name: (made.get(name, 0), checkpoints.get(name, 0), copied.get(name, 0)) for name in names
    }


def targets(policy: PlacementPolicy, snapshot: Snapshot) -> dict[str, str]:
    """Regions that are to have copies, each with a cluster that can fetch them now, "" = none."""
    found: dict[str, str] = {}
    for cluster in sorted(snapshot.clusters, key=lambda one: one.name):
        region = cluster.region
        if policy.replicate and allows(policy.replicate, region) and allows(policy.regions, region):
            fetches = cluster.name if cluster.alive and not cluster.suspected else ""
            found[region] = found.get(region) or fetches
    return found
