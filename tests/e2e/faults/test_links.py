"""Links that lose packets one way, both ways, now and then, or for a while."""

import time

import pytest

from tests.e2e.faults.network import Network, Way
from tests.e2e.federation import Federation, Run, eventually

Linked = tuple[Federation, Network]
TTL = 5.0
"""Of the preset `lan`: the commands between a cut and its end take a second each."""


def links(federation: Federation, region: str) -> list[str]:
    return federation.sandbox["regions"][region]["links"]


def cut(linked: Linked, region: str, way: Way) -> None:
    federation, network = linked
    for address in links(federation, region):
        network.drop(address, way)


def arrives_elsewhere(run: Run, region: str) -> None:
    assert run.at_gate(starts=2) != region
    run.open()
    run.await_phase("SUCCEEDED")
    assert run.causes() == ["launch", "failover"]
    assert run.starts("first") == 1
    # The lost region may have gone on alone behind its cut; what counts is what was committed.
    assert len(run.row("SELECT 1 FROM node_output WHERE execution = :x")) == 3


@pytest.mark.parametrize(
    "way",
    [
        pytest.param("to", marks=pytest.mark.fault(6)),
        pytest.param("from", marks=pytest.mark.fault(7)),
    ],
)
def test_a_link_that_is_cut_one_way(linked: Linked, way: Way, record_property) -> None:  # type: ignore[no-untyped-def]
    run = linked[0].launch(f"one-way-{way}")
    region = run.at_gate()
    run.await_committed(1)
    began = time.time()
    cut(linked, region, way)
    run.at_gate(starts=2)
    record_property("detect_seconds", round(run.told("fenced", after=began) - began, 2))
    arrives_elsewhere(run, region)


@pytest.mark.fault(8)
def test_a_link_that_loses_packets_moves_nothing(linked: Linked) -> None:
    """One in ten each way: heartbeats come late, at worst by some of TCP's pauses."""
    federation, network = linked
    run = federation.launch("lossy")
    region = run.at_gate()
    sessions = federation.sessions()
    for address in links(federation, region):
        network.lose(address, "to", percent=10)
        network.lose(address, "from", percent=10)
    time.sleep(3 * TTL)  # the fault itself
    network.heal()
    run.open()
    run.await_phase("SUCCEEDED")
    assert run.causes() == ["launch"]
    assert federation.sessions() == sessions, "a session was lost"


@pytest.mark.fault(10)
def test_connections_that_are_half_open_lose_no_event(linked: Linked) -> None:
    """Both ways are silent for less than the session lasts; then every packet of the old
    connections is answered by a reset, as by a gateway that has forgotten them."""
    federation, _ = linked
    run = federation.launch("half-open")
    region = run.at_gate()
    sessions = federation.sessions()
    federation.sandbox_command("cut", region)
    run.open()
    time.sleep(1.0)  # the fault itself
    federation.sandbox_command("heal", region)
    run.await_phase("SUCCEEDED")
    assert run.causes() == ["launch"]
    assert federation.sessions() == sessions
    assert (run.starts("first"), run.starts("gate"), run.starts("last")) == (1, 1, 1)


@pytest.mark.fault(9)
def test_a_link_that_flaps_gets_no_new_work(linked: Linked, record_property) -> None:  # type: ignore[no-untyped-def]
    federation, _ = linked
    run = federation.launch("flapping")
    region = run.at_gate()
    run.await_committed(1)
    before = federation.sessions()[region]
    for times in range(1, 4):
        federation.sandbox_command("cut", region)
        eventually(
            f"{region} is lost for the {times}. time",
            lambda: federation.cluster(region)["state"] == "LOST",
        )
        federation.sandbox_command("heal", region)
    later = [federation.launch(f"flapped-{i}") for i in range(3)]
    for one in later:
        assert one.at_gate() != region, "work was sent to a link that flaps"
        one.open()
        one.await_phase("SUCCEEDED")
    run.open()
    run.await_phase("SUCCEEDED")
    failovers = run.causes().count("failover")
    record_property("losses", federation.sessions()[region] - before)
    record_property("failovers", failovers)
    assert failovers == 1, "the run was sent back and moved again"
