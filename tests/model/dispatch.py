"""Place, fence, assign: how a run gets an owner, interrupted anywhere and started twice.

Stories `dispatch` (from a launch or the sweeper) and `place` (the end of a takeover); walked by
`explore.py`. Reads a row, decides, and compares with what it read when it writes.
"""

from tests.model import etcd, ledger
from tests.model.invariants import of_row, of_taking
from tests.model.setup import Setup
from tests.model.state import (
    NOTHING,
    TERMINAL,
    Key,
    Late,
    Row,
    State,
    Story,
    bag,
    changed,
    without,
)
from tests.model.step import BEYOND, Step, Steps, left, spent

QUIET = ("QUEUED", "WAITING")


def to(s: State, story: Story, new: Story | None) -> State:
    """The story goes on as `new`, or ends."""
    rest = without(s.stories, story)
    return s._replace(stories=bag((*rest, new)) if new else rest)


def did(s: State, what: tuple[object, ...], late: Late, *, after: State, breach: str = "") -> Steps:
    """An operation, and the same with a second copy of it on its way."""
    yield Step(what, after, False, breach)
    if left(s, "copy") and not breach:
        yield Step((*what, "and a late copy"), spent(etcd.later(after, late), "copy"), True)


def dispatch_steps(setup: Setup, s: State) -> Steps:
    for story in sorted(set(s.stories)):
        if story.kind not in ("dispatch", "place"):
            continue
        match story.step:
            case "read":
                yield from placed(setup, s, story)
            case "watch":
                yield from watches(s, story)
            case "fence":
                yield from fenced(setup, s, story)
            case _:
                yield from assigned(setup, s, story)
        if story.kind == "dispatch" and left(s, "restart"):
            after = spent(to(s, story, None), "restart")
            yield Step(("control plane dies in a dispatch", "run", story.run), after, True)
        again = story.step != "read" and left(s, "retry")
        if again and sum(one.run == story.run for one in s.stories) < setup.stories:
            epoch = story.epoch - 1 if story.kind == "place" else 0
            copy = Story(story.kind, story.run, "read", epoch)
            after = spent(s._replace(stories=bag((*s.stories, copy))), "retry")
            yield Step(("the same step runs twice", "run", story.run), after, True)


def placed(setup: Setup, s: State, story: Story) -> Steps:
    row = s.rows[story.run]
    unclaimed = row.owner and not row.session
    if "fence_unclaims" in setup.off:
        unclaimed = row.owner and row.phase == "ASSIGNED"
    if story.kind == "place":
        ours = row.epoch == story.epoch and (not row.owner or unclaimed)
        ours = ours or (not row.owner and row.phase in QUIET)
    else:
        left_alone = row.phase == "MOVING" and "dispatch_quiet" not in setup.off
        ours = (not row.owner or unclaimed) and not left_alone
    if row.phase in TERMINAL or not ours:
        yield Step(("nothing to place", "run", story.run), to(s, story, None))
        return
    if row.epoch >= setup.epochs:
        yield BEYOND
        return
    if may_live(setup, story.run, row) and story.watched[:1] != (row.epoch,):
        over = tuple(n - bool(live) for n, live in zip(s.sessions, s.live, strict=True))
        watching = story._replace(step="watch", watched=(row.epoch, *over))
        yield Step(("sees it ownerless, waits W", "run", story.run), to(s, story, watching))
        return
    anywhere = False
    for cluster in setup.numbers:
        if s.live[cluster - 1] and (setup.allows(cluster) or "place_regions" in setup.off):
            anywhere = True
            new = story._replace(
                step="fence" if "assign_after" not in setup.off else "assign",
                epoch=row.epoch + 1,
                cluster=cluster,
                owner=row.owner,
                session=row.session,
                watched=NOTHING,
            )
            yield Step(("chooses", cluster, "run", story.run), to(s, story, new))
    if not anywhere:
        after = to(s, story, None)
        if not row.owner:
            after = after._replace(rows=changed(s.rows, story.run, row._replace(phase="WAITING")))
        yield Step(("no cluster will do: WAITING", "run", story.run), after)


def may_live(setup: Setup, run: int, row: Row) -> bool:
    """Has nobody said that the last copy of this exclusive run was stopped?"""
    exclusive = setup.classes[run] == "exclusive" and "wait_exclusive" not in setup.off
    return exclusive and not row.owner and row.epoch > 0 and not row.released


def watches(s: State, story: Story) -> Steps:
    """W by this process's own clock: what was over when it began to watch is certainly dead."""
    row, (epoch, *over) = s.rows[story.run], story.watched
    if row.owner or row.epoch != epoch:
        new = story._replace(step="read", watched=NOTHING)
        yield Step(("it is somebody's, no need to wait", "run", story.run), to(s, story, new))
    elif all(now >= then for now, then in zip(s.over, over, strict=True)):
        yield Step(("W is over", "run", story.run), to(s, story, story._replace(step="read")))


def fenced(setup: Setup, s: State, story: Story) -> Steps:
    row, run = s.rows[story.run], story.run
    seen, decision = (story.owner, story.session), ("placed", story.cluster)
    new = ledger.fence(
        setup, row, epoch=story.epoch, cluster=story.cluster, decision=decision, seen=seen
    )
    what = ("fences", "run", run, "epoch", story.epoch, "to cluster", story.cluster)
    if new is not None:
        after = to(s, story, story._replace(step="assign", owner=0, session=0))
        after = after._replace(rows=changed(s.rows, run, new))
        breach = of_row(row, new) or of_taking(setup, run, row, new)
        late = Late("fence", run, story.epoch, story.cluster, "", *seen, decision)
        yield from did(s, what, late, after=after, breach=breach)
    elif row.phase in TERMINAL:
        yield Step((*what, "refused: it has ended"), to(s, story, None))
    elif "fence_compare" in setup.off:
        if row.epoch >= setup.epochs:
            yield BEYOND
        else:
            yield Step(
                (*what, "refused: tries above"), to(s, story, story._replace(epoch=row.epoch + 1))
            )
    else:
        epoch = row.epoch if story.kind == "place" else 0
        again = Story(story.kind, run, "read", epoch)
        yield Step((*what, "refused: reads again"), to(s, story, again))


def assigned(setup: Setup, s: State, story: Story) -> Steps:
    what = ("assigns", "run", story.run, "epoch", story.epoch, "to cluster", story.cluster)
    key = Key(story.epoch, story.cluster, "run", 0)
    late = Late("put", story.run, story.epoch, story.cluster, "run", 0, key.gate)
    yield from did(s, what, late, after=etcd.put(setup, to(s, story, None), story.run, key))
