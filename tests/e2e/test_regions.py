"""Regions that die, freeze or are cut off: the run arrives elsewhere, once."""

import os
import signal
import time
from collections.abc import Callable

import pytest

from tests.e2e.federation import Federation, eventually


def test_a_run_arrives_undisturbed(federation: Federation) -> None:
    run = federation.launch("undisturbed")
    run.at_gate()
    run.open()
    run.await_phase("SUCCEEDED")
    execution = run.execution
    assert execution["outputs"] == {"o0": 42}
    assert [node["phase"] for node in execution["nodes"]] == ["SUCCEEDED"] * 3
    verdicts = execution["placements"][0]["verdicts"]
    assert {verdict["cluster"] for verdict in verdicts} == set(federation.sandbox["regions"])
    assert run.causes() == ["launch"]


@pytest.mark.fault(1)
def test_sigkill_of_an_agent_moves_its_run_and_repeats_nothing(federation: Federation) -> None:
    run = federation.launch("agent-killed")
    region = run.at_gate()
    run.await_committed(1)
    federation.signal(f"agent/{region}", signal.SIGKILL)
    assert run.at_gate(starts=2) != region
    run.open()
    run.await_phase("SUCCEEDED")
    assert run.causes() == ["launch", "failover"]
    assert (run.starts("first"), run.starts("gate"), run.starts("last")) == (1, 2, 1)
    assert run.execution["outputs"] == {"o0": 42}


@pytest.mark.fault(1)
def test_a_lost_region_costs_only_what_lay_in_it(federation: Federation) -> None:
    run = federation.launch("region-lost", workflow="files")
    region = run.at_gate()
    run.await_committed(2)
    federation.sandbox_command("kill", region)
    assert run.at_gate(starts=2) != region
    run.open()
    run.await_phase("SUCCEEDED")
    assert run.execution["outputs"] == {"o0": 36}
    assert (run.starts("write"), run.starts("count"), run.starts("total")) == (2, 1, 1)


@pytest.mark.fault(2)
def test_a_frozen_agent_that_wakes_up_late_changes_nothing(federation: Federation) -> None:
    run = federation.launch("frozen")
    region = run.at_gate()
    run.await_committed(1)
    federation.signal(f"agent/{region}", signal.SIGSTOP)
    run.at_gate(starts=2)
    run.open()
    run.await_phase("SUCCEEDED")
    before = run.row("SELECT * FROM node_output WHERE execution = :x ORDER BY id")
    federation.signal(f"agent/{region}", signal.SIGCONT)
    session = "SELECT cluster_epoch FROM cluster WHERE name = :r"

    def epoch() -> int:
        with federation.database() as database:
            return database.execute(session, {"r": region}).fetchone()[0]

    old = epoch()
    eventually("the woken agent has a new session", lambda: epoch() > old or epoch() > 1)
    after = run.row("SELECT * FROM node_output WHERE execution = :x ORDER BY id")
    assert [tuple(row) for row in before] == [tuple(row) for row in after]
    assert run.causes() == ["launch", "failover"]


@pytest.mark.fault(3)
def test_half_a_ttl_of_silence_is_nothing(federation: Federation) -> None:
    run = federation.launch("paused-briefly")
    region = run.at_gate()
    federation.signal(f"agent/{region}", signal.SIGSTOP)
    time.sleep(1.0)  # the fault itself: half of the TTL of the preset
    federation.signal(f"agent/{region}", signal.SIGCONT)
    run.open()
    run.await_phase("SUCCEEDED")
    assert run.causes() == ["launch"]
    assert run.starts("gate") == 1


@pytest.mark.fault(5)
def test_a_region_cut_off_is_replaced_and_its_late_result_refused(federation: Federation) -> None:
    run = federation.launch("cut")
    region = run.at_gate()
    run.await_committed(1)
    federation.sandbox_command("cut", region)
    assert run.at_gate(starts=2) != region
    run.open()
    run.await_phase("SUCCEEDED")
    federation.sandbox_command("heal", region)
    assert run.causes() == ["launch", "failover"]
    assert len(run.row("SELECT 1 FROM node_output WHERE execution = :x")) == 3


def test_an_agent_that_restarts_in_time_goes_on_with_its_work(federation: Federation) -> None:
    run = federation.launch("agent-restarted")
    region = run.at_gate()
    old = federation.signal(f"agent/{region}", signal.SIGKILL)
    federation.sandbox_command("heal", region)
    assert federation.pid(f"agent/{region}") != old
    run.open()
    run.await_phase("SUCCEEDED")
    assert run.execution["outputs"] == {"o0": 42}
    assert (run.starts("first"), run.starts("last")) == (1, 1)


def test_a_region_that_dies_while_no_router_lives_is_left_too(
    fresh: Callable[..., Federation],
) -> None:
    """The router that comes back has never seen the session that is over."""
    federation = fresh()
    run = federation.launch("nobody-saw")
    region = run.at_gate()
    run.await_committed(1)
    router = federation.signal("router", signal.SIGSTOP)
    federation.signal(f"agent/{region}", signal.SIGKILL)
    time.sleep(4.0)  # the fault itself: twice the TTL, so that every key has gone
    os.kill(router, signal.SIGKILL)
    assert run.at_gate(starts=2) != region
    run.open()
    run.await_phase("SUCCEEDED")
    assert run.causes() == ["launch", "failover"]
