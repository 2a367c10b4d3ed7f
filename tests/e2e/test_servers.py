"""Our own servers die or are away during a run: it finishes, nothing repeats or fails over."""

import os
import shutil
import signal
import time
from collections.abc import Callable

import pytest

from tests.e2e.federation import Federation, eventually


def finish(run, *, epoch: int) -> None:  # type: ignore[no-untyped-def]
    run.open()
    run.await_phase("SUCCEEDED")
    assert run.causes() == ["launch"], "an outage of our own caused a failover"
    assert run.epoch() == epoch + 1
    assert (run.starts("first"), run.starts("gate"), run.starts("last")) == (1, 1, 1)


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(("control-plane",), id="control-plane"),
        pytest.param(("router",), id="router", marks=pytest.mark.fault(12)),
        pytest.param(("router", "router-2"), id="routers", marks=pytest.mark.fault(12)),
        pytest.param(("control-plane", "router", "router-2"), id="centre"),
        pytest.param(("etcd",), id="etcd"),
        pytest.param(("temporal",), id="temporal", marks=pytest.mark.fault(29)),
    ],
)
def test_sigkill_of_servers_during_a_run(federation: Federation, names: tuple[str, ...]) -> None:
    run = federation.launch("killed-" + "-".join(names).replace("/", "-"))
    run.at_gate()
    epoch = run.epoch()
    federation.kill_and_await_restart(*names)
    finish(run, epoch=epoch)


def test_etcd_wiped_during_a_run_costs_a_reconnect_not_a_fact(federation: Federation) -> None:
    run = federation.launch("etcd-wiped")
    run.at_gate()
    epoch = run.epoch()
    pid = federation.signal("etcd", signal.SIGSTOP)
    shutil.rmtree(federation.data / "etcd")
    os.kill(pid, signal.SIGKILL)
    eventually("etcd is started again", lambda: federation.restarted("etcd", pid))
    finish(run, epoch=epoch)


@pytest.mark.fault(14, 28)
def test_a_region_computes_on_while_the_centre_is_away(fresh: Callable[..., Federation]) -> None:
    federation = fresh()
    run = federation.launch("centre-away")
    run.at_gate()
    epoch = run.epoch()
    supervisor = federation.signal("supervisor", signal.SIGSTOP)  # it would start them again
    for name in ("control-plane", "router"):
        federation.signal(name, signal.SIGKILL)
    run.open()
    eventually("the region goes on alone", lambda: len(run.journal()) == 3)
    time.sleep(60)  # the fault itself: the centre is away for a minute
    os.kill(supervisor, signal.SIGCONT)
    finish(run, epoch=epoch)


@pytest.mark.parametrize(
    "point",
    [
        pytest.param("dispatch.after_place", marks=pytest.mark.fault(16)),
        pytest.param("dispatch.after_fence", marks=pytest.mark.fault(17)),
        pytest.param("dispatch.after_assign", marks=pytest.mark.fault(18)),
    ],
)
def test_sigkill_between_the_steps_of_a_dispatch(
    fresh: Callable[..., Federation], tmp_path, point: str
) -> None:
    crashed = tmp_path / "crashed"
    federation = fresh(
        environment={"WHIMBREL_CRASH_AT": point, "WHIMBREL_CRASH_ONCE": str(crashed)}
    )
    run = federation.launch("crash")
    run.open()
    run.await_phase("SUCCEEDED")
    assert crashed.exists(), "the crash point was never reached"
    assert len(run.row("SELECT 1 FROM node_output WHERE execution = :x")) == 3


@pytest.mark.fault(30)
@pytest.mark.parametrize(
    "point", ["takeover.after_fence", "takeover.after_declare", "takeover.after_dispatch"]
)
def test_sigkill_between_the_steps_of_a_takeover(
    fresh: Callable[..., Federation], tmp_path, point: str
) -> None:
    crashed = tmp_path / "crashed"
    federation = fresh(
        environment={"WHIMBREL_CRASH_AT": point, "WHIMBREL_CRASH_ONCE": str(crashed)}
    )
    run = federation.launch("crash")
    region = run.at_gate()
    run.await_committed(1)
    federation.signal(f"agent/{region}", signal.SIGKILL)
    assert run.at_gate(starts=2) != region
    run.open()
    run.await_phase("SUCCEEDED")
    assert crashed.exists(), "the crash point was never reached"
    assert run.starts("first") == 1
    assert run.execution["outputs"] == {"o0": 42}
