"""Each rule left out once, in a world small enough to show what it is for.

Read by `test_model.py` and `__main__.py`: the search must break the named invariant. `UNSEEN` are
rules whose absence breaks nothing here.
"""

from dataclasses import dataclass, replace

from tests.model.scenarios import EXCL, IDEM, PIN, THREE
from tests.model.setup import Setup


@dataclass(frozen=True)
class Mutation:
    """Without `rule`, `world` breaks `breaks`."""

    rule: str
    breaks: str
    world: Setup
    why: str = ""

    @property
    def setup(self) -> Setup:
        name = f"without {self.rule}"
        return replace(self.world, name=name, off=self.world.off | {self.rule})


def world(classes: tuple[str, ...] = IDEM, *off: str, **settings: object) -> Setup:
    return Setup("", classes, off=frozenset(off), **settings)  # pyright: ignore[reportArgumentType]


TWINS = world(IDEM, clusters=(1, 1), faults={"twin": 2}, sessions=4)
RACE = world(EXCL, started=False, faults={"second": 1, "cut": 1}, epochs=3, sessions=1)
TWO_LOST = world(("idempotent", "idempotent"), clusters=THREE, faults={"dead": 2}, live=False)
ASKED = {"migrate": 1, "forgotten": 1}
RESTORED = world(IDEM, faults={"cut": 1, "restore": 1}, sessions=2)

MUTATIONS = (
    Mutation("fence_compare", "I6", world(EXCL, started=False, faults={"second": 1})),
    Mutation("fence_unclaims", "CLAIM", world(IDEM, faults={"crash": 2})),
    Mutation("seen_owner", "I2", world(IDEM, faults={"pause": 1})),
    Mutation("commit_epoch", "I3", world(IDEM, faults={"migrate": 1, "impatient": 1})),
    Mutation("commit_session", "I2", world(IDEM, clusters=(1, 1), faults={"twin": 1})),
    Mutation("claim_first", "I4", world(IDEM, started=False)),
    Mutation("claim_raises", "I2", world(IDEM, clusters=(1, 1), faults={"twin": 1})),
    Mutation("claim_shows", "I5", world(IDEM, faults={"cut": 1})),
    Mutation("released_clears", "I8", world(IDEM, faults={"squeezed": 1})),
    Mutation("released_last", "I6", world(EXCL, faults={"squeezed": 1})),
    Mutation("terminal_raises", "I3", world(IDEM, faults={"cancel": 1})),
    Mutation("reuse_digest", "I10", world(IDEM, faults={"crash": 1, "torn": 1})),
    Mutation("objection_drops", "I10", TWINS),
    Mutation("batch_stops", "I10", TWINS),
    Mutation("unreadable", "I8", world(IDEM, faults={"migrate": 1, "lose": 1})),
    Mutation("assign_after", "I4", world(IDEM, started=False)),
    Mutation("put_compare", "KEY", world(IDEM, started=False, faults={"cut": 1, "copy": 1})),
    Mutation("adopt_after", "I6", world(EXCL, faults={"crash": 1})),
    Mutation("wait_exclusive", "I6", world(EXCL, faults={"crash": 1})),
    Mutation("lease_at_start", "I6", world(EXCL, faults={"pause": 1})),
    Mutation("predecessor", "I6", world(EXCL, clusters=(1, 1), faults={"twin": 1})),
    Mutation("numbers_anew", "I8", world(IDEM, faults={"cut": 1})),
    Mutation("cursor_own", "I8", world(IDEM, faults={"cut": 1, "squeezed": 1})),
    Mutation("gap", "I8", world(IDEM, faults={"early": 1})),
    Mutation("guard", "HOLD", world(IDEM, clusters=THREE, faults={"dead": 2})),
    Mutation("guard_each", "HOLD", TWO_LOST),
    Mutation("hold_ends", "I8", world(IDEM, clusters=THREE, faults={"dead": 2}, sessions=2)),
    Mutation("place_regions", "I9", world(IDEM, started=False, allowed=frozenset({1}))),
    Mutation("migrate_regions", "I9", world(IDEM, faults={"migrate": 1}, allowed=frozenset({1}))),
    Mutation("pinned_stays", "PINNED", world(PIN, faults={"crash": 1})),
    Mutation("orphans", "I8", world(IDEM, clusters=(1, 1), faults={"twin": 1})),
    Mutation("drain_claims", "DRAIN", world(IDEM, started=False, faults={"drain": 1})),
    Mutation("saved_first", "I5", world(IDEM, faults={"drain": 1})),
    Mutation("drain_empty", "DRAIN", world(IDEM, faults={"drain": 1})),
    Mutation("gate_waits", "GATE", world(IDEM, faults={"gate": 1}, gated=True)),
    Mutation("claim_gates", "I8", world(IDEM, faults={"gate": 1, "cut": 1}, gated=True)),
    Mutation("quiesce_compare", "QUIESCE", world(IDEM, faults={"migrate": 1, "cut": 1})),
    Mutation("restore_raises", "I8", RESTORED),
    Mutation("sweep_keys", "I8", world(IDEM, faults={"wipe": 1})),
    Mutation("sweep_moving", "I8", world(IDEM, faults={"cut": 1, "forgotten": 1})),
)

UNSEEN = (
    Mutation(
        "sweep_quiesced", "", world(IDEM, faults=ASKED),
        "the keys are written again with what the row wants, and who hears that lets go",
    ),
    Mutation(
        "keys_want", "", world(IDEM, "sweep_quiesced", faults=ASKED),
        "an owner that is not told goes on and ends the run: only the move does not happen",
    ),
    Mutation(
        "row_wants", "", world(IDEM, faults=ASKED),
        "a story that waits puts its level again; one that is forgotten moves nothing, and the run "
        "ends where it is",
    ),
    Mutation(
        "dispatch_quiet", "", RACE,
        "the fence decides between a dispatcher and the story, and whoever places exclusive work "
        "waits W by itself; it is for the operator's choice of a target",
    ),
    Mutation(
        "complete", "", TWINS,
        "an agent says SUCCEEDED last and forgets it after an objection; where `objection_drops` "
        "is left out, too, a run succeeds without its outputs",
    ),
    Mutation(
        "want_rises", "", world(IDEM, faults={"migrate": 1, "copy": 1}),
        "a story that waits puts its level again, and after RELEASED the row refuses every Claim",
    ),
    Mutation(
        "delete_compare", "", world(IDEM, faults={"cancel": 1, "copy": 1}),
        "a key is deleted only after the run's end, and after that no newer one is written",
    ),
    Mutation(
        "gate_rises", "", world(IDEM, started=False, faults={"gate": 1, "copy": 1}, gated=True),
        "the sweeper writes a key again whose gate lags behind the row's",
    ),
    Mutation(
        "sweep_unclaimed", "", world(IDEM, started=False, faults={"restart": 1, "dead": 1}),
        "keys are written again and lost clusters taken over; it is for an agent that lives and "
        "does not claim, of which the model has none",
    ),
)  # fmt: skip
"""Second guards: in the model nothing breaks without them, and `why` says what holds instead."""
