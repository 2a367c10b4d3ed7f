"""Exclusive attempts in pods: who is answered, and when one is known to be over."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from whimbrel.errors import Unreachable

from data_plane_agent.launcher import Attempt, Broke
from data_plane_agent.pods.codec import pod_name
from data_plane_agent.pods.mailbox import URGENT_SECONDS
from data_plane_agent.pods.renewals import MARGIN_NS
from tests.data_plane_agent.pods.scene import Scene, attempt, boot_ns, scene
from tests.data_plane_agent.virtual_time import until, virtual

MARGIN = MARGIN_NS / 1e9


def exclusive(number: int = 1, **more: Any) -> Attempt:
    return replace(attempt(number, **more), exclusive=True)


async def asks(here: Scene, one: Attempt, nonce: str) -> None:
    box = f"mailbox/alpha/{pod_name(one.key)}/{nonce}"
    question = json.dumps({"t": "renew", "nonce": nonce, "n": 1}).encode()
    await here.blobs.put(box, question)


def answer(here: Scene) -> dict[str, Any]:
    (found,) = [uri for uri in here.blobs.objects if uri.endswith("/renewal.json")] or [""]
    return json.loads(here.blobs.objects[found][0]) if found else {}


async def answered(here: Scene, one: Attempt, nonce: str = "r1") -> int:
    """Until when it may run."""
    await asks(here, one, nonce)
    await until(lambda: answer(here).get("nonce") == nonce)
    return boot_ns() + answer(here)["left_ns"]


async def not_answered(here: Scene, one: Attempt, nonce: str = "r9") -> None:
    await asks(here, one, nonce)
    await until(lambda: not [uri for uri in here.blobs.objects if uri.endswith(nonce)])
    assert answer(here).get("nonce") != nonce


async def renewed(here: Scene, *, left: float = 5.0) -> tuple[Attempt, str, int]:
    """One that runs, its pod, and until when it was told that it may."""
    one = exclusive()
    name = await here.runs(one)
    here.session.left = left
    return one, name, await answered(here, one)


@virtual
async def test_what_is_left_of_the_session_is_answered_soon(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        one = exclusive()
        await here.runs(one)
        await asyncio.sleep(1)
        began = boot_ns()
        assert abs(await answered(here, one) - boot_ns() - 5e9) < 0.2e9
        assert boot_ns() - began < (URGENT_SECONDS + 0.2) * 1e9
        await answered(here, one, "r2")
        order = await here.order_of(one)
        (document,) = [
            json.loads(data)
            for uri, (data, _) in here.blobs.objects.items()
            if uri.endswith(f"{order.folder}/order.json")
        ]
        assert document["v"] == 2
        asks_at = {slot["put"] for slot in document["page"]["renewals"]}
        assert len(asks_at) == 4
        assert all(f"mailbox/alpha/{pod_name(one.key)}/" in url for url in asks_at)


@virtual
async def test_without_a_live_session_nobody_is_answered(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        one = exclusive()
        await here.runs(one)
        here.session.left = 0
        await not_answered(here, one)
        here.session.left = -1
        await not_answered(here, one)


@virtual
async def test_others_are_not_answered(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        one = attempt()
        await here.runs(one)
        await not_answered(here, one)


@virtual
async def test_one_from_before_is_answered_once_it_is_adopted(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        one = exclusive()
        await here.runs(one)
        await here.restart()
        await not_answered(here, one)
        await here.launcher.adopt([one.key])
        await answered(here, one)


@virtual
async def test_a_session_that_ends_takes_its_attempts_with_it(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        one = exclusive()
        await here.runs(one)
        await asyncio.sleep(1)
        here.session.left = 0
        await asyncio.sleep(1)
        here.session.left = 5.0
        await not_answered(here, one)
        await here.launcher.adopt([one.key])
        await answered(here, one)


# -- the end of one whose node is not heard --------------------------------------------------------


async def lose(here: Scene) -> None:
    here.cluster.dead_hosts.add("a")
    here.cluster.node("a", ready="Unknown")
    here.cluster.node("b")


@virtual
async def test_its_end_is_told_once_its_last_deadline_is_over(tmp_path: Path) -> None:
    async with scene(tmp_path, lost_seconds=2.0) as here:
        one, _, over = await renewed(here, left=60.0)
        await lose(here)
        await asyncio.sleep(10)
        assert here.ends == []
        await not_answered(here, one)  # it is given up: not for longer, whoever asks
        end = await here.told_of(Broke, seconds=90)
        assert end.failure.kind == "node_lost"
        late = boot_ns() - over
        assert MARGIN_NS <= late < MARGIN_NS + 2e9
        await asyncio.sleep(10)
        await here.launcher.kill([one.key])  # its node will never tell; it needs not


@virtual
async def test_never_answered_it_never_began(tmp_path: Path) -> None:
    async with scene(tmp_path, lost_seconds=2.0) as here:
        await here.runs(exclusive())
        await lose(here)
        await here.told_of(Broke, seconds=10)


@virtual
async def test_a_pod_that_is_taken_off_the_list_by_force_proves_nothing(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        _, name, over = await renewed(here, left=30.0)
        here.cluster.remove(name)
        end = await here.told_of(Broke, seconds=60)
        assert end.failure.kind == "pod_lost"
        assert boot_ns() > over + MARGIN_NS


@virtual
async def test_nor_does_a_cluster_that_calls_it_failed(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        _, name, over = await renewed(here, left=30.0)
        gc = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC"}
        here.cluster.set(name, phase="Failed", conditions=[gc])
        await here.told_of(Broke, seconds=60)
        assert boot_ns() > over + MARGIN_NS


@virtual
async def test_its_own_end_is_told_at_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        _, name, _ = await renewed(here, left=30.0)
        here.cluster.ends(name, code=137)
        await here.told_of(Broke, seconds=10)


@virtual
async def test_one_from_before_is_over_when_a_later_session_would_be(tmp_path: Path) -> None:
    """Nobody knows what the agent before told it."""
    async with scene(tmp_path) as here:
        _, name, _ = await renewed(here)
        here.session.left = 0
        await here.restart()
        here.cluster.remove(name)
        await asyncio.sleep(20)
        assert here.ends == []
        here.session.left = 5.0
        began = boot_ns()
        await here.told_of(Broke, seconds=20)
        assert boot_ns() - began > 5e9 + MARGIN_NS


@virtual
async def test_cancelled_before_it_is_killed_it_is_remembered(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        one, _, over = await renewed(here, left=30.0)
        await lose(here)
        await here.launcher.cancel([one.key])
        with pytest.raises(Unreachable, match="node a has not told"):
            await here.launcher.kill([one.key])
        await asyncio.sleep(30)
        await here.launcher.kill([one.key])
        assert boot_ns() > over + MARGIN_NS


@virtual
async def test_nor_is_it_forgotten_by_the_next_agent(tmp_path: Path) -> None:
    """It was cancelled, its node is not heard, nothing will ever tell of it."""
    async with scene(tmp_path) as here:
        one, _, _ = await renewed(here)
        await lose(here)
        await here.launcher.cancel([one.key])
        await here.restart()
        assert here.found == {}
        began = boot_ns()
        await here.launcher.kill([one.key])
        assert 5e9 + MARGIN_NS < boot_ns() - began < 9e9


# -- killed ----------------------------------------------------------------------------------------


@virtual
async def test_killed_it_is_dead_when_its_deadline_is_over(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        one, _, over = await renewed(here, left=30.0)
        await lose(here)
        with pytest.raises(Unreachable, match="node a has not told"):
            await here.launcher.kill([one.key])
        await asks(here, one, "r9")
        await asyncio.sleep(5)
        assert answer(here)["nonce"] == "r1", "it was told to run on"
        while True:
            try:
                await here.launcher.kill([one.key])
                break
            except Unreachable:
                assert boot_ns() <= over + MARGIN_NS + 1e9
        assert boot_ns() > over + MARGIN_NS


@virtual
async def test_killed_its_nodes_word_is_enough_also_when_its_pod_goes_at_once(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as here:
        one, _, _ = await renewed(here, left=60.0)
        began = boot_ns()
        await here.launcher.kill([one.key])
        assert boot_ns() - began < 10e9
        assert here.cluster.pods == {}


@virtual
async def test_killed_and_taken_off_the_list_by_force_it_may_run_on(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        one, name, over = await renewed(here, left=60.0)
        here.cluster.dead_hosts.add("a")
        killed = asyncio.create_task(here.launcher.kill([one.key]))
        await until(lambda: "deletionTimestamp" in here.cluster.pods[name]["metadata"])
        here.cluster.remove(name)
        with pytest.raises(Unreachable, match="without a word"):
            await killed
        assert boot_ns() < over
