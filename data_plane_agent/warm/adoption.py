"""What warm pods of an earlier agent run, and answers of theirs that nobody took yet.

Owned by `pools.py`: filled as the pods dial, told once as `Found`. After that nobody can be found.
"""

import asyncio
from collections.abc import Callable, Iterable

from data_plane_agent.launcher import AttemptKey, Found
from data_plane_agent.warm.pool import Record, WarmPod
from data_plane_agent.warm.talk import Told

ADOPT_SECONDS = 10.0
"""For pods of an earlier agent to dial. Shorter computes again what still runs, longer delays all
else."""


class Adoption:
    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._found: dict[AttemptKey, str] | None = {}
        self._listed_at: float | None = None
        self._known = asyncio.Event()

    async def found(self) -> Found:
        await self._known.wait()
        found, self._found = self._found or {}, None
        return Found(found)

    def listed(self) -> None:
        """Each pod that is there is known now."""
        if self._listed_at is None:
            self._listed_at = self._clock()

    def look(self, pods: Iterable[WarmPod]) -> None:
        """Over once each pod has said what it runs, or has had the time."""
        if self._listed_at is None or self._known.is_set():
            return
        silent = any(pod.line is None for pod in pods)
        if not silent or self._clock() - self._listed_at > ADOPT_SECONDS:
            self._known.set()

    def take(self, pod: WarmPod, one: Told) -> Record | None:
        """None when it comes too late, or speaks of what is none of its business."""
        if self._found is None or not pod.pool.key.holds(one.key):
            return None
        record = Record(one.key, one.input_digest, pod.pool, None, one.folder, seq=one.seq)
        record.pod, record.began, record.began_ns = pod, self._clock(), one.began_ns
        pod.assigned[one.seq] = record
        self._found[one.key] = one.input_digest
        return record
