"""A run that its cluster has no room for: it waits, goes elsewhere, and comes back if it must."""

import pytest
from sqlalchemy import text
from whimbrel.spec import Mode, Owner, Phase, PlacementPolicy

from control_plane.executions import no_room
from control_plane.executions.no_room import recent
from control_plane.executions.sweeper import SECOND
from control_plane.ledger.events import Body, Released, Result, Status, Unreachable
from control_plane.settings import Settings
from tests.control_plane.world import World, output

pytestmark = pytest.mark.anyio

FULL = Released("unschedulable", "no room for b: 0/3 nodes are available: 3 Insufficient cpu.")


async def test_it_waits_with_the_cluster_s_own_words(world: World) -> None:
    await world.join("east")
    run = await world.running()
    assert (await world.send(run, output("a"), FULL)).verdicts == ()
    view = await world.view(run)
    assert (view.phase, view.reason, view.cluster) == (Phase.WAITING, "unschedulable", "")
    last = view.timeline[-1]
    assert (last.kind, last.cluster, last.text) == ("released", "east", FULL.message)
    assert not (await world.claim(run, 1, "east", 1)).answer.claimed
    assert [node.phase for node in view.nodes] == ["SUCCEEDED", "QUEUED", "QUEUED"]


async def test_it_is_placed_elsewhere_and_goes_on_there(world: World) -> None:
    await world.join("east", "west")
    run = await world.running()
    await world.send(run, output("a"), FULL)
    await world.delivery.deliver()
    await world.dispatcher.drain()
    view = await world.view(run)
    assert (view.phase, view.cluster, view.epoch) == (Phase.ASSIGNED, "west", 2)
    assert view.placements[-1].cause == "fallback"
    claimed = await world.claim(run, 2, "west", 1)
    assert [one.node for one in claimed.outputs] == ["a"]
    world.router.up = ["west", "east"]
    await world.send(run, FULL, epoch=2, cluster="west")
    await world.dispatch([run])
    assert (await world.view(run)).reason == "unschedulable"
    world.later(no_room.MOMENT_SECONDS)
    await world.dispatch([run])
    assert (await world.view(run)).cluster == "west", "both had no room: either is as good"


async def test_the_time_over_it_may_go_back(world: World) -> None:
    await world.join("east", "west")
    run = await world.running()
    await world.send(run, FULL)
    world.later(Settings.model_fields["no_room_seconds"].default + 1)
    await world.dispatch([run])
    assert (await world.view(run)).cluster == "east"


async def test_nobody_else_takes_it_so_it_goes_back(world: World) -> None:
    await world.join("east")
    run = await world.running()
    await world.send(run, FULL)
    await world.dispatch([run])
    view = await world.view(run)
    assert (view.phase, view.reason) == (Phase.WAITING, "unschedulable"), "not at once"
    before = await world.rows()
    await world.dispatch([run])
    assert await world.rows() == before
    world.later(no_room.MOMENT_SECONDS)
    await world.dispatch([run])
    view = await world.view(run)
    assert (view.phase, view.cluster, view.epoch) == (Phase.ASSIGNED, "east", 2)
    assert view.placements[-1].cause == "fallback"
    assert (await world.claim(run, 2, "east", 1)).answer.claimed


async def test_nobody_at_all_is_told_once_and_looked_at_like_any_other(world: World) -> None:
    await world.join("east")
    run = await world.running()
    await world.send(run, FULL)
    world.router.up = []
    world.later(no_room.MOMENT_SECONDS)
    await world.dispatch([run])
    view = await world.view(run)
    assert (view.phase, view.reason) == (Phase.WAITING, "no_cluster_alive")
    before = await world.rows()
    await world.dispatch([run])
    assert await world.rows() == before


async def test_a_lost_answer_is_given_again_and_marks_nothing_twice(world: World) -> None:
    await world.join("east")
    run = await world.running()
    await world.send(run, output("a"), FULL)
    before = await world.rows()
    again = await world.send(run, output("a"), FULL, first=1)
    assert again.verdicts == ()
    assert await world.rows() == before
    late = await world.send(run, FULL)
    assert [verdict.result for verdict in late.verdicts] == [Result.FENCED]
    assert await world.rows() == before


async def test_an_agent_that_stops_does_not_get_it_back_at_once(world: World) -> None:
    await world.join("east", "west")
    run = await world.running()
    await world.send(run, Released("drain", "its agent stops"))
    await world.dispatch([run])
    view = await world.view(run)
    assert (view.cluster, view.placements[-1].cause) == ("west", "fallback")
    await world.claim(run, 2, "west", 1)
    world.router.up = ["east"]
    await world.send(run, Released("drain", "its agent stops"), epoch=2, cluster="west")
    await world.dispatch([run])
    assert (await world.view(run)).reason == "drain"
    world.later(no_room.MOMENT_SECONDS)
    await world.dispatch([run])
    assert (await world.view(run)).cluster == "east"


async def test_a_plain_release_keeps_nobody_away(world: World) -> None:
    await world.join("east", "west")
    run = await world.running()
    await world.send(run, Released())
    assert (await world.view(run)).reason == "released"
    await world.dispatch([run])
    view = await world.view(run)
    assert (view.cluster, view.placements[-1].cause) == ("east", "launch")


async def test_max_wait_counts_from_the_first_time_there_was_no_room(world: World) -> None:
    await world.join("east")
    run = await world.launch(policy=PlacementPolicy(mode=Mode.IDEMPOTENT, max_wait_seconds=30))
    await world.dispatcher.drain()

    async def bounced(epoch: int, *before: Body) -> None:
        assert (await world.claim(run, epoch, "east", 1)).answer.claimed
        await world.send(run, *before, FULL, epoch=epoch)

    await bounced(1)
    [first] = [row for row in await waiting(world) if row]
    world.later(20)
    await world.sweeper.sweep()
    await world.sweeper.waiting.look()
    await world.dispatch([run])
    await bounced(2)
    assert await waiting(world) == [first], "it has not run, so it waits still"
    world.later(40)
    await world.dispatch([run])
    await bounced(3, Status("a", 1, "RUNNING", 1))
    assert (await waiting(world))[0] > first, "something of it ran: it waits anew"
    world.later(20)
    await world.sweeper.sweep()
    await world.sweeper.waiting.look()
    await world.dispatch([run])
    await bounced(4)
    world.later(40)
    await world.sweeper.sweep()
    await world.sweeper.waiting.look()
    view = await world.view(run)
    assert view.phase is Phase.FAILED
    assert view.error is not None
    assert (view.error.owner, view.error.kind) == (Owner.CONFIG, "max_wait")


async def test_max_wait_ends_also_what_is_passed_on_at_once(world: World) -> None:
    await world.join("east", "west")
    run = await world.launch(policy=PlacementPolicy(mode=Mode.IDEMPOTENT, max_wait_seconds=1e-6))
    for epoch, cluster in ((1, "east"), (2, "west")):
        await world.dispatch([run])
        assert (await world.view(run)).phase is Phase.ASSIGNED
        assert (await world.claim(run, epoch, cluster, 1)).answer.claimed
        await world.send(run, FULL, epoch=epoch, cluster=cluster)
    view = await world.view(run)
    assert (view.phase, view.epoch) == (Phase.FAILED, 3)
    assert view.error is not None
    assert (view.error.owner, view.error.kind) == (Owner.CONFIG, "max_wait")
    assert "Insufficient cpu" in view.error.message


async def waiting(world: World) -> list[int]:
    async with world.database.read() as connection:
        return [
            row[0] for row in await connection.execute(text("SELECT waiting_ns FROM execution"))
        ]


DELETED = Unreachable("a", ("s3://data/gone",))


async def test_what_no_node_made_is_tried_elsewhere_then_later_and_not_for_ever(
    world: World,
) -> None:
    await world.join("east", "west")
    run = await world.running()
    await world.send(run, DELETED)
    await world.delivery.deliver()
    await world.dispatcher.drain()
    view = await world.view(run)
    assert (view.cluster, view.epoch, view.placements[-1].cause) == ("west", 3, "fallback")
    world.router.up = ["east"]
    await world.claim(run, 3, "west", 1)
    await world.send(run, DELETED, epoch=3, cluster="west")
    epoch, pauses = 4, list[float]()
    while True:
        await world.dispatch([run])
        view = await world.view(run)
        assert (view.phase, view.reason) == (Phase.WAITING, "unreadable_input"), "not at once"
        before = await world.rows()
        await world.dispatch([run])
        assert await world.rows() == before
        pauses.append(no_room.pause(len(pauses)) + no_room.MOMENT_SECONDS)
        world.later(pauses[-1])
        await world.dispatch([run])
        epoch += 1
        assert (await world.claim(run, epoch, "east", 1)).answer.claimed
        await world.send(run, DELETED, epoch=epoch)
        epoch += 1
        if (await world.view(run)).phase is Phase.FAILED:
            break
    assert pauses == [5, 10, 20, 40, 80, 160, 300]
    view = await world.view(run)
    assert view.error is not None
    assert (view.error.owner, view.error.kind) == (Owner.CONFIG, "unreadable_input")
    assert "s3://data/gone" in view.error.message
    assert view.epoch == epoch


async def test_what_comes_of_the_run_in_between_begins_the_count_anew(world: World) -> None:
    await world.join("east")
    run = await world.running()
    epoch = 1
    for nodes in ((), ("a",), ("b",)):
        for again in range(no_room.READS - 1):
            made = [output(node) for node in nodes] if not again else []
            await world.send(run, *made, DELETED, epoch=epoch)
            assert (await world.view(run)).phase is Phase.WAITING
            world.later(no_room.LONGEST_SECONDS + 1)
            await world.dispatch([run])
            epoch += 2
            assert (await world.claim(run, epoch, "east", 1)).answer.claimed


def test_recent_counts_from_the_release() -> None:
    marks = {"east": 0, "west": 299 * SECOND}
    assert recent(marks, now_ns=300 * SECOND, seconds=300) == ("west",)
    assert recent(marks, now_ns=299 * SECOND, seconds=300) == ("east", "west")
    assert recent({}, now_ns=0, seconds=300) == ()
