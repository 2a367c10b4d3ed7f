"""An agent that is told to let go of its runs when it is stopped: they go on elsewhere."""

import os
import signal
from collections.abc import Callable

from tests.e2e.federation import Federation, eventually


def test_a_stopped_agent_lets_go_of_what_it_holds_first(fresh: Callable[..., Federation]) -> None:
    environment = {"WHIMBREL_AGENT_DRAIN_SECONDS": "60", "WHIMBREL_AGENT_QUIESCE_SECONDS": "1"}
    federation = fresh(environment=environment)
    run = federation.launch("drained")
    region = run.at_gate()
    run.await_committed(1)
    [name] = [one for one in federation.sandbox["processes"] if one.endswith(region)]
    pid = federation.signal(name, signal.SIGTERM)
    run.told("released")
    [said] = run.row("SELECT text FROM timeline WHERE execution = :x AND kind = 'released'")
    assert said["text"] == "its agent stops"
    eventually("the agent ends", lambda: not _alive(pid))
    run.at_gate(2)
    run.open()
    run.await_phase("SUCCEEDED")
    assert (run.starts("first"), run.starts("gate"), run.starts("last")) == (1, 2, 1)
    assert "takeover" not in run.causes()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
