"""What a run has made and still needs, brought to the region of one cluster.

`copy_to` is called by the story of a planned move, `ask` and the rest by `replication.py`. An agent
of the target region is asked, through the router, to fetch the bytes; where the run's data may not
lie nothing is copied.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection
from whimbrel.errors import NotFound, Refused
from whimbrel.residency import allows
from whimbrel.spec import Artifact

from control_plane import documents
from control_plane.database import Database, table
from control_plane.executions.store import Execution
from control_plane.ledger.replicas import Copies, copies_of, keep
from control_plane.ledger.rows import CHECKPOINT, OUTPUT
from control_plane.routing.port import Router

EXECUTION = table(Execution)

QUESTION = 16
"""Artifacts of one question to an agent. More delays the row of the first by the last, fewer asks
more often."""


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
