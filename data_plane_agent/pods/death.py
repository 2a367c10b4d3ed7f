"""When no code of an attempt runs in its pod any more: as the API server has it from the node, or
by the clock.

Asked by `launcher.py` for `Launcher.kill`. A pod that is being deleted may run for as long as its
node does not answer; one that is gone may have been taken off the list by force.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence

from whimbrel.errors import Unreachable

from data_plane_agent.launcher import AttemptKey
from data_plane_agent.pods.api import ApiError, PodApi
from data_plane_agent.pods.clock import Clock
from data_plane_agent.pods.codec import pod_name
from data_plane_agent.pods.held import Held
from data_plane_agent.pods.removal import Removal
from data_plane_agent.pods.renewals import PodRenewals
from data_plane_agent.pods.sight import Sight, sight

LOOK_SECONDS = 0.2
"""Between two questions about a pod. Shorter presses the API server, longer delays what waits."""
PATIENCE_SECONDS = 10.0
"""Before it is said that this can't be known now. Shorter than a cancelled pod's grace says so in
vain, longer keeps the asker from hearing why."""


class Death:
    def __init__(
        self,
        api: PodApi,
        renewals: PodRenewals,
        removal: Removal,
        making: Mapping[str, "asyncio.Task[None]"],
        *,
        clock: Clock,
    ) -> None:
        self._api = api
        self._renewals = renewals
        self._removal = removal
        self._making = making
        self._clock = clock
        self._dying: dict[str, Held] = {}

    def expect(self, held: Held) -> None:
        """It is being stopped or was given up, and nobody else remembers it: its deadline alone
        tells of an exclusive one whose node is not heard."""
        if held.exclusive:
            self._dying[held.name] = held

    def tell(self, seen: Sight) -> None:
        """What the watch shows: the last word of a node is gone with its pod."""
        held = self._dying.get(seen.name)
        if held is not None and held.is_of(seen):
            held.see(seen, self._clock.now())

    def gone(self, uid: str) -> None:
        """Its pod is off the list."""
        for held in self._dying.values():
            held.gone |= held.uid == uid

    def look(self) -> Collection[Held]:
        """To be called often: those that are remembered. What can't run any more and has no pod
        needs no memory."""
        for held in list(self._dying.values()):
            without = held.gone or (not held.uid and held.name not in self._making)
            if without and not self._renewals.may_run(held):
                del self._dying[held.name]
        return self._dying.values()

    async def of(self, keys: Sequence[AttemptKey]) -> None:
        """Returns once they are dead. Raises Unreachable."""
        for error in await asyncio.gather(*map(self._of, keys), return_exceptions=True):
            if error is not None:
                raise error

    async def _of(self, key: AttemptKey) -> None:
        name, give_up = pod_name(key), self._clock.now() + PATIENCE_SECONDS
        while why := await self._alive(name):
            if self._clock.now() >= give_up:
                raise Unreachable(f"it is not known whether pod {name} still runs: {why}")
            await self._clock.sleep(LOOK_SECONDS)
        self._dying.pop(name, None)

    async def _alive(self, name: str) -> str:
        """Why it may still run, "" = it can't."""
        if (making := self._making.get(name)) is not None and not making.done():
            return "its pod may be on its way"
        held = self._dying.get(name)
        if held is not None and not self._renewals.may_run(held):
            return ""
        try:
            found = await self._api.get(name)
        except ApiError as error:
            return f"the API server does not tell: {error.message}"
        seen = None if found is None else sight(found)
        if seen is not None and not seen.stopped:
            if not seen.deleting_ns and seen.uid not in self._removal:
                await self._removal.stop(name, seen.uid)
            return f"node {seen.host or '?'} has not told of its end"
        if held is not None and (seen is None or seen.ended is None):
            return "its pod is gone without a word of its node, and its deadline is not over"
        return ""
