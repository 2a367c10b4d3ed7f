"""How pods are let go of: not asked to save yet, and dead when the API server says that they are
gone, which a kubelet has to confirm.

Part of `pods.py`; called by the engine through `launcher.py`. Exclusive attempts are refused by
`pod_making.py`, so that there is none to be renewed.
"""

import asyncio
from collections.abc import Sequence

from whimbrel.errors import Unreachable

from data_plane_agent.launcher import AttemptKey
from data_plane_agent.pod_api import ApiError, PodApi
from data_plane_agent.pod_codec import pod_name


class PodLeave:
    _api: PodApi
    _making: dict[str, asyncio.Task[None]]

    async def cancel(self, keys: Sequence[AttemptKey]) -> None:
        raise NotImplementedError

    async def quiesce(self, keys: Sequence[AttemptKey]) -> None:
        """They go on until they end, or are stopped when their time is over."""

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
