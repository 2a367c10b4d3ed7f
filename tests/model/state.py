"""The world as one immutable value: what SQL, etcd, the agents, the pods and the network hold.

Made by `initial`, changed by the action files through `_replace`, judged by `invariants.py`. All
fields are numbers, words and tuples, so that two equal worlds are equal tuples.
"""

from typing import Any, NamedTuple

A, B = 0, 1
"""The graph of every run: node B reads what node A made."""
NOTHING: tuple[Any, ...] = ()
TERMINAL = ("SUCCEEDED", "FAILED", "ABORTED")
LEVEL = {"run": 0, "quiesce": 1, "cancel": 2}


class Value(NamedTuple):
    """What one attempt made; another attempt of the same node makes another one."""

    run: int
    node: int
    epoch: int
    cluster: int
    serial: int


class Output(NamedTuple):
    """A row of outputs; `reads` is the value of A it was made from. Not live = history."""

    value: Value
    epoch: int
    reads: Any
    live: bool


class Row(NamedTuple):
    """A run in SQL. `owner` 0 = nobody, `session` 0 = unclaimed; `saved` epochs of checkpoints;
    `want` and `gate` are the level of its key at this epoch, `opened` is the fact of the gate."""

    epoch: int
    owner: int
    session: int
    decision: Any
    phase: str
    released: int
    outputs: tuple[Any, Any]
    saved: tuple[int, int]
    gate: int
    want: str
    opened: int


class Key(NamedTuple):
    """A run's assignment in etcd."""

    epoch: int
    cluster: int
    want: str
    gate: int


class Hold(NamedTuple):
    """What an agent's memory has of one run: the epoch it `claimed`, the (epoch, want, gate) it
    was `told`, the ledger's `answer` not yet read, the values it knows of A and B, and whether the
    Claim found the gate `opened`."""

    claimed: int
    told: tuple[Any, ...]
    answer: tuple[Any, ...]
    known: tuple[Any, Any]
    opened: int = 0


class Event(NamedTuple):
    """An entry of an outbox: output | saved | succeeded | released | no_room | unreachable."""

    kind: str
    run: int
    node: int
    epoch: int
    value: Any
    reads: Any


class Agent(NamedTuple):
    """A process. `session` is the cluster epoch it was welcomed with, `first` the number of the
    oldest event in its outbox."""

    state: str
    session: int
    holds: tuple[Hold, ...]
    outbox: tuple[Event, ...]
    first: int


class Pod(NamedTuple):
    """An attempt that runs user code. `armed`: the session whose end its kernel timer waits for
    (exclusive work only); `agent` is told apart only where two agents share a cluster."""

    cluster: int
    run: int
    node: int
    epoch: int
    armed: int
    reads: Any
    value: Value
    agent: int


class Story(NamedTuple):
    """A program of the control plane, interrupted between two steps: dispatch, takeover, place
    (dispatch at the end of a takeover) or migration; the rest is what it remembers. `watched`: at
    which epoch it saw the run ownerless first, and which sessions were over then."""

    kind: str
    run: int
    step: str
    epoch: int = 0
    cluster: int = 0
    owner: int = 0
    session: int = 0
    lost: int = 0
    watched: tuple[Any, ...] = NOTHING


class Late(NamedTuple):
    """A copy of one operation that arrives some time later: put | delete | fence | declare."""

    kind: str
    run: int
    epoch: int
    cluster: int = 0
    want: str = ""
    owner: int = 0
    session: int = 0
    decision: Any = NOTHING


class Flight(NamedTuple):
    """A batch between agent and ledger; `heard`: its answer will reach the agent."""

    cluster: int
    session: int
    number: int
    event: Event
    heard: bool


class State(NamedTuple):
    """`sessions` last cluster epoch of each cluster, `live` the one with a key in etcd (0 = none),
    `over` the newest one whose deadline + W has certainly passed, `cursors` of each session."""

    rows: tuple[Row, ...]
    cursors: tuple[tuple[int, ...], ...]
    sessions: tuple[int, ...]
    live: tuple[int, ...]
    over: tuple[int, ...]
    keys: tuple[Any, ...]
    agents: tuple[Agent, ...]
    pods: tuple[Pod, ...]
    flights: tuple[Flight, ...]
    stories: tuple[Story, ...]
    late: tuple[Late, ...]
    lost: tuple[Value, ...]
    faults: tuple[int, ...]


NO_HOLD = Hold(0, NOTHING, NOTHING, (NOTHING, NOTHING))


def changed(items: tuple[Any, ...], at: int, value: Any) -> tuple[Any, ...]:
    return (*items[:at], value, *items[at + 1 :])


def without(items: tuple[Any, ...], item: Any) -> tuple[Any, ...]:
    """One occurrence less."""
    at = items.index(item)
    return items[:at] + items[at + 1 :]


def bag(items: Any) -> tuple[Any, ...]:
    """Order carries no meaning in a bag, so it must not make two states of one."""
    return tuple(sorted(items))
