"""etcd loses a leader, its quorum, its past, or stands still: nothing in it is a fact."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.faults.members import Members, members
from tests.e2e.federation import Federation, Run, eventually

TTL = 2.0


@pytest.fixture
def three(tmp_path: Path, fresh: Callable[..., Federation]) -> Iterator[tuple[Federation, Members]]:
    """A federation over three members; the members outlive it."""
    folder = tmp_path / "members"
    folder.mkdir()
    with members(folder) as made:
        federation = fresh(environment={"WHIMBREL_ROUTER_ETCD": made.endpoints}, routers=2)
        yield federation, made
        federation.stop()


def arrives_in_place(run: Run) -> None:
    run.open()
    run.await_phase("SUCCEEDED")
    assert run.causes() == ["launch"], "an outage of etcd moved work"
    assert (run.starts("first"), run.starts("gate"), run.starts("last")) == (1, 1, 1)


@pytest.mark.fault(20, 22)
def test_a_leader_is_killed_and_then_the_quorum(three: tuple[Federation, Members]) -> None:
    federation, etcd = three
    run = federation.launch("members-lost")
    run.at_gate()
    sessions = federation.sessions()
    first = etcd.leader()
    etcd.kill(first)
    second = etcd.leader()
    assert second != first
    time.sleep(2 * TTL)  # a false loss would show by now
    assert federation.sessions() == sessions, "a change of leaders ended a session"
    etcd.kill(second)
    time.sleep(2 * TTL)  # the fault itself: no quorum
    etcd.start(first)
    etcd.start(second)
    etcd.leader()
    arrives_in_place(run)
    later = federation.launch("after-the-quorum")
    later.at_gate()
    arrives_in_place(later)


@pytest.mark.fault(21)
def test_etcd_stands_still_for_longer_than_a_session(federation: Federation) -> None:
    run = federation.launch("etcd-frozen")
    run.at_gate()
    pid = federation.signal("etcd", signal.SIGSTOP)
    time.sleep(2 * TTL)  # the fault itself
    os.kill(pid, signal.SIGCONT)
    arrives_in_place(run)


@pytest.mark.fault(23)
def test_a_watch_that_was_compacted_away_is_read_anew(three: tuple[Federation, Members]) -> None:
    """The routers stand still while keys change and the past is dropped."""
    federation, etcd = three
    run = federation.launch("compacted")
    region = run.at_gate()
    run.await_committed(1)
    stopped = [federation.signal(name, signal.SIGSTOP) for name in ("router", "router-2")]
    revision = etcd.change(times=50)
    etcd.compact(revision)
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    federation.signal(f"agent/{region}", signal.SIGKILL)
    assert run.at_gate(starts=2) != region, "the loss was not seen"
    run.open()
    run.await_phase("SUCCEEDED")


@pytest.mark.fault(24)
def test_etcd_restored_from_an_older_backup(fresh: Callable[..., Federation]) -> None:
    federation = fresh()
    old = federation.launch("before-the-backup")
    old.at_gate()
    supervisor = federation.signal("supervisor", signal.SIGSTOP)  # it would start etcd in between
    pid = federation.signal("etcd", signal.SIGKILL)
    shutil.copytree(federation.data / "etcd", federation.data / "etcd.backup")
    os.kill(supervisor, signal.SIGCONT)
    eventually("etcd is started again", lambda: federation.restarted("etcd", pid))
    new = federation.launch("after-the-backup")
    region = new.at_gate()
    new.await_committed(1)
    federation.signal(f"agent/{region}", signal.SIGKILL)
    new.at_gate(starts=2)
    epochs = {run.name: run.epoch() for run in (old, new)}
    supervisor = federation.signal("supervisor", signal.SIGSTOP)
    pid = federation.signal("etcd", signal.SIGKILL)
    shutil.rmtree(federation.data / "etcd")
    (federation.data / "etcd.backup").rename(federation.data / "etcd")
    os.kill(supervisor, signal.SIGCONT)
    eventually("etcd is started again", lambda: federation.restarted("etcd", pid))
    for run in (old, new):
        run.open()
        run.await_phase("SUCCEEDED")
        assert run.epoch() > epochs[run.name], "an epoch went back"
        assert len(run.row("SELECT 1 FROM node_output WHERE execution = :x AND live")) == 3
