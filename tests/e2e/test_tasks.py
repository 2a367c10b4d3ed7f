"""Tasks that end badly, and runs that are cancelled: the owner is named, nothing runs on."""

import signal

import pytest

from tests.e2e.federation import Federation


@pytest.mark.parametrize(
    ("workflow", "word"),
    [
        ("raising", "the lake is frozen"),
        ("growing", "memory"),
        ("hanging", "timeout"),
        ("vanishing", "7"),
    ],
)
def test_a_failing_task_fails_its_run_with_owner_and_reason(
    federation: Federation, workflow: str, word: str
) -> None:
    run = federation.launch(f"broken-{workflow}", program="broken", workflow=workflow)
    run.await_phase("FAILED")
    error = run.execution["error"]
    assert error["owner"] == "user"
    assert error["node"]
    assert word in error["message"].lower()


def test_cancel_of_a_running_execution_stops_its_task(federation: Federation) -> None:
    run = federation.launch("cancelled-running")
    run.at_gate()
    federation.whimbrel("execution", "cancel", run.name)
    run.await_phase("ABORTED")
    run.open()
    assert run.starts("last") == 0


def test_cancel_of_a_waiting_execution(federation: Federation) -> None:
    for region in federation.sandbox["regions"]:
        federation.whimbrel("cluster", "cordon", region)
    try:
        run = federation.launch("cancelled-waiting")
        run.await_phase("WAITING")
        assert run.execution["reason"]
        federation.whimbrel("execution", "cancel", run.name)
        run.await_phase("ABORTED")
    finally:
        for region in federation.sandbox["regions"]:
            federation.whimbrel("cluster", "uncordon", region)
    assert run.journal() == []


def test_cancel_while_the_agent_is_away(federation: Federation) -> None:
    run = federation.launch("cancelled-away")
    region = run.at_gate()
    federation.signal(f"agent/{region}", signal.SIGSTOP)
    try:
        federation.whimbrel("execution", "cancel", run.name)
        run.await_phase("ABORTED")
    finally:
        federation.signal(f"agent/{region}", signal.SIGCONT)
    run.open()
    assert run.phase() == "ABORTED"
    assert not run.row("SELECT 1 FROM node_output WHERE execution = :x AND node LIKE '%last%'")


def test_waiting_runs_start_when_there_is_room(federation: Federation) -> None:
    for region in federation.sandbox["regions"]:
        federation.whimbrel("cluster", "cordon", region)
    run = federation.launch("waits")
    run.await_phase("WAITING")
    run.open()
    for region in federation.sandbox["regions"]:
        federation.whimbrel("cluster", "uncordon", region)
    run.await_phase("SUCCEEDED")
