"""Planned moves and drains on a real Temporal, with steps from a script: which follows which."""

import pytest

from control_plane.movement.planned import (
    LONG_SECONDS,
    Drained,
    End,
    Migrated,
    Send,
    Stage,
    Wait,
)
from tests.control_plane.movement.telling import Scripted, movement, told
from tests.control_plane.movement.temporal_server import TemporalServer

pytestmark = pytest.mark.anyio

LEAVES = ["prepare", "quiesce", "released"]
ARRIVES = ["hand_over", "send", "claimed", "resumed", "end"]


async def run(server: TemporalServer, name: str, steps: Scripted) -> object:
    async with movement(server, planned=steps) as (stories, client):
        await stories.migrate(f"p/d/{name}", 1, cause="migration")
        await stories.migrate(f"p/d/{name}", 1, cause="migration")  # one story a migration
        return await told(client, f"migrate/p/d/{name}/1", Migrated)


async def test_a_planned_move(server: TemporalServer) -> None:
    steps = Scripted()
    assert await run(server, "ok", steps) == Migrated("resumed")
    assert steps.names() == LEAVES + ARRIVES


async def test_a_refused_move_asks_nothing_of_the_source(server: TemporalServer) -> None:
    steps = Scripted(prepare=[Stage("REFUSED", reason="room")])
    assert await run(server, "refused", steps) == Migrated("REFUSED")
    assert steps.names() == ["prepare", "end"]


async def test_idempotent_work_is_taken_from_a_mute_source(server: TemporalServer) -> None:
    steps = Scripted(released=[Stage("silent")])
    assert await run(server, "silent", steps) == Migrated("resumed")
    assert steps.names() == [*LEAVES, "take", *ARRIVES]


async def test_other_work_is_waited_for(server: TemporalServer) -> None:
    steps = Scripted(released=[Stage("silent", patient=True), Stage("silent", patient=True)])
    assert await run(server, "patient", steps) == Migrated("resumed")
    assert steps.names() == [*LEAVES, "released", "released", *ARRIVES]
    waits = [asked.seconds for _, asked in steps.asked if isinstance(asked, Wait)]
    assert waits[:3] == [60.0, LONG_SECONDS, LONG_SECONDS]


@pytest.mark.parametrize("step", ["quiesce", "released", "send", "claimed"])
async def test_a_takeover_ends_it_at_every_step(server: TemporalServer, step: str) -> None:
    steps = Scripted(**{step: [Stage("TAKEN_OVER")]})
    assert await run(server, f"taken-at-{step}", steps) == Migrated("TAKEN_OVER")
    assert steps.names()[-2:] == [step, "end"]


async def test_what_the_target_does_not_claim_goes_back(server: TemporalServer) -> None:
    steps = Scripted(
        claimed=[Stage("unclaimed", epoch=2)],
        send=[Stage("placed", "eu-west", 2), Stage("placed", "us-east", 3)],
    )
    assert await run(server, "back", steps) == Migrated("resumed")
    sent = [asked for _, asked in steps.asked if isinstance(asked, Send)]
    assert [send.unclaimed_epoch for send in sent] == [0, 2]
    waits = [asked for name, asked in steps.asked if name == "claimed"]
    assert [wait.epoch for wait in waits if isinstance(wait, Wait)] == [2, 3]


async def test_what_nobody_claims_is_left_to_the_sweeper(server: TemporalServer) -> None:
    steps = Scripted(claimed=[Stage("unclaimed", epoch=2)] * 10)
    assert await run(server, "unclaimed", steps) == Migrated("FAILED")
    end = steps.asked[-1][1]
    assert isinstance(end, End)
    assert end.reason == "unclaimed"


async def test_a_drain_looks_until_it_is_over(server: TemporalServer) -> None:
    steps = Scripted()
    steps.looks = [Drained("RUNNING"), Drained("RUNNING", moved=1), Drained("DONE", moved=2)]
    async with movement(server, planned=steps) as (stories, client):
        await stories.drain("us-east", 1)
        await stories.drain("us-east", 1)
        assert await told(client, "drain/us-east/1", Drained) == Drained("DONE", moved=2)
    assert steps.names() == ["empty"] * 3


async def test_a_story_that_was_ended_from_outside_is_not_told_again(
    server: TemporalServer,
) -> None:
    patient = [Stage("silent", patient=True)] * 1000
    async with movement(server, planned=Scripted(released=patient)) as (stories, client):
        assert await stories.migrate("p/d/stopped", 1, cause="migration")
        assert await stories.migrate("p/d/stopped", 1, cause="migration")
        await client.get_workflow_handle("migrate/p/d/stopped/1").terminate("by hand")
        assert not await stories.migrate("p/d/stopped", 1, cause="migration")
