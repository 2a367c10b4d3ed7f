"""How planned moves and drains look: the plan, how far they have come, what they came to.

Called by `execution migrate`, `cluster drain` and `region drain`; asks the client until it is over.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

from rich.filesize import decimal

from whimbrel.cli import show
from whimbrel.cli.show import Form
from whimbrel.client_moves import DrainView, MigrationView

LOOK_SECONDS = 0.25
"""Between two looks at what is under way. Shorter only costs calls, longer shows phases late."""


def migration(execution: Any, *, to: str, dry_run: bool, detach: bool, form: Form) -> int:
    """Begins it, follows it to its end unless `detach`; answers the exit code."""
    view: MigrationView = execution.migrate(to=to, dry_run=dry_run)
    if dry_run or detach:
        _result(view, form)
        return 0 if dry_run or view.phase != "REFUSED" else 1
    if form is Form.TABLE:
        plan(view)
    told = ""
    try:
        while True:
            if view.phase != told:
                told = view.phase
                show.say(f"{told:<12} {view.why}".rstrip())
            if view.ended_ns:
                break
            time.sleep(LOOK_SECONDS)
            newest: MigrationView | None = execution.refresh().migration
            if newest is None or newest.number != view.number:
                break  # another one was begun after it
            view = newest
    except KeyboardInterrupt:
        show.say(f"the move goes on; follow it: whimbrel execution watch {view.execution}")
        raise
    if form is Form.TABLE:
        outcome(view)
    else:
        show.document(view.as_json(), form)
    return 0 if view.well else 1


def _result(view: MigrationView, form: Form) -> None:
    if form is Form.TABLE:
        plan(view)
    else:
        show.document(view.as_json(), form)


def plan(view: MigrationView) -> None:
    target = view.to_cluster or "nowhere"
    why = f": {view.why}" if view.why else ""
    show.out().print(f"{view.execution}: {view.from_cluster or '-'} -> {target}{why}", markup=False)
    if view.nodes:
        rows = [
            (node.node, node.what, decimal(node.bytes) if node.bytes else "", node.why)
            for node in view.nodes
        ]
        show.table(("node", "what", "to copy", "why"), rows)
    if not view.to_cluster and view.refusals:
        rows = [(one.cluster, one.rule, one.why) for one in view.refusals]
        show.table(("cluster", "refused by", "why"), rows)


def outcome(view: MigrationView) -> None:
    pause = f", paused for {view.pause_ns / 1e9:.1f} s" if view.pause_ns else ""
    said = {
        "RESUMED": f"{view.execution} goes on in {view.to_cluster}{pause}",
        "ENDED": f"{view.execution} ended before it had moved",
        "TAKEN_OVER": f"{view.from_cluster} was lost meanwhile; a takeover moves it",
    }
    reason = view.why or view.reason or "no reason was given"
    show.say(said.get(view.phase, f"{view.execution} did not move: {reason}"))


def drain(
    client: Any, *, cluster: str, region: str, dry_run: bool, detach: bool, form: Form
) -> int:
    """Begins, and follows to the end unless `detach`; answers the exit code."""
    views: Sequence[DrainView] = client.drain(cluster=cluster, region=region, dry_run=dry_run)
    if not (dry_run or detach):
        views = [_followed(view, lambda name=view.cluster: client.drained(name)) for view in views]
    if form is not Form.TABLE:
        show.document([view.as_json() for view in views], form)
    else:
        for view in views:
            report(view)
    return 0 if all(view.phase != "CANCELLED" and not view.staying for view in views) else 1


def _followed(view: DrainView, look: Callable[[], DrainView | None]) -> DrainView:
    told = None
    try:
        while True:
            said = f"{view.cluster}: {counts(view)}"
            if said != told and (view.total or view.ended_ns):  # counted in its first step
                told = said
                show.say(said)
            if view.ended_ns:
                return view
            time.sleep(LOOK_SECONDS)
            newest = look()
            if newest is None or newest.number != view.number:
                return view
            view = newest
    except KeyboardInterrupt:
        show.say(f"the drain goes on; `whimbrel cluster uncordon {view.cluster}` ends it")
        raise


def counts(view: DrainView) -> str:
    parts = [f"{view.moved} of {view.total} moved"]
    parts += [f"{view.ended} ended"] if view.ended else []
    parts += [f"{view.staying} stay"] if view.staying else []
    return ", ".join(parts)


def report(view: DrainView) -> None:
    if view.number:
        show.out().print(f"{view.cluster}: {view.phase}, {counts(view)}", markup=False)
    else:
        show.out().print(f"{view.cluster}: {view.total} runs to move", markup=False)
    if view.migrations:
        rows = [
            (one.execution, one.to_cluster or "nowhere", show.phase(one.phase), _summary(one))
            for one in view.migrations
        ]
        show.table(("execution", "to", "phase", "what"), rows)


def _summary(view: MigrationView) -> str:
    if view.nodes:
        kinds = ("kept", "resumed", "run again", "not started")
        found = [(kind, sum(node.what == kind for node in view.nodes)) for kind in kinds]
        parts = ", ".join(f"{count} {kind}" for kind, count in found if count)
        return f"{parts}; {view.why}" if view.why else parts
    pause = f"paused for {view.pause_ns / 1e9:.1f} s" if view.pause_ns else ""
    return "; ".join(filter(None, (pause, view.why or view.reason)))
