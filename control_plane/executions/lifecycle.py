"""The life of an execution: one enum, its terminals, one table of legal moves. Pure.

Asked by whoever is about to write a phase; nobody assigns one without it.
"""

from collections.abc import Mapping

from whimbrel.spec import Phase

MOVES: Mapping[Phase, frozenset[Phase]] = {
    Phase.QUEUED: frozenset({Phase.WAITING, Phase.ASSIGNED, Phase.FAILED, Phase.ABORTED}),
    Phase.WAITING: frozenset(
        {Phase.WAITING, Phase.ASSIGNED, Phase.MOVING, Phase.FAILED, Phase.ABORTED}
    ),
    # Assigned once more when the first cluster did not claim it in time.
    Phase.ASSIGNED: frozenset(
        {Phase.ASSIGNED, Phase.RUNNING, Phase.MOVING, Phase.WAITING, Phase.FAILED, Phase.ABORTED}
    ),
    # Running once more when the agent's next session claims what it holds.
    Phase.RUNNING: frozenset(
        {
            Phase.RUNNING,
            Phase.MOVING,
            Phase.WAITING,
            Phase.SUCCEEDED,
            Phase.FAILED,
            Phase.ABORTED,
        }
    ),
    Phase.MOVING: frozenset(
        {
            Phase.MOVING,
            Phase.ASSIGNED,
            Phase.WAITING,
            Phase.SUCCEEDED,
            Phase.FAILED,
            Phase.ABORTED,
        }
    ),
    Phase.SUCCEEDED: frozenset(),
    Phase.FAILED: frozenset(),
    Phase.ABORTED: frozenset(),
}

TERMINAL = frozenset(phase for phase in Phase if phase.terminal)


class IllegalMove(AssertionError):
    """A bug of ours: somebody decided without looking at the phase."""


def move(before: Phase | str, after: Phase) -> str:
    """The phase to write; raises when the table does not have this move."""
    if after not in MOVES[Phase(before)]:
        raise IllegalMove(f"an execution never goes from {before} to {after}")
    return after.value
