"""What a run remembers of its nodes: newest checkpoints, hosts to keep away from, and what is known
and used up before it begins.

Kept by `run.py`; filled from a Claim's answer and from our own events that the ledger has not
confirmed.
"""

import json
from collections.abc import Iterable, Mapping

from whimbrel.spec import Failure, Owner

from data_plane_agent import dag
from data_plane_agent import messages as m
from data_plane_agent.residency import Residency

HOSTS_AVOIDED = 3
"""Hosts that a node's next attempts are kept away from. More: on a small cluster nothing is left;
fewer: two broken machines take turns."""


class Memory:
    def __init__(self, claimed: m.Claimed) -> None:
        self.checkpoints = {one.node: one for one in claimed.checkpoints}
        self.avoid = {one.node: one.avoid for one in claimed.tries if one.avoid}
        self.tries = {
            one.node: dag.Tries(one.attempts, one.user_failures, one.system_failures)
            for one in claimed.tries
        }
        self.known: dict[str, dag.Known] = {}

    def recall(
        self,
        events: Iterable[m.Event],
        *,
        documents: Mapping[str, dag.Outputs | None],
        residency: Residency,
    ) -> None:
        """`documents` are offloaded outputs by digest, None for an unreadable one."""
        for event in events:
            match event:
                case m.NodeOutput(node=node, attempt=attempt, outputs=outputs):
                    if outputs.offloaded is not None:
                        values = documents.get(outputs.offloaded.sha256)
                    else:
                        values = json.loads(outputs.value)
                    values = residency.values(values)
                    self.known[node] = dag.Known(values, event.input_digest, outputs.offloaded)
                    self.use(node, attempt)
                case m.AttemptRuns(node, attempt):
                    self.use(node, attempt)
                case m.AttemptFailed(node, attempt, failure):
                    self.broke(node, failure, event.host)
                    used = self.use(node, attempt)
                    user, system = used.user_failures, used.system_failures
                    # The ledger may have counted it already, if only its answer was lost.
                    moved = dag.moved(failure, saved=self.saved(node, attempt))
                    if user + system < attempt and not moved:
                        mine = failure.owner is Owner.USER
                        self.tries[node] = dag.Tries(
                            used.attempts, user + mine, system + (not mine)
                        )
                case m.Checkpointed(node):
                    self.checkpoints[node] = event
                case m.Succeeded() | m.Failed() | m.Released() | m.Unreachable():
                    pass

    def use(self, node: str, attempt: int) -> dag.Tries:
        """No other attempt may get this number."""
        used = self.tries.get(node, dag.Tries())
        if attempt > used.attempts:
            used = dag.Tries(attempt, used.user_failures, used.system_failures)
            self.tries[node] = used
        return used

    def saved(self, node: str, attempt: int) -> bool:
        """Has this very attempt stored a checkpoint?"""
        newest = self.checkpoints.get(node)
        return newest is not None and newest.attempt == attempt

    def broke(self, node: str, failure: Failure, host: str) -> None:
        """A host on which the platform broke an attempt: the next ones are kept away from it."""
        if failure.owner is Owner.SYSTEM and host:
            before = [one for one in self.avoid.get(node, ()) if one != host]
            self.avoid[node] = (host, *before)[:HOSTS_AVOIDED]
