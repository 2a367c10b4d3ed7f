"""Who is lost, and since when: a pure decision over what the router has been able to hear.

Called by `lookout.py` at every tick with an observation; answers the losses that are certain
enough to be told. Nobody is lost before the router could have heard everybody for two TTLs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Observation:
    """`at` in seconds of a clock that never goes back; `wall_ns` Unix time. `hearing`: etcd and
    the control plane answer, so an agent could have said Hello. `sessions`: cluster -> cluster
    epoch of the session keys, empty while etcd can't be read. `outages` counts every cut of the
    router's view, however short: a cut between two ticks counts too."""

    at: float
    wall_ns: int
    hearing: bool
    outages: int
    sessions: Mapping[str, int]
    registered: frozenset[str]


@dataclass(frozen=True, slots=True)
class Absence:
    """A cluster without a session: `cluster_epoch` of the last one seen (0 = none was seen),
    `since_ns` the first time. `judged`: it is suspected, and stays so until a session comes."""

    cluster: str
    cluster_epoch: int
    since_ns: int
    judged: bool = False


@dataclass(frozen=True, slots=True)
class Membership:
    """`hearing_since` None = deaf now. `seen` are the sessions of the last observation."""

    ttl: float
    stall: float
    at: float | None = None
    hearing_since: float | None = None
    outages: int = 0
    seen: Mapping[str, int] = field(default_factory=dict[str, int])
    absent: Mapping[str, Absence] = field(default_factory=dict[str, Absence])

    @property
    def losses(self) -> list[Absence]:
        return [absence for absence in self.absent.values() if absence.judged]

    def suspected(self, cluster: str) -> bool:
        absence = self.absent.get(cluster)
        return absence is not None and absence.judged


def observe(members: Membership, now: Observation) -> Membership:
    """The next state. A tick that comes later than `stall` means that this process (or its whole
    machine) stood still: what it missed in that time is its own fault, so that is an outage."""
    if not now.hearing:
        # Deaf: an absence seen now may be etcd's or ours; keep what was judged before.
        return replace(members, at=now.at, hearing_since=None, outages=now.outages)
    stood_still = members.at is not None and now.at - members.at > members.stall
    broken = members.hearing_since is None or now.outages != members.outages or stood_still
    since = now.at if broken or members.hearing_since is None else members.hearing_since
    certain = now.at - since >= 2 * members.ttl
    expected = set(members.seen) | set(members.absent) | now.registered
    absent: dict[str, Absence] = {}
    for cluster in sorted(expected - set(now.sessions)):
        absence = members.absent.get(cluster) or Absence(
            cluster, members.seen.get(cluster, 0), now.wall_ns
        )
        absent[cluster] = replace(absence, judged=absence.judged or certain)
    return replace(
        members,
        at=now.at,
        hearing_since=since,
        outages=now.outages,
        seen=dict(now.sessions),
        absent=absent,
    )
