"""Every mutating message of an agent, made from the wire contract, replayed when it is stale.

A new rpc or a new kind of event that this file does not know fails here, so that none comes
without its check.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from whimbrel.errors import Fenced
from whimbrel.spec import digest
from whimbrel.wire.v1 import ledger_pb2, spec_pb2

from control_plane.executions.codec import view_to_wire
from control_plane.ledger.rpc import LedgerServicer
from tests.control_plane.world import World, chain, output

pytestmark = pytest.mark.anyio

SERVICE = ledger_pb2.DESCRIPTOR.services_by_name["Ledger"]
READS = {"FetchSpec", "FetchBundle"}
SESSIONS = {"OpenSession", "ReportLost"}
"""They change no run: the first counts sessions, the second asks a story that checks for itself."""

EVENTS = [field.name for field in ledger_pb2.Event.DESCRIPTOR.oneofs_by_name["body"].fields]


def filled(message: Any) -> Any:
    """Plausible contents for every field, so that nothing is refused for another reason."""
    for field in message.DESCRIPTOR.fields:
        value: Any = getattr(message, field.name)
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            if not field.is_repeated:
                value.SetInParent()
                filled(value)
        elif field.is_repeated:
            value.append("file:///x")
        elif field.type == FieldDescriptor.TYPE_STRING:
            text = {"node": "a", "owner": "user", "phase": "RUNNING"}.get(field.name, "{}")
            setattr(message, field.name, text)
        elif field.type != FieldDescriptor.TYPE_BOOL:
            setattr(message, field.name, 1)
    return message


def stale() -> Iterator[tuple[str, int, str, int]]:
    """What is not (epoch 2, west, session 2)."""
    yield "an older epoch", 1, "west", 2
    yield "an older session", 2, "west", 1
    yield "the former owner", 1, "east", 1
    yield "another cluster at this epoch", 2, "east", 1


async def moved(world: World) -> str:
    """A run that east had at epoch 1 and west's second session has at epoch 2."""
    await world.join("east", "west")
    run = await world.running()
    await world.send(run, output("b"), ledger_released())
    world.router.up = ["west"]
    await world.dispatch([run], cause="migration")
    assert await world.session("west") == 2
    assert (await world.claim(run, 2, "west", 2)).answer.claimed
    await world.delivery.deliver()
    return run


def ledger_released() -> Any:
    from control_plane.ledger.events import Released

    return Released()


def test_every_rpc_is_known() -> None:
    known = READS | SESSIONS | {"Claim", "Commit"}
    assert {method.name for method in SERVICE.methods} == known
    for name in known - READS - SESSIONS:
        fields = SERVICE.methods_by_name[name].input_type.fields_by_name
        assert {"cluster", "cluster_epoch"} <= set(fields)
    for message in (ledger_pb2.Event, ledger_pb2.Wish):
        assert {"execution", "epoch"} <= set(message.DESCRIPTOR.fields_by_name)


@pytest.mark.parametrize("kind", EVENTS)
async def test_i3_a_stale_event_is_fenced_and_changes_no_row(world: World, kind: str) -> None:
    run = await moved(world)
    servicer = LedgerServicer(world.ledger)
    before = await world.rows()
    for why, epoch, cluster, session in stale():
        event = ledger_pb2.Event(execution=run, epoch=epoch)
        getattr(event, kind).SetInParent()
        filled(getattr(event, kind))
        number = world.sent.get((cluster, session), 0) + 1
        world.sent[cluster, session] = number
        reply = await servicer.Commit(
            ledger_pb2.CommitRequest(
                cluster=cluster, cluster_epoch=session, first=number, events=[event]
            ),
            None,
        )
        [exception] = reply.exceptions
        assert (exception.result, exception.current_epoch) == (ledger_pb2.FENCED, 2), why
        assert await world.rows() == before, why


@pytest.mark.parametrize("kind", EVENTS)
async def test_the_same_event_under_the_current_epoch_is_taken(world: World, kind: str) -> None:
    """Else the test above would prove nothing."""
    run = await moved(world)
    before = await world.rows()
    event = ledger_pb2.Event(execution=run, epoch=2)
    getattr(event, kind).SetInParent()
    filled(getattr(event, kind))
    reply = await LedgerServicer(world.ledger).Commit(
        ledger_pb2.CommitRequest(cluster="west", cluster_epoch=2, first=1, events=[event]), None
    )
    if kind == "succeeded":
        assert [item.result for item in reply.exceptions] == [ledger_pb2.INCOMPLETE]
    else:
        assert not reply.exceptions
        assert await world.rows() != before


async def test_i3_a_stale_claim_is_refused_and_changes_no_row(world: World) -> None:
    run = await moved(world)
    servicer = LedgerServicer(world.ledger)
    before = await world.rows()
    for why, epoch, cluster, session in stale():
        request = ledger_pb2.ClaimRequest(
            cluster=cluster,
            cluster_epoch=session,
            wishes=[ledger_pb2.Wish(execution=run, epoch=epoch)],
        )
        [reply] = [page async for page in servicer.Claim(request, None)]
        assert not reply.claimed, why
        assert reply.current_epoch == 2, why
        assert await world.rows() == before, why


async def test_a_session_that_never_was_commits_nothing(world: World) -> None:
    run = await moved(world)
    event = ledger_pb2.Event(execution=run, epoch=2, released=ledger_pb2.Released())
    request = ledger_pb2.CommitRequest(cluster="nowhere", cluster_epoch=9, first=1, events=[event])
    before = await world.rows()
    with pytest.raises(Fenced):
        await LedgerServicer(world.ledger).Commit(request, None)
    assert await world.rows() == before


async def test_i5_a_claim_comes_in_pages(world: World) -> None:
    await world.join("east")
    names = [f"n{index}" for index in range(700)]
    run = await world.running(chain(*names))
    await world.send(run, *(output(name, str(i)) for i, name in enumerate(names[:600])))
    request = ledger_pb2.ClaimRequest(
        cluster="east", cluster_epoch=1, wishes=[ledger_pb2.Wish(execution=run, epoch=1)]
    )
    pages = [page async for page in LedgerServicer(world.ledger).Claim(request, None)]
    assert [page.more for page in pages] == [True, False]
    assert {out.node for page in pages for out in page.outputs} == set(names[:600])
    assert pages[0].spec_digest == digest(chain(*names))


async def test_the_specification_is_fetched_by_its_digest(world: World) -> None:
    await world.launch()
    servicer = LedgerServicer(world.ledger)
    wanted = digest(chain("a", "b", "c"))
    reply = await servicer.FetchSpec(ledger_pb2.FetchSpecRequest(digest=wanted), None)
    assert isinstance(reply.spec, spec_pb2.WorkflowSpec)
    assert [node.id for node in reply.spec.nodes] == ["a", "b", "c"]


async def test_a_run_on_the_wire(world: World) -> None:
    await world.join("east")
    run = await world.running()
    await world.send(run, output("a"))
    message = view_to_wire(await world.view(run))
    assert (message.key.name, message.workflow.name) == ("run", "flows.chain")
    assert [node.phase for node in message.nodes] == ["SUCCEEDED", "QUEUED", "QUEUED"]
    assert [entry.kind for entry in message.timeline][-1] == "claimed"
