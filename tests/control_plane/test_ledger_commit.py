"""Commits: numbering, exactly one live output, endings, and that a stale epoch changes nothing."""

import pytest
from whimbrel.errors import Fenced
from whimbrel.spec import Artifact, Failure, Owner, Phase

from control_plane.ledger.events import (
    Batch,
    Body,
    Event,
    Failed,
    Output,
    Released,
    Result,
    Saved,
    Status,
    Succeeded,
    Unreachable,
)
from tests.control_plane.world import World, chain, output

pytestmark = pytest.mark.anyio

ARTIFACT = Artifact("file:///x", "00", 1, "r")
BODIES: dict[type[Body], Body] = {
    Output: output("a"),
    Status: Status("a", 1, "RUNNING"),
    Saved: Saved("a", 1, ARTIFACT, 5),
    Succeeded: Succeeded("{}"),
    Failed: Failed(Failure(Owner.USER, "raised", "no", "a")),
    Released: Released(),
    Unreachable: Unreachable("b", ("file:///x",)),
}


def results(committed: object) -> list[tuple[int, Result]]:
    return [(item.index, item.result) for item in committed.verdicts]  # type: ignore[attr-defined]


async def test_a_run_from_launch_to_success(world: World) -> None:
    await world.join("east")
    run = await world.running()
    assert world.router.keys[run].epoch == 1
    done = await world.send(run, output("a"), output("b"), output("c"), Succeeded('{"o0":3}'))
    assert (done.cursor, done.verdicts) == (4, ())
    view = await world.view(run)
    assert (view.phase, view.outputs, view.epoch) == (Phase.SUCCEEDED, '{"o0":3}', 2)
    assert [node.phase for node in view.nodes] == ["SUCCEEDED"] * 3
    await world.delivery.deliver()
    assert run not in world.router.keys


async def test_i1_every_ending_raises_the_epoch(world: World) -> None:
    await world.join("east")
    for index, body in enumerate((Succeeded("{}"), BODIES[Failed])):
        run = await world.running(name=f"run{index}")
        await world.send(run, output("a"), output("b"), output("c"), body)
        view = await world.view(run)
        assert view.phase.terminal
        assert view.epoch == 2
    run = await world.running(name="cancelled")
    cancelled = await world.executions.cancel(run)
    assert (cancelled.phase, cancelled.epoch) == (Phase.ABORTED, 2)


async def test_i2_the_first_output_of_a_node_stays(world: World) -> None:
    await world.join("east")
    run = await world.running()
    assert results(await world.send(run, output("a", "1"))) == []
    assert results(await world.send(run, output("a", "1"))) == [(0, Result.ALREADY_COMMITTED)]
    other = await world.send(run, output("b", "5"), output("a", "2"), output("b", "6"))
    assert results(other) == [(1, Result.CONFLICT), (2, Result.INCOMPLETE)]
    assert results(await world.send(run, output("b", "6"))) == [(0, Result.CONFLICT)]
    kept = [verdict.kept.value for verdict in other.verdicts if verdict.kept]
    assert kept == ['{"o0":1}']
    view = await world.view(run)
    assert [node.outputs for node in view.nodes] == ['{"o0":1}', '{"o0":5}', ""]


@pytest.mark.parametrize("kind", list(BODIES), ids=lambda kind: kind.__name__)
async def test_i3_no_event_of_an_older_epoch_changes_a_row(world: World, kind: type[Body]) -> None:
    """Every kind of event there is; a kind that is not in the table fails the test below."""
    await world.join("east", "west")
    run = await world.running()
    await world.send(run, Released())
    world.router.up = ["west"]
    await world.dispatch([run], cause="migration")
    assert (await world.claim(run, 2, "west", 1)).answer.claimed
    before = await world.rows()
    for epoch, cluster in ((1, "east"), (1, "west"), (2, "east")):
        answer = await world.send(run, BODIES[kind], epoch=epoch, cluster=cluster)
        assert results(answer) == [(0, Result.FENCED)]
        assert answer.verdicts[0].current_epoch == 2
    assert await world.rows() == before


def test_every_kind_of_event_is_replayed() -> None:
    assert set(BODIES) == set(Body.__args__)  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", list(BODIES), ids=lambda kind: kind.__name__)
async def test_i3_an_older_session_of_the_owner_is_fenced(world: World, kind: type[Body]) -> None:
    await world.join("east")
    run = await world.running()
    assert await world.session("east") == 2
    assert (await world.claim(run, 1, "east", 2)).answer.claimed
    before = await world.rows()
    answer = await world.send(run, BODIES[kind], session=1)
    assert results(answer) == [(0, Result.FENCED)]
    assert not (await world.claim(run, 1, "east", 1)).answer.claimed
    assert await world.rows() == before


@pytest.mark.parametrize("kind", list(BODIES), ids=lambda kind: kind.__name__)
async def test_i4_nothing_is_committed_without_a_claim(world: World, kind: type[Body]) -> None:
    await world.join("east")
    run = await world.placed()
    before = await world.rows()
    assert results(await world.send(run, BODIES[kind])) == [(0, Result.FENCED)]
    assert await world.rows() == before


@pytest.mark.parametrize("kind", list(BODIES), ids=lambda kind: kind.__name__)
async def test_i3_nothing_changes_after_the_end(world: World, kind: type[Body]) -> None:
    await world.join("east")
    run = await world.running()
    await world.executions.cancel(run)
    before = await world.rows()
    for epoch in (1, 2):
        answer = await world.send(run, BODIES[kind], epoch=epoch)
        assert results(answer) == [(0, Result.FENCED)]
        assert not (await world.claim(run, epoch, "east", 1)).answer.claimed
    assert await world.rows() == before


async def test_what_follows_an_ending_in_its_batch_is_fenced(world: World) -> None:
    await world.join("east")
    run = await world.running()
    answer = await world.send(run, output("a"), BODIES[Failed], output("b"), Succeeded("{}"))
    assert results(answer) == [(2, Result.FENCED), (3, Result.FENCED)]
    view = await world.view(run)
    assert [node.phase for node in view.nodes] == ["SUCCEEDED", "SKIPPED", "SKIPPED"]


async def test_success_needs_every_output(world: World) -> None:
    await world.join("east")
    run = await world.running()
    answer = await world.send(run, output("a"), output("b"), Succeeded("{}"))
    assert results(answer) == [(2, Result.INCOMPLETE)]
    assert (await world.view(run)).phase is Phase.RUNNING
    answer = await world.send(run, output("c"), Succeeded("{}"))
    assert results(answer) == []
    assert (await world.view(run)).phase is Phase.SUCCEEDED


async def test_i8_late_copies_of_a_batch_change_nothing(world: World) -> None:
    await world.join("east")
    run = await world.running()
    first = await world.send(run, Status("a", 1, "RUNNING"), output("a"), output("b"))
    before = await world.rows()
    again = await world.send(run, Status("a", 1, "RUNNING"), output("a"), output("b"), first=1)
    assert again.cursor == first.cursor == 3
    assert again.verdicts == ()
    assert await world.rows() == before
    # A copy with news behind it: only the news are taken.
    mixed = await world.send(run, output("b"), output("c"), first=3)
    assert (mixed.cursor, mixed.verdicts) == (4, ())


async def test_i8_a_lost_reply_is_answered_the_same_again(world: World) -> None:
    await world.join("east")
    run = await world.running()
    await world.send(run, output("a", "1"))
    first = await world.send(run, output("a", "2"))
    again = await world.send(run, output("a", "2"), first=2)
    assert results(first) == results(again) == [(0, Result.CONFLICT)]
    await world.send(run, output("b"), output("c"), Succeeded("{}"))
    again = await world.send(run, output("b"), output("c"), Succeeded("{}"), first=3)
    assert results(again) == []


async def test_a_gap_takes_nothing(world: World) -> None:
    await world.join("east")
    run = await world.running()
    answer = await world.send(run, output("a"), first=5)
    assert (answer.gap_expected, answer.cursor) == (1, 0)
    assert (await world.rows("node_output"))["node_output"] == []


async def test_a_session_that_was_never_opened_is_refused(world: World) -> None:
    await world.join("east")
    run = await world.running()
    for cluster, session in (("east", 0), ("nowhere", 1)):
        with pytest.raises(Fenced):
            await world.send(run, output("a"), cluster=cluster, session=session)


async def test_i5_the_next_owner_learns_everything(world: World) -> None:
    await world.join("east", "west")
    run = await world.running()
    failure = Failure(Owner.USER, "raised", "no", "b")
    await world.send(
        run, output("a"), Status("b", 1, "FAILED", error=failure, will_retry=True),
        Saved("b", 2, ARTIFACT, 5), Status("b", 2, "RUNNING"), Released(),
    )  # fmt: skip
    assert (await world.view(run)).reason == "released"
    world.router.up = ["west"]
    await world.dispatch([run])
    claimed = await world.claim(run, 2, "west", 1)
    assert [(item.node, item.value, item.epoch) for item in claimed.outputs] == [
        ("a", '{"o0":1}', 1)
    ]
    assert [item.artifact for item in claimed.checkpoints] == [ARTIFACT]
    [tries] = claimed.tries
    assert (tries.node, tries.attempts, tries.user_failures) == ("b", 2, 1)
    view = await world.view(run)
    assert [node.lineage for node in view.nodes] == ["kept", "", ""]


async def test_a_failure_counts_once(world: World) -> None:
    await world.join("east")
    run = await world.running()
    failed = Status("a", 1, "FAILED", error=Failure(Owner.USER, "raised", "no"), will_retry=True)
    await world.send(run, failed)
    assert await world.session("east") == 2
    assert (await world.claim(run, 1, "east", 2)).answer.claimed
    await world.send(run, failed, session=2)
    [tries] = (await world.claim(run, 1, "east", 2)).tries
    assert (tries.user_failures, tries.system_failures) == (1, 0)


@pytest.mark.parametrize("kind", ["interrupted", "evicted"])
async def test_a_graceful_move_with_a_checkpoint_of_its_own_does_not_count(
    world: World, kind: str
) -> None:
    await world.join("east")
    run = await world.running()
    error = Failure(Owner.SYSTEM, kind, "asked to move", "a")

    def failed(attempt: int) -> Status:
        return Status("a", attempt, "FAILED", 1, 2, error, will_retry=True)

    async def count() -> tuple[int, int]:
        [tries] = (await world.claim(run, 1, "east", 1)).tries
        return tries.attempts, tries.system_failures

    counts = kind != "interrupted"
    await world.send(run, Saved("a", 1, ARTIFACT, 5), failed(1))
    assert await count() == (1, counts)
    await world.send(run, Saved("a", 2, ARTIFACT, 6))
    await world.send(run, failed(2))
    assert await count() == (2, 2 * counts)
    await world.send(run, failed(3))
    assert await count() == (3, 2 * counts + 1), "it saved nothing itself"


async def test_released_work_is_claimed_by_nobody(world: World) -> None:
    await world.join("east")
    run = await world.running()
    await world.send(run, Released())
    assert not (await world.claim(run, 1, "east", 1)).answer.claimed
    assert not (await world.claim(run, 1, "east", 2)).answer.claimed


async def test_i10_unreadable_input_takes_back_what_was_made_from_it(world: World) -> None:
    await world.join("east")
    run = await world.running(chain("a", "b", "c", "d"))
    # c passes on the file that b made.
    await world.send(run, output("a"), output("b", uri="file:///b"), output("c", uri="file:///b"))
    answer = await world.send(run, Unreachable("d", ("file:///b",)))
    assert results(answer) == []
    view = await world.view(run)
    assert (view.phase, view.reason, view.epoch) == (Phase.WAITING, "unreadable_input", 2)
    assert [node.phase for node in view.nodes] == ["SUCCEEDED", "QUEUED", "QUEUED", "QUEUED"]
    assert [bool(node.lineage) for node in view.nodes] == [False, True, True, False]
    await world.delivery.deliver()
    await world.dispatcher.drain()
    claimed = await world.claim(run, 3, "east", 1)
    assert [item.node for item in claimed.outputs] == ["a"]
    # I2: the next epoch supersedes what was declared; the old rows are history.
    assert results(await world.send(run, output("b", "7"), epoch=3)) == []
    found = (await world.rows("node_output"))["node_output"]
    assert len(found) == 4


async def test_one_batch_serves_many_runs(world: World) -> None:
    await world.join("east")
    runs = [await world.running(chain("a"), name=f"run{index}") for index in range(5)]
    events = tuple(Event(run, 1, body) for run in runs for body in (output("a"), Succeeded("{}")))
    done = await world.ledger.commit(Batch("east", 1, 1, events))
    assert (done.cursor, done.verdicts) == (10, ())
    assert sorted(done.moved) == sorted(runs)


AFTER = [output("b", "2"), output("c", "2")]
"""What an agent made from the output of `a` that was refused."""


@pytest.mark.parametrize("end", [Succeeded("{}"), BODIES[Failed], Released(), BODIES[Unreachable]])
async def test_i10_nothing_of_a_run_is_taken_after_a_conflict(world: World, end: Body) -> None:
    await world.join("east")
    run, other = (
        await world.running(),
        await world.running(chain("a", name="flows.other"), name="other"),
    )
    await world.send(run, output("a", "1"))
    saved = Saved("c", 1, ARTIFACT, 5)
    bodies = (output("a", "2"), AFTER[0], saved, AFTER[1], output("b", "2"), end, output("b", "3"))
    events = (
        *(Event(run, 1, body) for body in bodies),
        Event(other, 1, output("a")), Event(other, 1, Succeeded("{}")),
    )  # fmt: skip
    done = await world.ledger.commit(Batch("east", 1, 2, events))
    refused = [(index, Result.INCOMPLETE) for index in range(1, 7)]
    assert (done.cursor, results(done)) == (10, [(0, Result.CONFLICT), *refused])
    view = await world.view(run)
    assert (view.phase, view.epoch) == (Phase.RUNNING, 1)
    assert [node.outputs for node in view.nodes] == ['{"o0":1}', "", ""]
    assert (await world.rows("checkpoint"))["checkpoint"] == []
    assert done.moved == (other,)
    # The answer is lost: said again, it is not taken either, nor is what follows by then.
    again = await world.ledger.commit(Batch("east", 1, 2, (*events, Event(run, 1, output("c")))))
    objections = dict(results(again))
    assert objections[0] is Result.CONFLICT
    assert objections[5] is Result.INCOMPLETE
    assert objections[9] is Result.INCOMPLETE
    # It claims anew and goes on from what is live.
    assert (await world.claim(run, 1, "east", 1)).answer.claimed
    sent = (output("b", "1"), output("c", "1"), Succeeded("{}"))
    assert results(await world.send(run, *sent, first=12)) == []
    assert (await world.view(run)).phase is Phase.SUCCEEDED


async def test_i10_a_conflict_whose_answer_was_lost_stops_what_is_sent_with_it(
    world: World,
) -> None:
    await world.join("east")
    run = await world.running()
    await world.send(run, output("a", "1"))
    await world.send(run, output("a", "2"))
    again = await world.send(run, output("a", "2"), *AFTER, Succeeded("{}"), first=2)
    assert again.cursor == 5
    later = [(index, Result.INCOMPLETE) for index in (1, 2, 3)]
    assert results(again) == [(0, Result.CONFLICT), *later]
    assert [node.outputs for node in (await world.view(run)).nodes] == ['{"o0":1}', "", ""]


async def test_nothing_is_taken_after_an_incomplete_end(world: World) -> None:
    await world.join("east")
    run = await world.running()
    sent = (output("a"), Succeeded("{}"), output("b"), output("c"), Succeeded("{}"))
    answer = await world.send(run, *sent)
    assert results(answer) == [(index, Result.INCOMPLETE) for index in (1, 2, 3, 4)]
    view = await world.view(run)
    assert [node.phase for node in view.nodes] == ["SUCCEEDED", "QUEUED", "QUEUED"]
