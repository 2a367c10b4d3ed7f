"""Where a run's data may lie, at the control plane's own doors: at launch, and before bytes of a
run are shown.

Asked by `service.py` and `logs.py`. `region` is where this control plane keeps what it is told, ""
= everything may be; what is refused of a run stands in its story.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import select
from whimbrel.errors import Refused
from whimbrel.residency import allows, limits, narrowed
from whimbrel.spec import PlacementPolicy

from control_plane import documents
from control_plane.database import Database, table
from control_plane.executions.store import Execution
from control_plane.executions.timeline import Entry, tell
from control_plane.ledger.fence import FENCE

LOG = logging.getLogger(__name__)
EXECUTION = table(Execution)


class Residency:
    def __init__(self, database: Database, region: str) -> None:
        self._database = database
        self._region = region

    def launch(self, policy: PlacementPolicy, given: Mapping[str, Any]) -> PlacementPolicy:
        """The policy with the limits that the data came with. Refused: there is no region for it,
        or what was given by value may not lie here."""
        regions = policy.regions
        for limit in limits(given):
            both = narrowed(regions, limit) if regions else limit
            if not both:
                raise Refused(
                    f"an input must stay in {', '.join(limit)}, and the run in "
                    f"{', '.join(regions)}: nothing is in both",
                    remedy="launch it where its data may lie, with Placement(regions=...)",
                )
            regions = both
        told = [name for name, value in given.items() if not only_artifacts(value)]
        if told and not self._may(regions):
            raise Refused(
                f"{', '.join(sorted(told))} can't be given by value: the run's data must stay in "
                f"{', '.join(regions)}, and this control plane is in {self._region}",
                remedy="pass a File that lies in an allowed region, or let a task read the value",
            )
        return replace(policy, regions=regions)

    def _may(self, regions: tuple[str, ...]) -> bool:
        return not self._region or allows(regions, self._region)

    async def show(self, execution: str, *, what: str, who: str) -> None:
        """Refused, and recorded, when bytes of this run may not come here."""
        if not self._region:
            return
        async with self._database.read() as connection:
            found = await connection.execute(
                select(EXECUTION.c.policy, FENCE.c.epoch)
                .join_from(EXECUTION, FENCE, FENCE.c.execution == EXECUTION.c.id)
                .where(EXECUTION.c.id == execution)
            )
            row = found.first()
        if row is None:  # whoever asks is told so elsewhere
            return
        regions = documents.policy(row.policy).regions
        if self._may(regions):
            return
        text = f"{what} asked for by {who or 'somebody'} in {self._region}: they must stay in "
        text += ", ".join(regions)
        LOG.warning("refused: %s", text, extra={"execution": execution})
        async with self._database.write() as connection:
            await tell(connection, [Entry(execution, row.epoch, "refused", "", text)])
        raise Refused(
            f"the {what} of {execution} must stay in {', '.join(regions)}; this control plane is "
            f"in {self._region}",
            remedy="read them in the store of an allowed region; the refusal is in the run's story",
        )


def only_artifacts(value: Any) -> bool:
    """Files, and lists of them: no byte of the data itself."""
    match value:
        case {"$artifact": Mapping()} if len(value) == 1:  # pyright: ignore[reportUnknownArgumentType]  # JSON
            return True
        case list():
            return all(only_artifacts(item) for item in value)  # pyright: ignore[reportUnknownVariableType]  # JSON
        case _:
            return False
