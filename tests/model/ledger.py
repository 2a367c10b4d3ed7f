"""SQL's side: fence, claim, commit, declare. Each function is one transaction on one row.

Called by the action files; answers the row afterwards and, for a commit, the verdict. The same
rules as `control_plane/ledger`, in the same words.
"""

from typing import Any

from tests.model.setup import Setup
from tests.model.state import NOTHING, TERMINAL, A, B, Event, Output, Row, Value, changed


def fence(
    setup: Setup, row: Row, *, epoch: int, cluster: int, decision: Any, seen: tuple[int, int]
) -> Row | None:
    """The row afterwards; the same one if this was decided before; None = refused."""
    if row.phase in TERMINAL:
        return None
    if row.epoch == epoch and row.decision == decision:
        return row
    if "fence_compare" in setup.off:
        if row.epoch >= epoch:
            return None
    elif row.epoch != epoch - 1 or (row.owner, row.session) != seen:
        return None
    return row._replace(
        epoch=epoch,
        owner=cluster,
        session=row.session if "fence_unclaims" in setup.off else 0,
        decision=decision,
        phase="ASSIGNED" if cluster else "MOVING",
        released=0,
        want="run",
        gate=0,
    )


def quiesced(setup: Setup, row: Row, *, epoch: int, cluster: int) -> Row | None:
    """Its owner is asked to let go; None = it is not what the story began with."""
    if row.phase in TERMINAL or not row.owner:
        return None
    if (row.epoch, row.owner) != (epoch, cluster) and "quiesce_compare" not in setup.off:
        return None
    want = "run" if "row_wants" in setup.off else "quiesce"
    return row._replace(want=want, phase="MOVING")


def above(row: Row, seen: int) -> Row:
    """SQL was restored and is behind what was acknowledged: above that, and nobody's."""
    return handed_back(row._replace(epoch=seen))._replace(
        decision=("restored", seen + 1), released=0
    )


def claim(setup: Setup, row: Row, *, epoch: int, cluster: int, session: int) -> Row | None:
    """The row with the owner's session raised; None = FENCED."""
    if row.phase in TERMINAL or row.released or row.epoch != epoch:
        return None
    if row.owner != cluster or row.session > session:
        return None
    raised = row.session if "claim_raises" in setup.off and row.session else session
    return row._replace(session=raised, phase="MOVING" if row.want == "quiesce" else "RUNNING")


def owns(setup: Setup, row: Row, *, epoch: int, cluster: int, session: int) -> bool:
    if row.released and "released_clears" not in setup.off:
        return False
    if "terminal_raises" not in setup.off and row.phase in TERMINAL:
        return False
    return (
        (row.epoch == epoch or "commit_epoch" in setup.off)
        and row.owner == cluster
        and (row.session == session or "commit_session" in setup.off)
    )


def declared(setup: Setup, row: Row, lost: tuple[Value, ...]) -> Row:
    """Outputs that can't be read and that a node still to run reads become history, with what was
    made from them."""
    a, b = row.outputs
    if "unreadable" in setup.off:
        gone = [out and out._replace(live=out.live and out.value not in lost) for out in (a, b)]
        return row._replace(outputs=tuple(gone))
    if b and b.value in lost:
        b = b._replace(live=False)
    if a and a.live and a.value in lost and not (b and b.live):
        a = a._replace(live=False)
        b = b and b._replace(live=False)
    return row._replace(outputs=(a, b))


def live(row: Row, node: int) -> Any:
    """The value of the live output of a node, () if there is none."""
    out = row.outputs[node]
    return out.value if out and out.live else NOTHING


def commit(
    setup: Setup, row: Row, event: Event, *, cluster: int, session: int
) -> tuple[Row, str, Any]:
    """-> row, verdict, the value that is kept (for CONFLICT)."""
    if not owns(setup, row, epoch=event.epoch, cluster=cluster, session=session):
        return row, "FENCED", NOTHING
    match event.kind:
        case "output":
            kept = live(row, event.node)
            if kept:
                same = kept == event.value
                return row, "ALREADY" if same else "CONFLICT", NOTHING if same else kept
            out = Output(event.value, event.epoch, event.reads, True)
            return row._replace(outputs=changed(row.outputs, event.node, out)), "COMMITTED", NOTHING
        case "saved":
            saved = changed(row.saved, event.node, event.epoch)
            return row._replace(saved=saved), "COMMITTED", NOTHING
        case "succeeded":
            if "complete" not in setup.off and not (live(row, A) and live(row, B)):
                return row, "INCOMPLETE", NOTHING
            return ended(setup, row, "SUCCEEDED"), "COMMITTED", NOTHING
        case "released" | "no_room":
            phase = "MOVING" if row.phase == "MOVING" else "WAITING"
            row = row._replace(released=event.epoch)
            if "released_clears" not in setup.off:
                row = row._replace(owner=0, session=0, phase=phase)
            return row, "COMMITTED", NOTHING
        case "unreachable":
            row = declared(setup, row, (event.value,))
            return handed_back(row), "COMMITTED", NOTHING
        case _:
            raise AssertionError(event.kind)


def ended(setup: Setup, row: Row, phase: str) -> Row:
    raised = 0 if "terminal_raises" in setup.off else 1
    return row._replace(epoch=row.epoch + raised, phase=phase)


def handed_back(row: Row) -> Row:
    return row._replace(
        epoch=row.epoch + 1,
        owner=0,
        session=0,
        decision=("unreadable", row.epoch + 1),
        phase="WAITING",
        released=row.epoch + 1,
        want="run",
        gate=0,
    )


def repeated(row: Row, event: Event) -> tuple[str, Any]:
    """The verdict on an event below the cursor: its first answer was lost; changes nothing."""
    match event.kind:
        case "output":
            kept = live(row, event.node)
            if kept == event.value:
                return "COMMITTED", NOTHING
            if not kept or row.epoch != event.epoch:
                return "FENCED", NOTHING
            return "CONFLICT", kept
        case "succeeded":
            if row.phase in TERMINAL and row.epoch == event.epoch + 1:
                return "COMMITTED", NOTHING
            return "INCOMPLETE" if row.epoch == event.epoch else "FENCED", NOTHING
        case "saved":
            return "COMMITTED" if row.epoch == event.epoch else "FENCED", NOTHING
        case _:
            return "COMMITTED", NOTHING
