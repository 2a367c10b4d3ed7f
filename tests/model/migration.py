"""An operator moves a run: prepare, quiesce, RELEASED, fence, assign. Break before make.

Story `migration`; walked by `explore.py`; ends as a `place` story that assigns. That its owner is
asked to let go stands in the row, so a forgotten one is begun again from there (`environment.py`).
A source that is lost is taken over by its failover, and the migration finds that the run moved on.
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
        if row.phase not in ("ASSIGNED", "RUNNING") or not row.owner or busy:
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
                yield wants(setup, s, story)
            case "ask":
                after = to(s, story, story._replace(step="released"))
                yield from asks(setup, s, story, after=after)
            case "released":
                yield from awaits(setup, s, story)
            case "send":
                yield from sends(setup, s, story)
            case _:
                yield from fences(setup, s, story)


def wants(setup: Setup, s: State, story: Story) -> Step:
    """The level is a fact of the row before any key says it."""
    row, run = s.rows[story.run], story.run
    new = ledger.quiesced(setup, row, epoch=story.epoch, cluster=story.owner)
    if new is None:
        if row.released == story.epoch == row.epoch:
            what = ("its owner has let go by itself", "run", run)
            return Step(what, to(s, story, story._replace(step="released")))
        return Step(("migration ends: moved on", "run", run), to(s, story, None))
    breach = ""
    if (row.epoch, row.owner) != (story.epoch, story.owner):
        breach = "QUIESCE an owner is asked to let go of what it was given after the plan"
    after = to(s, story, story._replace(step="ask"))._replace(rows=changed(s.rows, run, new))
    return Step(("row wants quiesce", "run", run, "epoch", story.epoch), after, False, breach)


def asks(setup: Setup, s: State, story: Story, *, after: State) -> Steps:
    key = Key(story.epoch, story.owner, "quiesce", s.rows[story.run].gate)
    late = Late("put", story.run, story.epoch, story.owner, "quiesce", 0, key.gate)
    what = ("key wants quiesce", "run", story.run, "epoch", story.epoch)
    yield from did(s, what, late, after=etcd.put(setup, after, story.run, key))


def awaits(setup: Setup, s: State, story: Story) -> Steps:
    row, run = s.rows[story.run], story.run
    if row.released == story.epoch == row.epoch:
        new = story._replace(step="send")
        yield Step(("sees RELEASED", "run", run), to(s, story, new))
        return
    if row.epoch != story.epoch:
        yield Step(("migration ends: moved on", "run", run), to(s, story, None))
        return
    again = etcd.put(setup, s, run, Key(story.epoch, story.owner, "quiesce", row.gate))
    if again != s:
        yield Step(("wants quiesce again", "run", run), again)
    # Only its owner may let go of what does harm twice; but who never claimed it runs nothing.
    impatient = setup.classes[run] == "idempotent" or not row.session
    if impatient and left(s, "impatient") and row.owner == story.owner:
        takeover = Story(
            "takeover", run, "fence", row.epoch + 1, row.owner, row.owner, row.session, row.session
        )
        after = spent(to(s, story, takeover), "impatient")
        yield Step(("no RELEASED in time: takeover", "run", run), after, True)


def sends(setup: Setup, s: State, story: Story) -> Steps:
    """To the target; refused there, back to the source; else to whoever takes it."""
    target, source, run = story.cluster, story.owner, story.run
    if s.live[target - 1]:
        yield Step(("goes to", target, "run", run), to(s, story, story._replace(step="fence")))
        if not left(s, "full"):
            return
        s = spent(s, "full")
    refused = bool(s.live[target - 1])
    if s.live[source - 1]:
        back = story._replace(step="fence", cluster=source)
        yield Step(("target refuses, back to", source, "run", run), to(s, story, back), refused)
    else:
        place = Story("place", run, "read", story.epoch)
        yield Step(("goes to whoever takes it", "run", run), to(s, story, place), refused)


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
