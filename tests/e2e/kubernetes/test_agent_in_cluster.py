"""The agent as a pod of the cluster it drives: applied, killed, and alone with its region.

A cluster of its own beside a region of processes: the Deployment of infra/kubernetes by an overlay,
a claim on a disk, an account with a token that the cluster gives. Nothing of it runs on this side.
"""

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.checker import check
from tests.e2e.federation import Federation, eventually
from tests.e2e.kubernetes.agent_in_cluster import (
    InCluster,
    links,
    overlay,
    prepare,
    resident_mib,
)
from tests.e2e.kubernetes.cluster import Cluster
from tests.e2e.kubernetes.gates import serve_gates
from tests.e2e.kubernetes.network import GATEWAY
from tests.e2e.kubernetes.runs import PATIENCE, Cloud, await_no_pods, pods
from tests.e2e.kubernetes.state import Say

INSIDE, HOME = "gamma", "home"
IDLE_MIB = 160
"""What an agent without work may take, with room for another interpreter or library."""


@dataclass(slots=True)
class World:
    cloud: Cloud
    cluster: Cluster
    agent: InCluster
    say: Say


@pytest.fixture(scope="module")
def world(machine: Say, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    cluster, folder = Cluster(INSIDE, say=machine), tmp_path_factory.mktemp("inside")
    federation = Federation(folder, options=["--preset", "wan", "--region", HOME])
    agent = InCluster(cluster)
    try:
        cluster.up()
        prepare(cluster)
        federation.start()
        federation.whimbrel("cluster", "register", INSIDE)
        routers = federation.sandbox["router"].split(",")
        with serve_gates(GATEWAY) as gates, links(routers) as doors:
            made = overlay(
                folder / INSIDE, cluster, routers=doors,
                lost_seconds="3", linger_seconds="1", grace_seconds="3", orphan_seconds="10",
            )  # fmt: skip
            began = time.monotonic()
            agent.apply(made)
            machine(f"{INSIDE}: agent ready {time.monotonic() - began:.1f} s after apply")
            inside = World(Cloud(federation, gates, folder / "fuse"), cluster, agent, machine)
            eventually("the cluster's room is known", lambda: _seen(inside)["allocatable"]["cpu"])
            yield inside
    finally:
        federation.stop()
        cluster.down()


@pytest.fixture
def inside(world: World) -> Iterator[World]:
    """The history is checked at the end."""
    yield world
    with world.cloud.federation.database() as database:
        check(database)


def test_what_is_applied_runs_tasks_in_pods(inside: World) -> None:
    memory = resident_mib(inside.agent.pid())
    inside.say(f"{INSIDE}: {memory:.0f} MiB of the idle agent")
    assert memory < IDLE_MIB
    run = inside.cloud.launch("inside", "files", "--region", INSIDE, "--region", HOME)
    run.await_said("gate")
    assert run.execution["cluster"] == INSIDE
    assert len(_at_gate(inside)) == 1
    run.open()
    assert run.await_end() == "SUCCEEDED"
    assert run.execution["outputs"] == {"o0": 21 * 50_000 + 21}
    await_no_pods(inside.cluster)
    assert inside.agent.restarts == 0


def test_a_killed_agent_comes_back_and_takes_its_pod_as_its_own(inside: World) -> None:
    run = inside.cloud.launch("orphaned", "steps", "--region", INSIDE, "--region", HOME)
    run.await_said("gate")
    run.running_on("gate")
    before = _at_gate(inside)
    restarts, began = inside.agent.restarts, time.monotonic()
    os.kill(inside.agent.pid(), signal.SIGKILL)
    eventually("the kubelet starts it again", lambda: inside.agent.restarts == restarts + 1)
    inside.agent.await_ready()
    inside.say(f"{INSIDE}: agent ready {time.monotonic() - began:.1f} s after SIGKILL")
    assert _at_gate(inside) == before, "it is the same pod"
    run.open()
    assert run.await_end() == "SUCCEEDED"
    assert run.said("gate") == 1
    assert run.node("gate")["attempt"] == 1
    assert run.causes() == ["launch"]
    await_no_pods(inside.cluster)


@pytest.mark.fault(5)
def test_an_isolated_region_is_taken_over_and_its_agent_comes_back_by_itself(
    inside: World,
) -> None:
    """Two runs: one ends while the region is away, the other is still at its gate elsewhere when
    the region is back."""
    cluster, launch = inside.cluster, inside.cloud.launch
    ended, waits = (
        launch(name, "steps", "--region", INSIDE, "--region", HOME) for name in ("ended", "waits")
    )
    for run in (ended, waits):
        run.await_said("gate")
        run.await_committed(1)
    assert len(_at_gate(inside)) == 2
    pid, began = inside.agent.pid(), time.monotonic()
    cluster.isolate()
    try:
        ended.await_said("gate", count=2)
        inside.say(f"{HOME}: first note {time.monotonic() - began:.1f} s after {INSIDE} was cut")
        waits.await_said("gate", count=2)
        for run in (ended, waits):
            assert run.execution["cluster"] == HOME
            newest = inside.cloud.gates.said(run.name, "gate")[-1]
            assert (newest.region, newest.epoch) == (HOME, run.epoch())
        ended.open()
        assert ended.await_end() == "SUCCEEDED"
        outputs = _outputs(inside, ended.name)
    finally:
        cluster.join_again()
    eventually("the agent is heard again", lambda: _seen(inside)["state"] == "ALIVE",
               deadline=PATIENCE)  # fmt: skip
    await_no_pods(cluster)
    assert inside.agent.pid() == pid, "it is the same process: nobody had to start it again"
    waits.open()
    assert waits.await_end() == "SUCCEEDED"
    for run in (ended, waits):
        assert run.execution["outputs"] == {"o0": 42}
        assert len(run.causes()) == 2
        assert run.said("first") == 1, "what was committed before is not run again"
    assert {note.region for note in inside.cloud.gates.said(waits.name, "last")} == {HOME}
    # `last` of the other may have run in both: idempotent work goes on in a region that is away,
    # and its gate was open as soon as it could be seen. It was told to nobody.
    assert _outputs(inside, ended.name) == outputs
    again = launch("again", "steps", "--region", INSIDE)
    again.open()
    assert again.await_end() == "SUCCEEDED"


def _at_gate(world: World) -> set[str]:
    """The uids of pods of `gate`; those of other tasks have ended and linger a little."""
    found = [pod["metadata"] for pod in pods(world.cluster)]
    return {metadata["uid"] for metadata in found if "gate" in metadata["name"]}


def _seen(world: World) -> dict[str, Any]:
    """The cluster, as the global endpoint knows it."""
    return json.loads(
        world.cloud.federation.whimbrel("cluster", "get", INSIDE, "-o", "json").stdout
    )


def _outputs(world: World, name: str) -> list[tuple[object, ...]]:
    """As the ledger has them."""
    with world.cloud.federation.database() as database:
        rows = database.execute(
            "SELECT * FROM node_output WHERE execution = ? ORDER BY id",
            (f"default/development/{name}",),
        )
        return [tuple(row) for row in rows]
