"""Exclusive runs in pods whose node, region or agent is cut off: for how long nobody is at work,
and that never two are.

Called by the failure report, as root; clusters, faults and stamps are those of the end-to-end
tests.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

from tests.e2e.kubernetes.alone import Loss, finish, launched, lost, next_try
from tests.e2e.kubernetes.cluster import Cluster, running
from tests.e2e.kubernetes.gates import serve_gates
from tests.e2e.kubernetes.network import GATEWAY
from tests.e2e.kubernetes.runs import Cloud, opened
from tests.e2e.kubernetes.state import locked

NODES = {"alpha": 2, "beta": 1}
LOSSES: tuple[Loss, ...] = get_args(Loss)


@contextmanager
def cloud(folder: Path) -> Iterator[tuple[Cloud, dict[str, Cluster]]]:
    folder.mkdir(parents=True)
    with (
        locked("tests"),
        running(NODES) as clusters,
        serve_gates(GATEWAY) as gates,
        opened(folder, clusters, gates) as whole,
    ):
        yield whole, clusters


def gaps(whole: Cloud, clusters: dict[str, Cluster], *, losses: int) -> dict[Loss, list[float]]:
    """Seconds from the last thing a lost try did to the first of the next one; an overlap is a
    negative one."""
    found: dict[Loss, list[float]] = {what: [] for what in LOSSES}
    for index in range(losses):
        what = LOSSES[index % len(LOSSES)]
        regions = ("alpha",) if what == "node" else ("alpha", "beta")
        run, journal = launched(whole, clusters, f"alone-{index}", *regions)
        with lost(whole, clusters, run, what):
            next_try(journal)
        finish(run)
        found[what] += journal.gaps()
    return found
