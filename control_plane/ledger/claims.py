"""A session claims what it is to run; the answer is everything that is already known of it.

Called by `service.py` with the open transaction: ownership, phase and what is read all belong to
it, so every live output reaches the next owner.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from whimbrel.residency import allows
from whimbrel.spec import Owner, Phase, Want

from control_plane import documents
from control_plane.clusters.store import Cluster
from control_plane.database import table
from control_plane.executions.lifecycle import move
from control_plane.executions.store import Execution
from control_plane.executions.timeline import Entry, tell
from control_plane.ledger.events import Output, Saved
from control_plane.ledger.fence import ClaimAnswer, claim
from control_plane.ledger.replicas import Copy, best, copies_of
from control_plane.ledger.rows import CHECKPOINT, OUTPUT, STATE, output_of

CLUSTER, EXECUTION = table(Cluster), table(Execution)
HOSTS = 3
"""Hosts of a node that a new owner is told to avoid. More: on a small cluster nothing is left."""


@dataclass(frozen=True, slots=True)
class Tries:
    """`avoid` are hosts of the claiming cluster on which the platform broke attempts, newest
    first."""

    node: str
    attempts: int
    user_failures: int
    system_failures: int
    avoid: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Claimed:
    """The answer for one execution; refused ones carry only `answer`. `replicas` are read in place
    of their originals; `regions` says where the run's data may lie; `offload`: not here, so values
    and error texts stay where they are made."""

    answer: ClaimAnswer
    spec_digest: str = ""
    inputs: str = ""
    traceparent: str = ""
    mode: str = ""
    outputs: tuple[Output, ...] = ()
    checkpoints: tuple[Saved, ...] = ()
    tries: tuple[Tries, ...] = ()
    replicas: tuple[Copy, ...] = ()
    regions: tuple[str, ...] = ()
    offload: bool = False


async def claim_all(
    connection: AsyncConnection,
    wishes: Sequence[tuple[str, int]],
    *,
    cluster: str,
    cluster_epoch: int,
    region: str = "",
) -> list[Claimed]:
    """`region` is where this control plane keeps what it is told, "" = it may be told anything."""
    answers = await claim(connection, wishes, cluster=cluster, cluster_epoch=cluster_epoch)
    granted = sorted({answer.execution for answer in answers if answer.claimed})
    if not granted:
        return [Claimed(answer) for answer in answers]
    found = await connection.execute(select(EXECUTION).where(EXECUTION.c.id.in_(granted)))
    runs = {row["id"]: row for row in found.mappings()}
    # Claimed only to be let go of: its move goes on.
    leaving = {
        answer.execution for answer in answers if answer.row and answer.row.want is Want.QUIESCE
    }
    await connection.execute(
        update(EXECUTION)
        .where(EXECUTION.c.id == bindparam("x"))
        .values(
            phase=bindparam("v_phase"),
            reason=bindparam("v_reason"),
            started_ns=bindparam("v_started"),
        ),
        [
            {
                "x": name,
                "v_phase": move(run["phase"], Phase.MOVING if name in leaving else Phase.RUNNING),
                "v_reason": run["reason"] if name in leaving else "",
                "v_started": run["started_ns"] or time.time_ns(),
            }
            for name, run in runs.items()
        ],
    )
    await tell(
        connection,
        [
            Entry(answer.execution, answer.epoch, "claimed", cluster, f"session {cluster_epoch}")
            for answer in answers
            if answer.claimed
        ],
    )
    known = await Known.read(connection, granted, cluster=cluster)
    regions = {name: documents.policy(run["policy"]).regions for name, run in runs.items()}
    return [
        Claimed(
            answer,
            spec_digest=runs[answer.execution]["spec_digest"],
            inputs=runs[answer.execution]["inputs"],
            traceparent=runs[answer.execution]["traceparent"],
            mode=runs[answer.execution]["mode"],
            outputs=tuple(known.outputs.get(answer.execution, ())),
            checkpoints=tuple(known.checkpoints.get(answer.execution, ())),
            tries=tuple(known.tries.get(answer.execution, ())),
            replicas=tuple(known.replicas.get(answer.execution, ())),
            regions=regions[answer.execution],
            offload=bool(region) and not allows(regions[answer.execution], region),
        )
        if answer.claimed
        else Claimed(answer)
        for answer in answers
    ]


@dataclass(frozen=True, slots=True)
class Known:
    outputs: dict[str, list[Output]]
    checkpoints: dict[str, list[Saved]]
    tries: dict[str, list[Tries]]
    replicas: dict[str, list[Copy]]

    @staticmethod
    async def read(connection: AsyncConnection, names: Sequence[str], *, cluster: str) -> "Known":
        known = Known({}, {}, {}, {})
        done: set[tuple[str, str]] = set()
        found = await connection.execute(
            select(OUTPUT).where(OUTPUT.c.execution.in_(names), OUTPUT.c.live)
        )
        for row in found.mappings():
            known.outputs.setdefault(row["execution"], []).append(output_of(row))
            done.add((row["execution"], row["node"]))
        found = await connection.execute(
            select(CHECKPOINT).where(CHECKPOINT.c.execution.in_(names))
        )
        for row in found.mappings():
            artifact = documents.artifact(row["artifact"])
            if artifact is not None and (row["execution"], row["node"]) not in done:
                known.checkpoints.setdefault(row["execution"], []).append(
                    Saved(row["node"], row["attempt"], artifact, row["at_ns"])
                )
        found = await connection.execute(select(STATE).where(STATE.c.execution.in_(names)))
        for row in found.mappings():
            if (row["execution"], row["node"]) not in done:
                known.tries.setdefault(row["execution"], []).append(
                    Tries(
                        row["node"],
                        row["attempt"],
                        row["user_failures"],
                        row["system_failures"],
                        to_avoid(row) if row["cluster"] == cluster else (),
                    )
                )
        await known._read_copies(connection, names, cluster=cluster)
        return known

    async def _read_copies(
        self, connection: AsyncConnection, names: Sequence[str], *, cluster: str
    ) -> None:
        """Of what the answer names, the copies that this cluster is to read instead."""
        copies = await copies_of(connection, names)
        if not copies:
            return
        found = await connection.execute(select(CLUSTER.c.region).where(CLUSTER.c.name == cluster))
        region = found.scalar_one_or_none() or ""
        for name, by_uri in copies.items():
            held = [saved.artifact for saved in self.checkpoints.get(name, ())]
            for output in self.outputs.get(name, ()):
                held += [*output.artifacts, *filter(None, [output.offloaded])]
            wanted = {artifact.uri for artifact in held}
            self.replicas[name] = [
                copy
                for uri in sorted(wanted & by_uri.keys())
                if (copy := best(by_uri[uri], region)) is not None
            ]


def to_avoid(row: Mapping[Any, Any]) -> tuple[str, ...]:
    """Host names mean nothing in another cluster; the newest failure comes before what its attempt
    was kept away from already."""
    avoided = documents.names(row["avoided"])
    failure = documents.failure(row["error"])
    if failure is None or failure.owner is not Owner.SYSTEM or not row["host"]:
        return avoided
    return (row["host"], *(host for host in avoided if host != row["host"]))[:HOSTS]
