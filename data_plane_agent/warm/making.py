"""How many warm pods there are: made on demand, ended when idle, given up when they don't work.

Owned by `pools.py`; over `warm_sight.Pods`. A pool whose pods don't get ready is no reason for its
tasks to wait: they get pods of their own, which also tell what is wrong.
"""

import logging
import secrets
from collections.abc import Callable
from typing import Protocol

from whimbrel.spec import Failure, Owner

from data_plane_agent.aside import Aside
from data_plane_agent.launcher import Attempt
from data_plane_agent.warm.pool import Pool, Record, WarmPod
from data_plane_agent.warm.settings import WarmSettings
from data_plane_agent.warm.sight import NoPod, Pods

log = logging.getLogger(__name__)

START_SECONDS = 60.0
"""For a pod to be ready. Shorter gives up while its image comes, longer keeps tasks waiting that a
pod of their own could run."""
COLD_SECONDS = 300.0
"""A pool whose pods don't work makes none. Shorter loses time at each try, longer goes without it
for longer."""
AGAIN_SECONDS = 1.0
"""Before another try to make a pod, when the API server did not take it."""
STRIKES = 2


class Ears(Protocol):
    def met(self, pod: WarmPod) -> None: ...
    def gone(self, name: str, failure: Failure | None) -> None: ...
    def given_back(self, records: list[Record]) -> None: ...


class Making:
    def __init__(
        self,
        cluster: Pods,
        ears: Ears,
        settings: WarmSettings,
        *,
        aside: Aside,
        clock: Callable[[], float],
    ) -> None:
        self._cluster = cluster
        self._ears = ears
        self._settings = settings
        self._aside = aside
        self._clock = clock
        self._retry_at = 0.0

    def takes(self, attempt: Attempt, pool: Pool | None) -> bool:
        """Not an attempt that has to keep away from hosts: where a warm pod is, is not asked."""
        if not attempt.task.warm or attempt.avoid or self._settings.most < 1:
            return False
        return self._cluster.may_run(attempt) and not (pool is not None and self._cold(pool))

    def fill(self, pool: Pool) -> None:
        if self._clock() >= max(pool.cold_until, self._retry_at):
            for _ in range(pool.lacking(self._settings.most)):
                name = f"warm-{pool.key.id[:12]}-{secrets.token_hex(4)}"
                pod = WarmPod(name, pool, secrets.token_hex(32), self._clock())
                self._ears.met(pod)
                self._aside.do(self._create(pod), f"make {name}")

    def thin(self, pool: Pool) -> None:
        idle = self._settings.idle_seconds
        for pod in pool.superfluous(self._clock(), idle_seconds=idle):
            pod.leaving = True
            self.delete(pod.name, pod.uid)

    def delete(self, name: str, uid: str) -> None:
        if uid:
            self._aside.do(self._cluster.delete(name, uid), f"delete {name}")

    def unready(self, pod: WarmPod, failure: Failure | None) -> None:
        """It ended, or was given up, before it could do anything."""
        pool = pod.pool
        pool.strikes += 1
        if pool.strikes >= STRIKES or (failure is not None and failure.owner is Owner.CONFIG):
            self.give_up(pool, failure.message if failure is not None else "its pods don't start")

    def give_up(self, pool: Pool, said: str) -> None:
        """For a while it makes no pods. Those that work go on."""
        pool.cold_until, pool.strikes = self._clock() + COLD_SECONDS, 0
        log.warning("warm pool %s gets no more pods for a while: %s", pool.key.id, said)
        if self._cold(pool) and (records := pool.drain()):
            self._ears.given_back(records)

    def _cold(self, pool: Pool) -> bool:
        working = any(pod.open for pod in pool.pods.values())
        return self._clock() < pool.cold_until and not working

    async def _create(self, pod: WarmPod) -> None:
        try:
            pod.uid = await self._cluster.create(pod.pool.key, name=pod.name, token=pod.token)
        except NoPod as error:
            self._retry_at = self._clock() + AGAIN_SECONDS
            pod.leaving |= error.passing
            self._ears.gone(pod.name, error.failure)
