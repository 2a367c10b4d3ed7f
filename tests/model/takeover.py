"""A session is over: what it owned is fenced to nobody, looked through, and placed again.

Story `takeover`, one a run; walked by `explore.py`; begins with the mass-loss guard, ends as a
`place` story. A session s loses only what its cluster still owns with a claim no newer than s.
"""

from tests.model import etcd, ledger
from tests.model.dispatch import did, to
from tests.model.invariants import of_row, of_taking
from tests.model.setup import Setup
from tests.model.state import TERMINAL, Late, Row, State, Story, bag, changed
from tests.model.step import BEYOND, Step, Steps, left, many_gone, spent


def suspect_steps(setup: Setup, s: State) -> Steps:
    """The router reports a cluster without a session; rows alone say what there is to do."""
    for cluster in setup.numbers:
        if s.live[cluster - 1]:
            continue
        for run, row in enumerate(s.rows):
            if row.owner != cluster or row.phase in TERMINAL:
                continue
            if setup.classes[run] == "pinned" and "pinned_stays" not in setup.off:
                continue
            told = sum(one.run == run and one.kind in ("takeover", "place") for one in s.stories)
            if told and not (told == 1 and left(s, "retry")):
                continue
            lost = s.sessions[cluster - 1]
            # As if one look before the first batch of a failover were enough for all of them.
            looked = "guard_each" in setup.off and any(
                one.kind == "takeover" and one.step != "look" and one.cluster == cluster
                for one in s.stories
            )
            step = "unguarded" if looked else "look"
            story = Story("takeover", run, step, cluster=cluster, lost=lost)
            after = s._replace(stories=bag((*s.stories, story)))
            after = spent(after, "retry") if told else after
            yield Step(("suspected", cluster, "run", run), after, bool(told))


def takeover_steps(setup: Setup, s: State) -> Steps:
    for story in sorted(set(s.stories)):
        if story.kind != "takeover":
            continue
        match story.step:
            case "look" | "unguarded":
                yield from looks(setup, s, story)
            case "read":
                yield reads(setup, s, story)
            case "fence":
                yield from fences(setup, s, story)
            case "declare":
                what = ("declares what can't be read", "run", story.run)
                place = Story("place", story.run, "read", story.epoch)
                after = etcd.declare(setup, to(s, story, place), story.run, story.epoch)
                yield from did(s, what, Late("declare", story.run, story.epoch), after=after)
            case _:
                raise AssertionError(story.step)


def looks(setup: Setup, s: State, story: Story) -> Steps:
    begun = to(s, story, story._replace(step="read"))
    if not many_gone(setup, s):
        yield Step(("one loss, not many: takeover begins", "run", story.run), begun)
        return
    if "guard" in setup.off or story.step == "unguarded":
        breach = "HOLD a takeover begins while most clusters are gone"
        yield Step(("takeover begins", "run", story.run), begun, False, breach)
    if "hold_ends" not in setup.off:
        yield Step(("hold_max is over: takeover begins", "run", story.run), begun)


def reads(setup: Setup, s: State, story: Story) -> Step:
    row = s.rows[story.run]
    later = row.session > story.lost and "seen_owner" not in setup.off
    if row.phase in TERMINAL or row.owner != story.cluster or later:
        return Step(("not the lost session's any more", "run", story.run), to(s, story, None))
    new = story._replace(step="fence", epoch=row.epoch + 1, owner=row.owner, session=row.session)
    return Step(("takeover reads the row", "run", story.run, "epoch", row.epoch), to(s, story, new))


def fences(setup: Setup, s: State, story: Story) -> Steps:
    row, run = s.rows[story.run], story.run
    if story.epoch > setup.epochs:
        yield BEYOND
        return
    seen, decision = (story.owner, story.session), ("takeover", story.cluster)
    new = ledger.fence(setup, row, epoch=story.epoch, cluster=0, decision=decision, seen=seen)
    what = ("fences", "run", run, "epoch", story.epoch, "to nobody")
    if new is not None:
        after = to(s, story, story._replace(step="declare"))
        after = after._replace(rows=changed(s.rows, run, new))
        late = Late("fence", run, story.epoch, 0, "", *seen, decision)
        breach = of_row(row, new) or of_taking(setup, run, row, new) or too_late(row, new, story)
        yield from did(s, what, late, after=after, breach=breach)
    elif row.phase in TERMINAL:
        yield Step((*what, "refused: it has ended"), to(s, story, None))
    elif "fence_compare" in setup.off:
        new_story = story._replace(epoch=row.epoch + 1, owner=row.owner, session=row.session)
        yield Step((*what, "refused: tries above"), to(s, story, new_story))
    elif not row.owner:
        place = Story("place", run, "read", row.epoch)
        yield Step((*what, "refused: nobody's already"), to(s, story, place))
    else:
        again = Story("takeover", run, "read", cluster=story.cluster, lost=story.lost)
        yield Step((*what, "refused: reads again"), to(s, story, again))


def too_late(row: Row, new: Row, story: Story) -> str:
    """Did it take a run from a session that began after the lost one?"""
    if row != new and row.session > story.lost:
        return "I2 a takeover takes a run from a later session than the lost one"
    return ""
