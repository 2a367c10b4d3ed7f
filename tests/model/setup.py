"""What is explored: clusters, classes of work, how many faults of each kind, which rules hold.

Built by `scenarios.py` and `mutations.py`; read by every action file. A rule named in `off` is left
out of the model as if nobody had written it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.model.state import NO_HOLD, NOTHING, Agent, Hold, Key, Row, State

FAULTS = {
    "crash": "an agent's process dies",
    "torn": "a crash takes the last event, which was not yet on disk",
    "cut": "an agent hears nothing for a while",
    "pause": "a lease ends although its agent lives",
    "twin": "a second process of one cluster starts",
    "copy": "an operation is carried out once more, later",
    "relay": "a second router holds a copy of a batch",
    "unanswered": "a batch is committed and its answer lost",
    "early": "a batch is sent before the one ahead of it is answered",
    "wipe": "etcd loses everything",
    "lose": "a region's store is lost",
    "dead": "a cluster is lost for good",
    "restart": "the control plane dies between two steps of a story",
    "forgotten": "Temporal forgets a story",
    "restore": "SQL's rows go back to what they were at the beginning",
    "second": "two dispatchers take up one run",
    "retry": "a story runs twice at once",
    "slow": "T_claim ends while an agent is only slow",
    "impatient": "a migration does not wait any longer for RELEASED",
    "full": "a migration's target refuses",
    "squeezed": "an agent has no room and lets a run go",
    "drain": "an agent is asked to stop",
    "cancel": "a user cancels",
    "migrate": "an operator moves a run",
    "gate": "a user opens a gate",
}
"""What may go wrong or be asked for; each happens as often as a scenario says."""
NAMES = tuple(FAULTS)

RULES = {
    "fence_compare": "a fence compares epoch, owner and session with what its caller saw",
    "fence_unclaims": "a fence sets the owner's session to 0: unclaimed",
    "seen_owner": "a takeover of session s leaves alone what a later session has claimed",
    "commit_epoch": "a commit needs the row's epoch",
    "commit_session": "a commit needs the row's session, too",
    "claim_first": "nothing starts before a Claim",
    "claim_raises": "Claim raises the owner's session",
    "claim_shows": "Claim answers the live outputs",
    "released_clears": "RELEASED clears the owner",
    "released_last": "nothing starts after RELEASED was written to the outbox",
    "terminal_raises": "an end raises the epoch",
    "complete": "no success before every output is live",
    "reuse_digest": "an attempt is adopted only if it read what is the input now",
    "objection_drops": "after an objection the agent forgets what it said of that run afterwards",
    "batch_stops": "in a batch, nothing of a run is taken after an objection",
    "unreadable": "an unreadable input hands the run back, and takes what was made from it along",
    "dispatch_quiet": "a dispatcher leaves alone what a story is moving",
    "quiesce_compare": "a migration asks only the owner and epoch that it began with to let go",
    "keys_want": "a key that is written again says what the row wants",
    "row_wants": "what a migration wants of the owner is written in the row",
    "assign_after": "an assignment is written after its fence",
    "put_compare": "a put to etcd never replaces a newer epoch",
    "want_rises": "within an epoch `want` only rises",
    "delete_compare": "a delete never removes a newer epoch",
    "adopt_after": "found attempts are adopted only after Claim",
    "wait_exclusive": "who places exclusive work has seen it ownerless for W, if not released",
    "lease_at_start": "an exclusive task starts only under a live lease",
    "predecessor": "a new session waits for its predecessor's deadline + W",
    "numbers_anew": "a new session counts its events from 1",
    "cursor_own": "each session has a cursor of its own",
    "gap": "a batch that leaves a number out is refused",
    "guard": "a takeover holds while most clusters are gone",
    "guard_each": "a failover looks again before each batch",
    "hold_ends": "the hold ends after hold_max",
    "place_regions": "placement obeys the allowed regions",
    "migrate_regions": "an operator's migrate obeys them, too",
    "pinned_stays": "pinned work is never replaced automatically",
    "orphans": "attempts of a refused or released epoch are deleted whoever started them",
    "drain_claims": "a draining agent claims nothing new",
    "saved_first": "a checkpoint goes to the outbox before RELEASED",
    "drain_empty": "a draining agent leaves when it holds nothing",
    "gate_waits": "a node behind a gate waits for it",
    "claim_gates": "Claim answers which gates are open",
    "gate_rises": "within an epoch the gate of a key only rises",
    "sweep_keys": "missing keys are written again",
    "sweep_unclaimed": "what nobody claims is placed again",
    "sweep_moving": "what nobody owns is placed by the sweeper",
    "sweep_quiesced": "an owner asked to let go by a story that is gone gets a story again",
    "restore_raises": "what is above its row raises that above it, to nobody",
}


@dataclass(frozen=True)
class Setup:
    """`clusters` one entry an agent process; `allowed` clusters a run may use (None = all); gated:
    B waits for a gate; `started`: the runs begin claimed by cluster 1."""

    name: str
    classes: tuple[str, ...] = ("idempotent",)
    clusters: tuple[int, ...] = (1, 2)
    started: bool = True
    faults: Mapping[str, int] = field(default_factory=dict[str, int])
    off: frozenset[str] = frozenset()
    epochs: int = 4
    sessions: int = 3
    stories: int = 2
    allowed: frozenset[int] | None = None
    gated: bool = False
    live: bool = True

    @property
    def numbers(self) -> range:
        return range(1, max(self.clusters) + 1)

    def twins(self, cluster: int) -> bool:
        return self.clusters.count(cluster) > 1

    def restored(self, left: int) -> bool:
        """Have SQL's rows gone back? `left`: how often they may yet."""
        return left < self.faults.get("restore", 0)

    def allows(self, cluster: int) -> bool:
        return self.allowed is None or cluster in self.allowed


def initial(setup: Setup) -> State:
    runs = len(setup.classes)
    row = Row(0, 0, 0, NOTHING, "QUEUED", 0, (NOTHING, NOTHING), (0, 0), 0, "run", 0)
    key: tuple[object, ...] = NOTHING
    hold = NO_HOLD
    if setup.started:
        row = row._replace(epoch=1, owner=1, session=1, decision=("placed", 1), phase="RUNNING")
        key = Key(1, 1, "run", 0)
        hold = Hold(1, (1, "run", 0), NOTHING, (NOTHING, NOTHING))
    agents: list[Agent] = []
    for at, cluster in enumerate(setup.clusters):
        first = cluster not in setup.clusters[:at]
        mine = (hold if first and cluster == 1 else NO_HOLD,) * runs
        agents.append(Agent("ACTIVE" if first else "DOWN", int(first), mine, (), 1))
    ones = tuple(1 for _ in setup.numbers)
    return State(
        rows=(row,) * runs,
        cursors=tuple((0,) for _ in setup.numbers),
        sessions=ones,
        live=ones,
        over=tuple(0 for _ in setup.numbers),
        keys=(key,) * runs,
        agents=tuple(agents),
        pods=(),
        flights=(),
        stories=(),
        late=(),
        lost=(),
        faults=tuple(setup.faults.get(name, 0) for name in NAMES),
    )
