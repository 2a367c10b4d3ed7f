"""Every fault the system is to survive: one row a fault, what has to hold, and how it is injected.

Tests name the rows they inject with `@pytest.mark.fault(n)`; `record.py` gathers what became of
them, and the failure report shows a row without a test with the reason that stands here.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """`unrun` is why no test injects it here, "" = one does."""

    number: int
    fault: str
    holds: str
    unrun: str = ""


ROWS = (
    Row(1, "agent killed", "found within TTL and a look; work resumes elsewhere, one live output"),
    Row(2, "agent frozen for three TTLs, then woken", "taken over; the woken one changes no row"),
    Row(3, "agent frozen for half a TTL", "nothing moves"),
    Row(4, "agent's event loop blocked for longer than the TTL", "its watchdog thread notices"),
    Row(5, "link between agent and router cut both ways", "taken over, reconciled when it heals"),
    Row(6, "packets from the agent vanish", "taken over: no heartbeat arrives"),
    Row(7, "packets to the agent vanish", "taken over although its heartbeats arrive"),
    Row(8, "one packet in ten lost each way", "slower, and nothing moves"),
    Row(9, "a link that flaps for minutes", "work is not sent back to it; takeovers are bounded"),
    Row(10, "half-open connections, no end told", "dialled anew; no event is lost"),
    Row(11, "an agent that reads slowly", "the router's memory is bounded, heartbeats go on"),
    Row(12, "router killed, another one lives", "agents go on there; nothing moves"),
    Row(13, "routers restarted one after the other", "no assignment lost, nothing moves"),
    Row(14, "every router away for two TTLs", "nothing moves after they are back"),
    Row(15, "two routers judge one loss", "one story; one assignment an epoch"),
    Row(16, "control plane killed after the decision, before the fence", "decided again"),
    Row(17, "control plane killed after the fence, before the assignment", "assigned by a sweeper"),
    Row(18, "control plane killed after the assignment", "written again without effect"),
    Row(19, "a second agent of one cluster", "the newer session counts, the older one stops"),
    Row(20, "etcd: the leader of three killed", "nothing moves"),
    Row(21, "etcd frozen for two TTLs", "nothing moves, or a safe takeover"),
    Row(22, "etcd: quorum lost for two TTLs", "work goes on, nothing new; nothing moves after it"),
    Row(23, "etcd compacted past the watch", "read anew; nothing missed"),
    Row(24, "etcd restored from an older backup", "no epoch goes back"),
    Row(25, "PostgreSQL restarted at once during commits", "no output lost or doubled"),
    Row(26, "reply to a commit lost", "said again, answered as committed already"),
    Row(27, "deadlocks and serialisation failures in SQL", "tried again within bounds"),
    Row(28, "SQL away for longer than a TTL", "agents spool, then everything arrives in order"),
    Row(29, "Temporal restarted", "runs go on; stories continue"),
    Row(30, "worker of the stories killed inside a step", "the step is taken again; once"),
    Row(31, "a step that ends after its time-out", "the fence refuses what is late"),
    Row(32, "story code that does not fit a history", "the replay of saved histories fails"),
    Row(33, "thousands of runs in one story", "history is bounded"),
    Row(34, "API server answers 429, 500 or nothing", "no pod twice; the cluster is ill, not lost"),
    Row(35, "watch expired, cut or truncated", "listed anew; no end missed"),
    Row(36, "pod made although its answer was lost", "found by its name, not made twice"),
    Row(37, "node not ready, pods evicted, node returns", "platform's budget; counted once"),
    Row(38, "node drained, 30 s notice", "a checkpoint is saved and used"),
    Row(39, "the source dies in each phase of a migration", "one owner at the end, nothing lost"),
    Row(40, "region lost and the next one full", "waits with its reason, or goes to the third"),
    Row(41, "wall clock steps an hour", "nothing moves", "no way to step one process's wall clock "
        "here without stepping the machine's; rate error is in the agent's own tests"),
    Row(42, "machine suspended", "its boot clock shows it", "no virtual machine to suspend here; "
        "a frozen process (row 2) and the clock in the agent's own tests stand for it"),
    Row(43, "disk of the agent's spool full", "takes nothing new, says so, loses nothing"),
    Row(44, "certificate expires during a stream", "the session goes on", "no TLS at the doors "
        "yet"),
    Row(45, "object store away or slow", "nothing is committed that is not stored"),
    Row(46, "a run that kills its agent", "others go on", "a task in a pod can't reach its agent; "
        "one in a process runs as the agent's user, and nothing holds it back"),
    Row(47, "a region with a thousand runs lost", "moved at the set rate, oldest first"),
)  # fmt: skip
