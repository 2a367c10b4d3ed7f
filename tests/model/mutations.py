"""Each rule left out once, in a world small enough to show what it is for.

Read by `test_model.py`: the search must break the named invariant. `UNSEEN` are rules whose absence
breaks nothing here, and why that is.
"""

from dataclasses import dataclass, replace

from tests.model.scenarios import E, I, P
from tests.model.setup import Setup

THREE = (1, 2, 3)


@dataclass(frozen=True)
class Mutation:
    """Without `rule`, `world` breaks `breaks`."""

    rule: str
    breaks: str
    world: Setup

    @property
    def setup(self) -> Setup:
        name = f"without {self.rule}"
        return replace(self.world, name=name, off=self.world.off | {self.rule})


def world(classes: tuple[str, ...] = I, *off: str, **settings: object) -> Setup:
    return Setup("", classes, off=frozenset(off), **settings)  # pyright: ignore[reportArgumentType]


MUTATIONS = (
    Mutation("fence_compare", "I6", world(E, started=False, faults={"second": 1})),
    Mutation("fence_unclaims", "CLAIM", world(I, faults={"crash": 2})),
    Mutation("seen_owner", "I2", world(I, faults={"pause": 1})),
    Mutation("commit_epoch", "I3", world(I, faults={"migrate": 1, "impatient": 1})),
    Mutation("commit_session", "I2", world(I, clusters=(1, 1), faults={"twin": 1})),
    Mutation("claim_first", "I4", world(I, started=False)),
    Mutation("claim_raises", "I2", world(I, clusters=(1, 1), faults={"twin": 1})),
    Mutation("claim_shows", "I5", world(I, faults={"cut": 1})),
    Mutation("released_clears", "I8", world(I, faults={"squeezed": 1})),
    Mutation("released_last", "I6", world(E, faults={"squeezed": 1})),
    Mutation("terminal_raises", "I3", world(I, faults={"cancel": 1})),
    Mutation("complete", "I8", world(I, clusters=(1, 1), faults={"twin": 2}, sessions=4)),
    Mutation("reuse_digest", "I10", world(I, faults={"crash": 1, "torn": 1})),
    Mutation("conflict_drops", "I10", world(I, clusters=(1, 1), faults={"twin": 2}, sessions=4)),
    Mutation("unreadable", "I8", world(I, faults={"migrate": 1, "lose": 1})),
    Mutation("dispatch_quiet", "I6", world(E, started=False, faults={"second": 1, "cut": 1}, epochs=3, sessions=1)),
    Mutation("assign_after", "I4", world(I, started=False)),
    Mutation("put_compare", "KEY", world(I, started=False, faults={"cut": 1, "copy": 1})),
    Mutation("adopt_after", "I6", world(E, faults={"crash": 1})),
    Mutation("wait_exclusive", "I6", world(E, faults={"crash": 1})),
    Mutation("lease_at_start", "I6", world(E, faults={"pause": 1})),
    Mutation("predecessor", "I6", world(E, clusters=(1, 1), faults={"twin": 1})),
    Mutation("numbers_anew", "I8", world(I, faults={"cut": 1})),
    Mutation("cursor_own", "I8", world(I, faults={"cut": 1, "squeezed": 1})),
    Mutation("gap", "I8", world(I, faults={"early": 1})),
    Mutation("guard", "HOLD", world(I, clusters=THREE, faults={"dead": 2})),
    Mutation("hold_ends", "I8", world(I, clusters=THREE, faults={"dead": 2}, sessions=2)),
    Mutation("place_regions", "I9", world(I, started=False, allowed=frozenset({1}))),
    Mutation("migrate_regions", "I9", world(I, faults={"migrate": 1}, allowed=frozenset({1}))),
    Mutation("pinned_stays", "PINNED", world(P, faults={"crash": 1})),
    Mutation("orphans", "I8", world(I, clusters=(1, 1), faults={"twin": 1})),
    Mutation("drain_claims", "DRAIN", world(I, started=False, faults={"drain": 1})),
    Mutation("drain_order", "I5", world(I, faults={"drain": 1})),
    Mutation("drain_empty", "DRAIN", world(I, faults={"drain": 1})),
    Mutation("gate_waits", "GATE", world(I, faults={"gate": 1}, gated=True)),
    Mutation("sweep_keys", "I8", world(I, faults={"wipe": 1})),
    Mutation("sweep_moving", "I8", world(I, faults={"cut": 1, "forgotten": 1})),
)

UNSEEN: dict[str, str] = {}
