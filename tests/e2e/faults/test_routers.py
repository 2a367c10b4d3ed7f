"""Routers restart, go away for a while, or judge the same loss; a second agent of one cluster."""

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.federation import Federation, eventually

TTL = 2.0


@pytest.mark.fault(13)
def test_routers_restarted_one_after_the_other(federation: Federation) -> None:
    waiting = federation.launch("rolling-before")
    waiting.at_gate()
    sessions = federation.sessions()
    launched = []
    for name in ("router", "router-2"):
        old = federation.signal(name, signal.SIGTERM)
        launched.append(federation.launch(f"rolling-{name}"))
        eventually(f"{name} is started again", lambda n=name, p=old: federation.restarted(n, p))
        launched[-1].at_gate()
    for run in (waiting, *launched):
        run.open()
        run.await_phase("SUCCEEDED")
        assert run.causes() == ["launch"]
        assert (run.starts("first"), run.starts("gate"), run.starts("last")) == (1, 1, 1)
    assert federation.sessions() == sessions, "a session was lost"


@pytest.mark.fault(14)
def test_every_router_away_for_two_ttls(federation: Federation) -> None:
    run = federation.launch("no-routers")
    run.at_gate()
    supervisor = federation.signal("supervisor", signal.SIGSTOP)  # it would start them again
    for name in ("router", "router-2"):
        federation.signal(name, signal.SIGKILL)
    time.sleep(2 * TTL)  # the fault itself
    os.kill(supervisor, signal.SIGCONT)
    later = federation.launch("routers-back")
    later.at_gate()
    for one in (run, later):
        one.open()
        one.await_phase("SUCCEEDED")
        assert one.causes() == ["launch"], "an outage of our own moved work"


@pytest.mark.fault(15)
def test_two_routers_that_judge_one_loss_tell_one_story(federation: Federation) -> None:
    runs = [federation.launch(f"judged-{i}") for i in range(4)]
    regions = [run.at_gate() for run in runs]
    lost = max(set(regions), key=regions.count)
    moved = [run for run, region in zip(runs, regions, strict=True) if region == lost]
    for run in moved:
        run.await_committed(1)
    session = federation.sessions()[lost]
    federation.signal(f"agent/{lost}", signal.SIGKILL)
    for run in moved:
        run.at_gate(starts=2)
    for run in runs:
        run.open()
        run.await_phase("SUCCEEDED")
    with federation.database() as database:
        told = database.execute(
            "SELECT taken FROM failover_summary WHERE cluster = ? AND cluster_epoch = ?",
            (lost, session),
        ).fetchall()
    assert [row["taken"] for row in told] == [len(moved)]
    for run in moved:
        assert run.causes() == ["launch", "failover"]
        assert run.starts("first") == 1


@pytest.mark.fault(19)
def test_a_second_agent_of_one_cluster(fresh: Callable[..., Federation], tmp_path: Path) -> None:
    """As from a cloned machine: the same settings, a folder of its own."""
    federation = fresh()
    run = federation.launch("cloned")
    region = run.at_gate()
    run.await_committed(1)
    session = federation.sessions()[region]
    pid = federation.pid(f"agent/{region}")
    environment = dict(
        item.split("=", 1) for item in Path(f"/proc/{pid}/environ").read_text().split("\0") if item
    )
    environment["WHIMBREL_AGENT_DATA_DIR"] = str(tmp_path / "clone")
    command = Path(f"/proc/{pid}/cmdline").read_text().strip("\0").split("\0")
    with (tmp_path / "clone.log").open("wb") as log:
        clone = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        eventually("the clone has the session", lambda: federation.sessions()[region] > session)
        eventually("the first agent stops", lambda: f"agent/{region}" not in running(federation))
        assert clone.poll() is None, shlex.join(command)
        run.open()
        run.await_phase("SUCCEEDED")
        assert len(run.row("SELECT 1 FROM node_output WHERE execution = :x")) == 3
        assert federation.cluster(region)["state"] == "ALIVE"
    finally:
        clone.terminate()
        clone.wait(timeout=30)


def running(federation: Federation) -> set[str]:
    return {name for name, pid in federation.sandbox["processes"].items() if pid}
