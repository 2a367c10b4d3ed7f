"""Where a run's data may lie, at the control plane's doors: launches, claims, logs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from whimbrel.errors import Refused
from whimbrel.spec import Interface, PlacementPolicy, Variable, WorkflowSpec, canonical

from control_plane.database import Database
from control_plane.executions.logs import Logs
from control_plane.routing.port import LogPlace
from tests.control_plane.world import World, chain, output

pytestmark = pytest.mark.anyio

EAST = PlacementPolicy(regions=("r-east",))


@pytest.fixture
async def abroad(database: Database, tmp_path: Path) -> World:
    """A control plane in `r-west`."""
    world = await World.build(database, tmp_path, region="r-west")
    await world.join("east")
    return world


def taking_anything() -> WorkflowSpec:
    variables = (Variable("x", {}, required=False, default=0),)
    return replace(chain("a", name="flows.any"), interface=Interface(inputs=variables))


def file(*allowed: str) -> dict[str, Any]:
    return {
        "$artifact": {
            "uri": "s3://b/k", "sha256": "0", "bytes": 1, "region": "r-east", "kind": "file",
            "allowed_regions": list(allowed),
        }
    }  # fmt: skip


async def launch(world: World, value: Any, policy: PlacementPolicy, name: str = "run") -> str:
    inputs = canonical({"x": value})
    return await world.launch(taking_anything(), name, inputs=inputs, policy=policy)


async def test_values_of_a_run_that_may_not_lie_here_are_refused(abroad: World) -> None:
    with pytest.raises(Refused, match=r"x can't be given by value: .* in r-east, .* is in r-west"):
        await launch(abroad, 4111, EAST)
    with pytest.raises(Refused, match="by value"):
        await launch(abroad, [file(), 4111], EAST)
    await launch(abroad, [file()], EAST, "files")
    await abroad.launch(taking_anything(), "defaults", policy=EAST)
    await launch(abroad, 4111, PlacementPolicy(regions=("r-*",)), "here")
    await launch(abroad, 4111, PlacementPolicy(), "anywhere")


async def test_limits_of_its_inputs_are_the_runs(world: World) -> None:
    await world.join("east")
    await launch(world, file("r-east", "r-n*"), PlacementPolicy(), "bound")
    await launch(world, file("r-east"), PlacementPolicy(regions=("r-*",)), "narrowed")
    await world.dispatcher.drain()
    regions = {item.execution: item.policy.regions for item in world.router.asked}
    assert regions == {"p/d/bound": ("r-east", "r-n*"), "p/d/narrowed": ("r-east",)}
    with pytest.raises(Refused, match="an input must stay in r-south, and the run in r-east"):
        await launch(world, file("r-south"), EAST, "nowhere")
    again = await launch(world, file("r-east"), PlacementPolicy(regions=("r-*",)), "narrowed")
    assert again == "p/d/narrowed"


async def test_a_claim_says_whether_values_may_travel(abroad: World) -> None:
    bound = await abroad.launch(name="bound", policy=EAST)
    free = await abroad.launch(name="free")
    await abroad.dispatcher.drain()
    answer = await abroad.claim(bound, 1, "east", 1)
    assert (answer.offload, answer.regions) == (True, ("r-east",))
    answer = await abroad.claim(free, 1, "east", 1)
    assert (answer.offload, answer.regions) == (False, ())


async def test_logs_are_not_shown_where_they_may_not_lie(abroad: World) -> None:
    run = await abroad.launch(name="bound", policy=EAST)
    await abroad.dispatcher.drain()
    await abroad.claim(run, 1, "east", 1)
    await abroad.send(run, output("a"))
    abroad.router.log = {LogPlace(run, "a", 1, "stdout"): b"secret"}
    logs = Logs(abroad.executions, abroad.router)
    with pytest.raises(Refused, match="the logs of p/d/bound must stay in r-east"):
        _ = [piece async for piece in logs.read(run, who="ipv4:10.0.0.7")]
    [refused] = [one for one in (await abroad.view(run)).timeline if one.kind == "refused"]
    said = "logs asked for by ipv4:10.0.0.7 in r-west: they must stay in r-east"
    assert refused.text == said


async def test_a_control_plane_without_a_region_is_told_everything(world: World) -> None:
    await world.join("east")
    run = await launch(world, 4111, EAST)
    await world.dispatcher.drain()
    assert not (await world.claim(run, 1, "east", 1)).offload
