"""Waiting until no code of an attempt runs any more, however long its machine is not seen.

Used by `starting.py` before an exclusive node is tried again and by `leaving.py` before the last
word about a run; asks the launcher.
"""

import logging
from collections.abc import Callable, Sequence

from whimbrel.errors import Unreachable

from data_plane_agent.launcher import AttemptKey, Launcher
from data_plane_agent.pause import Pause

log = logging.getLogger(__name__)


class Death:
    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher

    async def of(self, keys: Sequence[AttemptKey], *, still: Callable[[], bool]) -> bool:
        """Stops them; True once they are dead, False when `still` says that nobody waits any
        more."""
        pause = Pause()
        while keys:
            try:
                await self._launcher.kill(keys)
                break
            except Unreachable as error:
                log.warning("not known to be dead, asking again: %s", error)
            await pause.wait()
            if not still():
                return False
        return still()
