"""Hosts of attempts and needs of runs: kept, shown, told to the next owner and to the router."""

from dataclasses import replace

import pytest
from whimbrel.errors import Refused, Unreachable
from whimbrel.spec import Artifact, Failure, Owner, TaskSpec, WorkflowSpec
from whimbrel.wire.v1 import ledger_pb2

from control_plane.executions.codec import node_to_wire
from control_plane.executions.inputs import container_images, secret_names
from control_plane.executions.logs import LAST_LOOKS, Logs
from control_plane.ledger import codec
from control_plane.ledger.events import Body, Released, Status, Succeeded
from control_plane.routing.port import LogPart, LogPlace
from data_plane_agent import codec as agent_codec
from data_plane_agent import messages as said
from tests.control_plane.world import World, chain, output

pytestmark = pytest.mark.anyio

LOST = Failure(Owner.SYSTEM, "node_lost", "gone", "a")


def broke(
    attempt: int, host: str, owner: Owner = Owner.SYSTEM, avoided: tuple[str, ...] = ()
) -> Status:
    failure = Failure(owner, "node_lost", "gone", "a")
    return Status("a", attempt, "FAILED", 1, 2, failure, True, host=host, avoided=avoided)


def needing(spec: WorkflowSpec) -> WorkflowSpec:
    """Its nodes' task names an image and secrets; another task, that no node uses, others."""
    [task] = spec.tasks
    used = replace(task, container_image="img/a", secrets=("t", "s"))
    idle = TaskSpec("flows.unused", "flows:unused", task.bundle, task.interface)
    idle = replace(idle, container_image="img/b", secrets=("u",))
    return replace(spec, tasks=(used, idle))


async def test_a_node_shows_its_host_and_who_paid(world: World) -> None:
    await world.join("east")
    run = await world.running()
    await world.send(run, broke(1, "n1"), broke(2, "n2", Owner.USER, ("n1",)))
    [node, *_] = (await world.view(run)).nodes
    assert (node.host, node.avoided) == ("n2", ("n1",))
    assert (node.user_failures, node.system_failures) == (1, 1)
    await world.send(run, Status("a", 3, "RUNNING", 3, host="n3", avoided=("n1",)))
    await world.send(run, replace(output("a", attempt=3), host="n3"))
    [node, *_] = (await world.view(run)).nodes
    assert (node.phase, node.host, node.avoided) == ("SUCCEEDED", "n3", ("n1",))
    wire = node_to_wire(node)
    assert (wire.host, list(wire.avoided)) == ("n3", ["n1"])
    assert (wire.user_failures, wire.system_failures) == (1, 1)


async def test_a_claim_tells_which_hosts_to_avoid(world: World) -> None:
    await world.join("east", "west")
    run = await world.running()
    await world.send(run, broke(1, "n1"), broke(2, "n2", avoided=("n1",)))
    await world.session("east")
    claimed = await world.claim(run, 1, "east", 2)
    assert claimed.tries[0].avoid == ("n2", "n1")
    assert list(codec.claim_pages(claimed)[0].tries[0].avoid) == ["n2", "n1"]
    full = broke(3, "n3", avoided=("n2", "n1", "n0"))
    await world.send(run, full, session=2)
    await world.session("east")
    assert (await world.claim(run, 1, "east", 3)).tries[0].avoid == ("n3", "n2", "n1")


async def test_a_host_that_the_user_s_code_failed_on_is_not_avoided(world: World) -> None:
    await world.join("east")
    run = await world.running()
    await world.send(run, broke(1, "n1", Owner.USER))
    await world.session("east")
    assert (await world.claim(run, 1, "east", 2)).tries[0].avoid == ()


async def test_hosts_mean_nothing_in_another_cluster(world: World) -> None:
    await world.join("east", "west")
    run = await world.running()
    await world.send(run, broke(1, "n1"), Released("unschedulable", "full"))
    await world.dispatch([run])
    claimed = await world.claim(run, 2, "west", 1)
    assert claimed.tries[0].system_failures == 1
    assert claimed.tries[0].avoid == ()


async def test_the_router_is_asked_for_what_the_nodes_need(world: World) -> None:
    await world.join("east")
    spec = needing(chain("a", "b"))
    assert (container_images(spec), secret_names(spec)) == (("img/a",), ("s", "t"))
    run = await world.launch(spec)
    await world.dispatch([run])
    dry = await world.launch(spec, "dry", dry_run=True)
    assert dry
    for asked in world.router.asked:
        assert (asked.images, asked.secrets) == (("img/a",), ("s", "t"))
    assert len(world.router.asked) == 2


LOG = Artifact("s3://east/log", "00", 3, "r-east")


async def test_a_stored_log_is_asked_for_by_its_place(world: World) -> None:
    await world.join("east")
    run = await world.running(chain("a"))
    await world.send(run, replace(output("a"), stdout=LOG), Succeeded("{}"))
    world.router.log[LogPlace(run, "a", 1, "stdout", LOG.uri)] = b"abc"
    pieces = [piece async for piece in Logs(world.executions, world.router).read(run)]
    assert [(piece.stream, piece.data) for piece in pieces] == [("stdout", b"abc")]


@pytest.mark.parametrize("error", [Unreachable("restarting"), Refused("not claimed yet")])
async def test_following_survives_an_agent_that_restarts(world: World, error: Exception) -> None:
    """Away while the task writes, away when it ends: every byte arrives, once."""
    await world.join("east")
    run = await world.running(chain("a"))
    await world.send(run, Status("a", 1, "RUNNING", 1))
    answers: list[LogPart | Exception] = [
        LogPart(b"ab", end=False, attempt=1), LogPart(b"", end=False, attempt=1),
        error, LogPart(b"cd", end=False, attempt=1), error, error,
    ]  # fmt: skip
    asked: list[int] = []

    async def read_log(cluster: str, place: LogPlace, *, offset: int, limit: int) -> LogPart:
        if place.stream == "stderr":
            return LogPart(b"", end=True, attempt=1)
        asked.append(offset)
        answer = answers.pop(0) if answers else LogPart(b"abcdef"[offset:], end=True, attempt=1)
        if isinstance(answer, Exception):
            raise answer
        return answer

    looks = 0

    async def sleep(seconds: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            await world.send(run, replace(output("a"), stdout=LOG), Succeeded("{}"))

    world.router.read_log = read_log  # type: ignore[method-assign]
    logs = Logs(world.executions, world.router, sleep=sleep)
    pieces = [piece async for piece in logs.read(run, follow=True)]
    assert b"".join(piece.data for piece in pieces) == b"abcdef"
    assert asked[-1] == 6


async def test_following_does_not_wait_for_ever_for_a_region_that_is_gone(world: World) -> None:
    await world.join("east")
    run = await world.running(chain("a"))
    await world.send(run, replace(output("a"), stdout=LOG), Succeeded("{}"))
    looks: list[float] = []

    async def sleep(seconds: float) -> None:
        looks.append(seconds)

    world.router.away = True
    logs = Logs(world.executions, world.router, sleep=sleep)
    assert [piece async for piece in logs.read(run, follow=True)] == []
    assert len(looks) == LAST_LOOKS - 1


@pytest.mark.parametrize(
    ("event", "heard"),
    [
        (said.Released("unschedulable", "full"), Released("unschedulable", "full")),
        (
            said.AttemptRuns("a", 2, 5, "n2", ("n1",)),
            Status("a", 2, "RUNNING", 5, host="n2", avoided=("n1",)),
        ),
        (
            said.AttemptFailed("a", 2, LOST, True, 5, 6, host="n2", avoided=("n1",)),
            Status("a", 2, "FAILED", 5, 6, LOST, True, host="n2", avoided=("n1",)),
        ),
    ],
)
def test_the_ledger_hears_what_the_agent_says(event: said.Event, heard: Body) -> None:
    data = agent_codec.encode(event, execution="p/d/x", epoch=1)
    taken = codec.event_from_wire(ledger_pb2.Event.FromString(data))
    assert (taken.execution, taken.epoch, taken.body) == ("p/d/x", 1, heard)
