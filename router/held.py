"""Whether an agent holds what is assigned to it, by the digest in its heartbeats. Pure.

Kept by `sessions.py` with each stream. The two differ whenever something is on its way, or waits
for room; of what stays different the agent is told everything again. Then it claims what it may
have missed, and asks the ledger about what is not named.
"""

from dataclasses import dataclass

FIRST_SECONDS = 30.0
"""Of difference, before everything is said again. Shorter says it while much is on its way, longer
leaves a run alone that was forgotten. Doubled each time."""
LONGEST_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Difference:
    """`since` on a steady clock, let be for `patience` seconds."""

    since: float
    patience: float = FIRST_SECONDS


def compare(before: Difference | None, *, same: bool, now: float) -> tuple[Difference | None, bool]:
    """The next record, and whether everything is to be said again."""
    if same:
        return None, False
    if before is None:
        return Difference(now), False
    if now - before.since < before.patience:
        return before, False
    return Difference(now, min(before.patience * 2, LONGEST_SECONDS)), True
