"""How pods are let go of: asked to save by SIGTERM, as when their node is drained; dead only when
the API server says that they are gone, which a kubelet has to confirm.

Part of `pods.py`; called by the engine through `launcher.py`. Exclusive attempts are refused by
`pod_making.py`, so that there is none to be renewed.
"""

import asyncio
import logging
from collections.abc import Sequence

from whimbrel.errors import Unreachable

from data_plane_agent.launcher import AttemptKey
from data_plane_agent.pod_api import ApiError, PodApi
from data_plane_agent.pod_codec import pod_name
from data_plane_agent.pod_held import Held

log = logging.getLogger(__name__)


class PodLeave:
    _api: PodApi
    _held: dict[str, Held]
    _making: dict[str, asyncio.Task[None]]

    async def cancel(self, keys: Sequence[AttemptKey]) -> None:
        raise NotImplementedError

    async def quiesce(self, keys: Sequence[AttemptKey]) -> None:
        """A graceful delete: the task saves and ends within the pod's grace, and its answer is told
        as any other end. One that the API server does not take is stopped when its time is over."""
        for key in keys:
            held = self._held.get(pod_name(key))
            if held is None or not held.uid:
                continue
            try:
                await self._api.delete(held.name, uid=held.uid)
            except ApiError as error:
                log.warning("pod %s could not be asked to save: %s", held.name, error)

    async def adopt(self, keys: Sequence[AttemptKey]) -> None:
        """None of them is exclusive."""

    async def kill(self, keys: Sequence[AttemptKey]) -> None:
        await self.cancel(keys)
        names = [pod_name(key) for key in keys]
        if making := [self._making[name] for name in names if name in self._making]:
            await asyncio.wait(making)  # a create on its way would be seen too late
        for name in names:
            try:
                found = await self._api.get(name)
            except ApiError as error:
                raise Unreachable(f"the API server does not tell of {name}") from error
            if found is not None:
                raise Unreachable(f"pod {name} is not gone yet")
