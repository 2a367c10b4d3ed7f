"""Planned moves of real tasks: checkpoints handed over, exclusive work, sources that die."""

import json
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.federation import Federation, Run, eventually


def launched(federation: Federation, name: str, workflow: str) -> Run:
    """Counting, somewhere."""
    folder = federation.folder / name
    run = federation.launch(name, program="saving", workflow=workflow, folder=str(folder))
    eventually(f"{name} counts", lambda: len(run.journal()) > 5)
    running = "SELECT 1 FROM node_state WHERE execution = :x AND phase = 'RUNNING'"
    eventually(f"the ledger knows that {name} runs", lambda: run.row(running))
    return run


def place(run: Run) -> str:
    return run.journal()[-1][3]


def migrate(run: Run, *options: str) -> dict[str, Any]:
    done = run.federation.whimbrel("execution", "migrate", run.name, *options, "-o", "json")
    return json.loads(done.stdout)


def never_at_once(run: Run) -> bool:
    """No line of an earlier epoch comes after the first of a later one."""
    lines = sorted(run.journal(), key=lambda line: int(line[5]))
    epochs = [int(line[2]) for line in lines]
    return epochs == sorted(epochs)


@pytest.mark.parametrize("workflow", ["saving", "alone"])
def test_a_checkpoint_goes_from_one_to_the_next_and_on(
    federation: Federation, workflow: str
) -> None:
    run = launched(federation, f"around-{workflow}", workflow)
    plan = migrate(run, "--dry-run")
    assert [node["what"] for node in plan["nodes"]] == ["run again"], "nothing is saved yet"
    been = [place(run)]
    for _ in range(2):
        target = next(name for name in federation.sandbox["regions"] if name not in been)
        moved = migrate(run, "--to", target)
        assert (moved["phase"], moved["to"]) == ("RESUMED", target)
        eventually(f"it counts in {target}", lambda t=target: place(run) == t)
        been.append(target)
    run.open()
    run.await_phase("SUCCEEDED")
    counts = [int(line[4]) for line in run.journal()]
    assert counts == list(range(1, len(counts) + 1)), "something was counted twice, or lost"
    assert run.causes() == ["launch", "migration", "migration"]
    assert never_at_once(run)


@pytest.mark.fault(39)
@pytest.mark.parametrize("after", ["PREPARE", "QUIESCE"])
def test_the_source_dies_while_it_is_left(fresh: Callable[..., Federation], after: str) -> None:
    """Its task takes no notice of being asked to move, so the move waits in each of its phases."""
    federation = fresh()
    run = federation.launch("left")
    source = run.at_gate()
    run.await_committed(1)
    federation.whimbrel("execution", "migrate", "left", "--detach")
    eventually(
        f"the move is past {after}",
        lambda: (
            (rows := run.row("SELECT phase FROM migration WHERE execution = :x"))
            and (after == "PREPARE" or rows[0]["phase"] not in ("PREPARE", ""))
        ),
    )
    federation.sandbox_command("kill", source)
    assert run.at_gate(starts=2) != source
    run.open()
    run.await_phase("SUCCEEDED")
    ended = eventually(
        "the move is over",
        lambda: run.row("SELECT phase FROM migration WHERE execution = :x AND ended_ns > 0"),
    )
    assert ended[0]["phase"] in ("TAKEN_OVER", "RESUMED", "ENDED", "FAILED")
    assert len(run.row("SELECT 1 FROM node_output WHERE execution = :x AND live")) == 3
    assert run.starts("gate") == 2


@pytest.mark.fault(1, 5)
@pytest.mark.parametrize("how", ["frozen", "cut"])
def test_exclusive_work_waits_until_its_old_copy_is_dead(federation: Federation, how: str) -> None:
    run = launched(federation, f"alone-{how}", "alone")
    source = place(run)
    if how == "frozen":
        federation.signal(f"agent/{source}", signal.SIGSTOP)
    else:
        federation.sandbox_command("cut", source)
    eventually("it counts elsewhere", lambda: place(run) != source)
    if how == "frozen":
        federation.signal(f"agent/{source}", signal.SIGCONT)
    run.open()
    run.await_phase("SUCCEEDED")
    assert never_at_once(run)
    assert run.causes() == ["launch", "failover"]
