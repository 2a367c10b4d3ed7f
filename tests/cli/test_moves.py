"""How planned moves and drains are shown and followed: from the wire to what a person reads."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from whimbrel.cli.app import main
from whimbrel.wire.v1 import (
    cluster_pb2,
    cluster_pb2_grpc,
    execution_pb2,
    execution_pb2_grpc,
    placement_pb2,
)

KEY = execution_pb2.ExecutionKey(project="default", domain="development", name="digits-1")


def migration(phase: str, *, number: int = 1, to: str = "beta", **more: Any) -> Any:
    return execution_pb2.Migration(
        key=KEY, number=number, cause="migration", from_cluster="alpha", to_cluster=to,
        phase=phase, **more,
    )  # fmt: skip


PLAN = migration(
    "PREPARE",
    number=0,
    nodes=[
        execution_pb2.NodePlan(node="load-0", what="kept", why="committed", bytes=2048),
        execution_pb2.NodePlan(node="train-1", what="resumed", why="checkpoint of 3 s ago"),
    ],
)


class Executions(execution_pb2_grpc.ExecutionsServicer):
    """Answers one phase after the other to who looks."""

    def __init__(self, *phases: Any) -> None:
        self.phases = list(phases)
        self.asked: list[Any] = []

    def Migrate(self, request: Any, context: Any) -> Any:
        self.asked.append(request)
        return PLAN if request.dry_run else self.phases[0]

    def Get(self, request: Any, context: Any) -> Any:
        newest = self.phases.pop(0) if len(self.phases) > 1 else self.phases[0]
        return execution_pb2.Execution(
            key=KEY, phase=execution_pb2.RUNNING, migration=newest, cluster="alpha"
        )


class Clusters(cluster_pb2_grpc.ClustersServicer):
    def __init__(self, *drains: Any) -> None:
        self.drains = list(drains)

    def Drain(self, request: Any, context: Any) -> Any:
        assert (request.cluster, request.region) in (("alpha", ""), ("", "north"))
        return cluster_pb2.DrainReply(drains=self.drains[:1])

    def GetDrain(self, request: Any, context: Any) -> Any:
        newest = self.drains.pop(0) if len(self.drains) > 1 else self.drains[0]
        return cluster_pb2.DrainReply(drains=[newest])

    def List(self, request: Any, context: Any) -> Any:
        return cluster_pb2.ListClustersReply(
            clusters=[
                cluster_pb2.Cluster(
                    registration=placement_pb2.Registration(name=name, region="north"),
                    live=placement_pb2.LiveCluster(alive=name == "alpha"),
                    owned_executions=3,
                )
                for name in ("alpha", "beta")
            ]
        )


@contextmanager
def endpoint(
    executions: Executions | None = None, clusters: Clusters | None = None
) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2))
    if executions:
        execution_pb2_grpc.add_ExecutionsServicer_to_server(executions, server)
    if clusters:
        cluster_pb2_grpc.add_ClustersServicer_to_server(clusters, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


def test_a_plan_says_what_becomes_of_each_node(capsys: pytest.CaptureFixture[str]) -> None:
    with endpoint(Executions(migration("PREPARE"))) as at:
        code = main(["execution", "migrate", "digits-1", "--dry-run", "--endpoint", at])
    shown = capsys.readouterr().out
    assert code == 0
    assert "digits-1: alpha -> beta" in shown
    assert all(word in shown for word in ("kept", "2.0 kB", "resumed", "checkpoint of 3 s ago"))


def test_a_move_is_followed_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    phases = [
        migration("PREPARE"),
        migration("QUIESCE", why="alpha was asked to let go"),
        migration("RESUMED", ended_ns=5, pause_ns=1_500_000_000),
    ]
    served = Executions(*phases)
    with endpoint(served) as at:
        code = main(["execution", "migrate", "digits-1", "--to", "beta", "--endpoint", at])
    shown = capsys.readouterr().err
    assert code == 0
    assert served.asked[0].to == "beta"
    assert "QUIESCE      alpha was asked to let go" in shown
    assert "digits-1 goes on in beta, paused for 1.5 s" in shown


def test_a_refused_move_says_why_and_exits_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    verdict = placement_pb2.Verdict(cluster="beta", rule="region", why="region beta is none of eu")
    refused = migration("REFUSED", to="", why="no cluster takes it", verdicts=[verdict], ended_ns=1)
    with endpoint(Executions(refused)) as at:
        code = main(["execution", "migrate", "digits-1", "--endpoint", at])
    shown = capsys.readouterr()
    assert code == 1
    assert "region beta is none of eu" in shown.out
    assert "did not move: no cluster takes it" in shown.err


def test_a_detached_move_answers_at_once_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    with endpoint(Executions(migration("PREPARE"))) as at:
        arguments = ["execution", "migrate", "digits-1", "--detach", "-o", "json"]
        code = main([*arguments, "--endpoint", at])
    said = json.loads(capsys.readouterr().out)
    assert code == 0
    assert (said["from"], said["to"], said["phase"], said["number"]) == (
        "alpha", "beta", "PREPARE", 1,
    )  # fmt: skip


def test_a_drain_tells_its_counts_and_what_stays(capsys: pytest.CaptureFixture[str]) -> None:
    begun = cluster_pb2.Drain(cluster="alpha", number=1, phase="RUNNING", total=3)
    stays = migration("REFUSED", to="", why="it is pinned", ended_ns=1)
    done = cluster_pb2.Drain(
        cluster="alpha", number=1, phase="DONE", total=3, moved=2, staying=1, ended_ns=9,
        migrations=[stays],
    )  # fmt: skip
    with endpoint(clusters=Clusters(begun, done)) as at:
        code = main(["cluster", "drain", "alpha", "--endpoint", at])
    shown = capsys.readouterr()
    assert code == 1  # it is not empty
    assert "alpha: 0 of 3 moved" in shown.err
    assert "alpha: DONE, 2 of 3 moved, 1 stay" in shown.out
    assert "it is pinned" in shown.out


def test_a_region_is_its_clusters(capsys: pytest.CaptureFixture[str]) -> None:
    empty = cluster_pb2.Drain(cluster="alpha", number=2, phase="DONE", ended_ns=9)
    with endpoint(clusters=Clusters(empty)) as at:
        listed = main(["region", "list", "-o", "json", "--endpoint", at])
        said = json.loads(capsys.readouterr().out)
        drained = main(["region", "drain", "north", "--endpoint", at])
    assert (listed, drained) == (0, 0)
    assert said == [{"region": "north", "clusters": ["alpha", "beta"], "alive": 1, "executions": 6}]
