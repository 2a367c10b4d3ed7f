"""Launch, look, follow, cancel: what people are answered, and that bad input leaves nothing."""

import asyncio

import pytest
from whimbrel.errors import Conflict, InvalidInput, NotFound, Refused
from whimbrel.spec import Failure, Mode, Owner, Phase, PlacementPolicy

from control_plane.executions.lifecycle import MOVES, IllegalMove, move
from control_plane.executions.logs import Logs
from control_plane.executions.service import Launch, Listing
from control_plane.executions.watch import Watch
from control_plane.ledger.events import Failed, Status, Succeeded
from control_plane.registry.service import Key
from control_plane.routing.port import LogPlace
from tests.control_plane.world import World, chain, output


@pytest.mark.anyio
async def test_the_same_launch_again_is_the_same_run(world: World) -> None:
    run = await world.launch(inputs='{"n": 2}')
    before = await world.rows()
    assert await world.launch(inputs='{ "n":2 }') == run
    assert await world.rows() == before
    with pytest.raises(Conflict, match="another execution"):
        await world.launch(inputs='{"n": 3}')


@pytest.mark.anyio
async def test_two_launches_of_one_name_at_once(world: World) -> None:
    await asyncio.gather(*(world.launch() for _ in range(4)))
    assert len(await world.executions.list(Listing("p", "d"))) == 1


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ('{"n": "x"}', "is not of type 'integer'"),
        ('{"m": 1}', "has no input m"),
        ("[1]", "must be a JSON object"),
        ("{", "no JSON"),
    ],
)
async def test_bad_inputs_store_nothing(world: World, inputs: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        await world.launch(inputs=inputs)
    assert (await world.rows("execution"))["execution"] == []


@pytest.mark.anyio
async def test_defaults_and_names_are_filled_in(world: World) -> None:
    run = await world.launch(name="")
    assert run.startswith("p/d/chain-")
    assert (await world.view(run)).inputs == '{"n":1}'


@pytest.mark.anyio
async def test_what_can_not_be_launched_is_refused(world: World) -> None:
    with pytest.raises(NotFound, match="no workflow"):
        await world.executions.launch(Launch("p", "d", "x", Key("p", "d", "nothing")))
    with pytest.raises(InvalidInput, match="no name"):
        await world.launch(name="No_Name")


@pytest.mark.anyio
async def test_every_class_of_run_is_taken(world: World) -> None:
    await world.join("east")
    for mode in Mode:
        run = await world.launch(name=f"run-{mode}", policy=PlacementPolicy(mode=mode))
        await world.dispatcher.drain()
        assert (await world.claim(run, 1, "east", 1)).mode == mode
        assert (await world.view(run)).mode == mode


@pytest.mark.anyio
async def test_a_dry_run_places_and_stores_nothing(world: World) -> None:
    await world.join("east", "west")
    await world.registry.register("p", "d", "v1", [chain("a")])
    launch = Launch("p", "d", "run", Key("p", "d", "flows.chain"), dry_run=True)
    view = await world.executions.launch(launch)
    assert (view.cluster, len(view.placements[0].verdicts)) == ("east", 2)
    assert (await world.rows("execution"))["execution"] == []


@pytest.mark.anyio
@pytest.mark.parametrize("phase", ["QUEUED", "WAITING", "ASSIGNED", "RUNNING"])
async def test_cancel_in_each_phase(world: World, phase: str) -> None:
    if phase in ("ASSIGNED", "RUNNING"):
        await world.join("east")
    make = {"QUEUED": world.launch, "RUNNING": world.running}.get(phase, world.placed)
    run = await make()
    before = await world.view(run)
    assert before.phase == phase
    view = await world.executions.cancel(run, reason="enough")
    assert (view.phase, view.epoch) == (Phase.ABORTED, before.epoch + 1)
    assert (await world.executions.cancel(run)).epoch == view.epoch, "once is enough"
    await world.delivery.deliver()
    assert world.router.keys == {}
    assert (await world.dispatch([run])) == []


@pytest.mark.anyio
async def test_an_end_is_not_cancelled(world: World) -> None:
    await world.join("east")
    run = await world.running(chain("a"))
    await world.send(run, output("a"), Succeeded("{}"))
    with pytest.raises(Refused, match="SUCCEEDED"):
        await world.executions.cancel(run)
    assert (await world.view(run)).epoch == 2
    with pytest.raises(NotFound):
        await world.executions.cancel("p/d/nothing")


@pytest.mark.anyio
async def test_listing_by_phase_and_page(world: World) -> None:
    for index in range(3):
        await world.launch(name=f"run{index}")
    await world.executions.cancel("p/d/run1")
    every = await world.executions.list(Listing("p", "d"))
    assert [view.id for view in every] == ["p/d/run2", "p/d/run1", "p/d/run0"]
    ended = await world.executions.list(Listing("p", "d", (Phase.ABORTED,)))
    assert [view.id for view in ended] == ["p/d/run1"]
    page = await world.executions.list(Listing("p", "d", limit=1, before="run2"))
    assert [view.id for view in page] == ["p/d/run1"]
    assert await world.executions.list(Listing("q", "d")) == []


@pytest.mark.anyio
async def test_a_follower_sees_each_change_and_the_end(world: World) -> None:
    await world.join("east")
    run = await world.running(chain("a", "b"))
    seen: list[tuple[str, list[str]]] = []

    async def follow() -> None:
        async for view in Watch(world.database, world.graphs, world.changes).follow(run):
            seen.append((view.phase, [node.phase for node in view.nodes]))
            if len(seen) == 1:
                failure = Failure(Owner.USER, "raised", "no", "b")
                await world.send(
                    run, output("a"), Status("b", 1, "FAILED", error=failure), Failed(failure)
                )

    async with asyncio.timeout(10):
        await follow()
    assert seen == [("RUNNING", ["QUEUED", "QUEUED"]), ("FAILED", ["SUCCEEDED", "FAILED"])]


@pytest.mark.anyio
async def test_who_only_waits_sees_the_head_and_the_end(world: World) -> None:
    await world.join("east")
    run = await world.running(chain("a", "b"))
    watch = Watch(world.database, world.graphs, world.changes).follow(run, end_only=True)
    async with asyncio.timeout(10):
        first = await anext(watch)
        assert (first.phase, first.nodes) == ("RUNNING", ())
        await world.send(run, output("a"))
        failure = Failure(Owner.USER, "raised", "no", "b")
        await world.send(run, Status("b", 1, "FAILED", error=failure), Failed(failure))
        rest = [view async for view in watch]
    assert [view.phase for view in rest] == ["FAILED"]
    assert [node.phase for node in rest[0].nodes] == ["SUCCEEDED", "FAILED"]


@pytest.mark.anyio
async def test_logs_are_read_where_the_node_ran(world: World) -> None:
    await world.join("east")
    run = await world.running(chain("a", "b"))
    await world.send(run, output("a"))
    text = b"line\n" * 100_000
    world.router.log = {LogPlace(run, "a", 1, "stdout"): text}
    logs = Logs(world.executions, world.router)
    pieces = [piece async for piece in logs.read(run)]
    assert b"".join(piece.data for piece in pieces) == text
    assert {(piece.node, piece.attempt, piece.stream) for piece in pieces} == {("a", 1, "stdout")}
    with pytest.raises(NotFound, match="its nodes are: a, b"):
        _ = [piece async for piece in logs.read(run, node="z")]


@pytest.mark.parametrize("before", list(Phase))
@pytest.mark.parametrize("after", list(Phase))
def test_only_legal_moves(before: Phase, after: Phase) -> None:
    if after in MOVES[before]:
        assert move(before, after) == after
    else:
        with pytest.raises(IllegalMove):
            move(before, after)
    assert not (before.terminal and MOVES[before]), "an end is an end"
