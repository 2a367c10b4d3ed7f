"""In the place of `client.py` when no Temporal is configured: nothing moves, and that is said.

Called as `client.py` is; a planned move is refused before its row is written.
"""

import asyncio
import logging

from whimbrel.errors import Refused

from control_plane.movement.planned import PlannedSteps

log = logging.getLogger(__name__)


class MovementOff:
    async def lost(self, cluster: str, cluster_epoch: int, *, since_ns: int) -> None:
        log.error(
            "movement is off (no temporal address): what %s owned in session %s stays where it is",
            cluster,
            cluster_epoch,
        )

    async def move(self, execution: str, epoch: int, *, cause: str) -> None:
        log.error(
            "movement is off (no temporal address): the execution stays where it is",
            extra={"execution": execution, "epoch": epoch},
        )

    async def resume(self, execution: str, number: int, *, epoch: int, cause: str) -> None:
        await self.migrate(execution, number, cause=cause)

    def check(self) -> None:
        raise Refused(
            "nothing can be moved: the control plane runs without Temporal",
            remedy="start it with WHIMBREL_CONTROL_PLANE_TEMPORAL=host:port",
        )

    async def migrate(self, execution: str, number: int, *, cause: str) -> bool:
        log.error("migration %s of %s is not told: movement is off", number, execution)
        return True

    async def drain(self, cluster: str, number: int) -> bool:
        log.error("drain %s of %s is not told: movement is off", number, cluster)
        return True

    async def run(self, planned: PlannedSteps | None = None) -> None:
        log.warning("movement is off: set WHIMBREL_CONTROL_PLANE_TEMPORAL to a host:port")
        await asyncio.Event().wait()
