"""Copies of what a run has made, brought to another region: by policy all the time, for a planned
move just before it.

`Replication` runs beside the servers and goes on from rows alone: wanted is whatever has no row.
`copy_to` is called by the story of a move. Both ask an agent of the target region, through the
router, to fetch the bytes; where the run's data may not lie nothing is copied.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from whimbrel.errors import NotFound, Refused, Unreachable
from whimbrel.residency import allows
from whimbrel.spec import Artifact, Phase, PlacementPolicy

from control_plane import documents
from control_plane.database import Database, table
from control_plane.executions.store import Execution
from control_plane.ledger.replicas import Copies, copies_of, keep
from control_plane.ledger.rows import CHECKPOINT, OUTPUT
from control_plane.routing.port import Router, Snapshot

log = logging.getLogger(__name__)
EXECUTION = table(Execution)

QUESTION = 16
"""Artifacts of one question to an agent. More delays the row of the first by the last, fewer asks
more often."""

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
class Copied:
    """`left` could not be copied now: nobody reached it, or it did not arrive in time."""

    copied: int
    bytes: int
    left: int


async def held_by(
    connection: AsyncConnection, executions: Sequence[str]
) -> dict[str, list[Artifact]]:
    """What runs have made and still need, checkpoints first: they are what is lost soonest."""
    names = list(executions)
    held: dict[str, dict[str, Artifact]] = {name: {} for name in names}
    live = await connection.execute(
        select(
            OUTPUT.c.execution, OUTPUT.c.node, OUTPUT.c.artifacts, OUTPUT.c.offloaded
        ).where(OUTPUT.c.execution.in_(names), OUTPUT.c.live)
    )  # fmt: skip
    outputs = live.all()
    done = {(execution, node) for execution, node, *_ in outputs}
    saved = await connection.execute(
        select(CHECKPOINT.c.execution, CHECKPOINT.c.node, CHECKPOINT.c.artifact)
        .where(CHECKPOINT.c.execution.in_(names))
        .order_by(CHECKPOINT.c.at_ns.desc())
    )
    for execution, node, text in saved:
        if (artifact := documents.artifact(text)) and (execution, node) not in done:
            held[execution][artifact.uri] = artifact
    for execution, _, artifacts, offloaded in outputs:
        made = [*documents.artifacts(artifacts), *filter(None, [documents.artifact(offloaded)])]
        held[execution] |= {artifact.uri: artifact for artifact in made}
    return {name: list(artifacts.values()) for name, artifacts in held.items()}


def lacking(held: Sequence[Artifact], known: Copies, region: str) -> list[Artifact]:
    """What does not lie in that region yet."""
    return [
        artifact
        for artifact in held
        if artifact.region != region
        and all(copy.region != region for copy in known.get(artifact.uri, ()))
    ]


async def copy_to(
    database: Database, router: Router, execution: str, *, cluster: str, region: str
) -> Copied:
    """All that the run needs, brought to the region of that cluster. Refused where its data may
    not lie; Unreachable when nobody answers: what has arrived until then is kept."""
    async with database.read() as connection:
        found = await connection.execute(
            select(EXECUTION.c.policy).where(EXECUTION.c.id == execution)
        )
        policy = found.scalar_one_or_none()
        if policy is None:
            raise NotFound(f"there is no execution {execution}")
        held = (await held_by(connection, [execution]))[execution]
        known = (await copies_of(connection, [execution])).get(execution, {})
    allowed = documents.policy(policy).regions
    if not allows(allowed, region):
        raise Refused(
            f"the data of {execution} must stay in {', '.join(allowed)}; {region} is none of them",
            remedy="choose a cluster in an allowed region",
        )
    missing = lacking(held, known, region)
    count = size = 0
    for start in range(0, len(missing), QUESTION):
        part = missing[start : start + QUESTION]
        copied = await ask(router, cluster, execution, part, allowed=allowed)
        async with database.write() as connection:
            await keep(connection, execution, region=region, copied=copied)
        count += len(copied)
        size += sum(artifact.bytes for artifact in copied.values())
    return Copied(count, size, len(missing) - count)


async def ask(
    router: Router, cluster: str, execution: str, artifacts: Sequence[Artifact], *,
    allowed: tuple[str, ...],
) -> dict[str, Artifact]:  # fmt: skip
    """What lies there afterwards. The bytes go with the word where they may lie."""
    project, domain, _ = execution.split("/", 2)
    wanted = [
        replace(artifact, allowed_regions=artifact.allowed_regions or allowed)
        for artifact in artifacts
    ]
    copied = await router.copy(cluster, wanted, folder=f"{project}/{domain}")
    by_uri = {artifact.uri: artifact for artifact in artifacts}
    return {
        uri: copy
        for uri, copy in copied.items()
        if uri in by_uri and copy.sha256 == by_uri[uri].sha256
    }


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
            names = [run.id for run in runs]
            held = await held_by(connection, names) if names else {}
            known = await copies_of(connection, names) if names else {}
        self._after = names[-1] if len(names) == PAGE else ""
        if not names:
            return 0
        snapshot = await self._router.snapshot()
        wanted: list[Wanted] = []
        over: list[str] = []
        for name, text, phase, ended_ns in runs:
            policy = documents.policy(text)
            complete = True
            for region, cluster in targets(policy, snapshot).items():
                missing = lacking(held[name], known.get(name, {}), region)
                complete = complete and not missing
                if missing and cluster and (turn := self._turn(name, region)) is not None:
                    at = turn % len(missing)
                    part = (missing[at:] + missing[:at])[:QUESTION]
                    wanted.append(Wanted(name, region, cluster, part, policy.regions))
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


def targets(policy: PlacementPolicy, snapshot: Snapshot) -> dict[str, str]:
    """Regions that are to have copies, each with a cluster that can fetch them now, "" = none."""
    found: dict[str, str] = {}
    for cluster in sorted(snapshot.clusters, key=lambda one: one.name):
        region = cluster.region
        if policy.replicate and allows(policy.replicate, region) and allows(policy.regions, region):
            fetches = cluster.name if cluster.alive and not cluster.suspected else ""
            found[region] = found.get(region) or fetches
    return found
