"""A schedule of faults that a seed decides: what, to whom, when, for how long.

Called by the test for each seed; everything is well again at the end of a schedule.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.simulation.world import TTL, World


@dataclass(frozen=True, slots=True)
class Fault:
    """`seconds` from its beginning to its end; `target` "" = it has none."""

    kind: str
    target: str
    seconds: float


def schedule(chance: random.Random, clusters: tuple[str, ...], *, count: int) -> list[Fault]:
    return [
        Fault(chance.choice(list(KINDS)), chance.choice(clusters), chance.uniform(0.2, 4 * TTL))
        for _ in range(count)
    ]


async def inject(world: World, fault: Fault) -> None:
    await KINDS[fault.kind](world, fault)


async def _cut(world: World, fault: Fault) -> None:
    there, back = world.chance.choice([(True, True), (True, False), (False, True)])
    world.links[fault.target].cut(there=there, back=back)
    await asyncio.sleep(fault.seconds)
    world.links[fault.target].heal()


async def _agent_killed(world: World, fault: Fault) -> None:
    await world.kill_agent(fault.target)
    await asyncio.sleep(fault.seconds)
    if world.agents[fault.target] is None:
        world.start_agent(fault.target)


async def _region_killed(world: World, fault: Fault) -> None:
    await world.computes[fault.target].lose()
    await _agent_killed(world, fault)


async def _router_killed(world: World, fault: Fault) -> None:
    if world.router is None:
        return
    await world.kill_router()
    await asyncio.sleep(fault.seconds)
    world.start_router()


async def _control_plane_killed(world: World, fault: Fault) -> None:
    if world.control_plane is None:
        return
    await world.kill_control_plane()
    await asyncio.sleep(fault.seconds)
    await world.start_control_plane()


async def _etcd_away(world: World, fault: Fault) -> None:
    world.etcd.lose_sight()
    await asyncio.sleep(fault.seconds)
    world.etcd.come_back()


async def _etcd_wiped(world: World, fault: Fault) -> None:
    world.etcd.lose_sight()
    await asyncio.sleep(fault.seconds / 4)
    world.etcd.come_back(empty=True)


KINDS: dict[str, Callable[[World, Fault], Awaitable[None]]] = {
    "cut": _cut,
    "agent killed": _agent_killed,
    "region killed": _region_killed,
    "router killed": _router_killed,
    "control plane killed": _control_plane_killed,
    "etcd away": _etcd_away,
    "etcd wiped": _etcd_wiped,
}
