"""An operator moves a run: prepare, quiesce, RELEASED, fence, assign. Break before make.

Story `migration`; walked by `explore.py`; ends as a `place` story that assigns, or as a takeover
when its source is lost.
"""

from tests.model import etcd, ledger
from tests.model.dispatch import did, to
from tests.model.invariants import of_row
from tests.model.setup import Setup
from tests.model.state import TERMINAL, Key, Late, State, Story, bag, changed
from tests.model.step import BEYOND, Step, Steps, left, spent


def asked_steps(setup: Setup, s: State) -> Steps:
    if not left(s, "migrate"):
        return
    for run, row in enumerate(s.rows):
        busy = any(one.run == run and one.kind != "dispatch" for one in s.stories)
        if row.phase != "RUNNING" or not row.owner or busy:
            continue
        for target in setup.numbers:
            if target == row.owner or not s.live[target - 1]:
                continue
            if not setup.allows(target) and "migrate_regions" not in setup.off:
                continue
            story = Story("migration", run, "prepare", row.epoch, target, row.owner, row.session)
            after = spent(s._replace(stories=bag((*s.stories, story))), "migrate")
            yield Step(("migrate", "run", run, "to cluster", target), after, True)


def migration_steps(setup: Setup, s: State) -> Steps:
    for story in sorted(set(s.stories)):
        if story.kind != "migration":
            continue
        if s.rows[story.run].phase in TERMINAL:
            yield Step(("migration ends: so has run", story.run), to(s, story, None))
            continue
        match story.step:
            case "prepare":
                ready = to(s, story, story._replace(step="quiesce"))
                yield Step(("target is ready", "run", story.run), ready)
                if left(s, "full"):
                    after = spent(to(s, story, None), "full")
                    yield Step(("target refuses, nothing moves", "run", story.run), after, True)
            case "quiesce":
                key = Key(story.epoch, story.owner, "quiesce", s.rows[story.run].gate)
                after = to(s, story, story._replace(step="released"))
                late = Late("put", story.run, story.epoch, story.owner, "quiesce", 0, key.gate)
                what = ("wants quiesce", "run", story.run, "epoch", story.epoch)
                yield from did(s, what, late, after=etcd.put(setup, after, story.run, key))
            case "released":
                yield from awaits(setup, s, story)
            case _:
                yield from fences(setup, s, story)


def awaits(setup: Setup, s: State, story: Story) -> Steps:
    row, run = s.rows[story.run], story.run
    if row.released == story.epoch == row.epoch:
        new = story._replace(step="fence")
        yield Step(("sees RELEASED", "run", run), to(s, story, new))
        return
    if row.epoch > story.epoch:
        yield Step(("migration ends: moved on", "run", run), to(s, story, None))
        return
    again = etcd.put(setup, s, run, Key(story.epoch, story.owner, "quiesce", row.gate))
    if again != s:
        yield Step(("wants quiesce again", "run", run), again)
    stays = setup.classes[run] == "pinned" and "pinned_stays" not in setup.off
    if not s.live[story.owner - 1] and not stays:
        lost = s.sessions[story.owner - 1]
        takeover = Story("takeover", run, "look", cluster=story.owner, lost=lost)
        yield Step(("no RELEASED, session over: takeover", "run", run), to(s, story, takeover))
    elif setup.classes[run] == "idempotent" and left(s, "impatient") and row.owner == story.owner:
        takeover = Story(
            "takeover", run, "fence", row.epoch + 1, row.owner, row.owner, row.session, row.session
        )
        after = spent(to(s, story, takeover), "impatient")
        yield Step(("no RELEASED in time: takeover", "run", run), after, True)


def fences(setup: Setup, s: State, story: Story) -> Steps:
    row, run, epoch = s.rows[story.run], story.run, story.epoch + 1
    if epoch > setup.epochs:
        yield BEYOND
        return
    cleared = "released_clears" not in setup.off
    seen = (0, 0) if cleared else (row.owner, row.session)
    decision = ("operator", story.cluster)
    new = ledger.fence(setup, row, epoch=epoch, cluster=story.cluster, decision=decision, seen=seen)
    what = ("migration fences", "run", run, "epoch", epoch, "to cluster", story.cluster)
    if new is None:
        yield Step((*what, "refused: moved on"), to(s, story, None))
        return
    place = Story("place", run, "assign", epoch, story.cluster)
    after = to(s, story, place)._replace(rows=changed(s.rows, run, new))
    late = Late("fence", run, epoch, story.cluster, "", *seen, decision)
    yield from did(s, what, late, after=after, breach=of_row(row, new))
