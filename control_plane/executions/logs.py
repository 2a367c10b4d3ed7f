"""Logs of a run's nodes: read in the region that has them, through the router, and passed on.

Called by `rpc.py`; the control plane keeps no user bytes.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass

from whimbrel.errors import NotFound, Refused, Unreachable

from control_plane.executions.service import Executions
from control_plane.executions.view import NodeView, View
from control_plane.routing.port import LogPlace, Router

PIECE = 256 * 1024
LOOK_SECONDS = 0.5
"""Between two looks for more of a log that is followed."""

LAST_LOOKS = 10
"""Looks at the logs of a run that has ended, while a region that has some does not answer."""

STREAMS = ("stdout", "stderr")
"""A pod has one stream, in which both are merged: its stderr is always empty."""


@dataclass(frozen=True, slots=True)
class Piece:
    node: str
    attempt: int
    stream: str
    data: bytes


@dataclass(slots=True)
class Reading:
    """How far one stream of one attempt has been read; `cut` when nobody answered last time."""

    offset: int = 0
    ended: bool = False
    cut: bool = False


class Logs:
    def __init__(
        self, executions: Executions, router: Router, *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:  # fmt: skip
        self._executions = executions
        self._router = router
        self._sleep = sleep

    async def read(
        self, execution: str, *, node: str = "", attempt: int = 0, follow: bool = False,
        who: str = "",
    ) -> AsyncIterator[Piece]:  # fmt: skip
        await self._executions.residency.show(execution, what="logs", who=who)
        read: dict[tuple[str, int, str], Reading] = {}
        looks = 0
        while True:
            view = await self._executions.get(execution)
            for item in wanted(view, node):
                for stream in STREAMS:
                    key = (item.id, attempt or item.attempt, stream)
                    reading = read.setdefault(key, Reading())
                    async for piece in self._rest(view, item, key, reading, strict=not follow):
                        yield piece
            looks += view.phase.terminal
            if not follow or (view.phase.terminal and (looks == LAST_LOOKS or over(read))):
                return
            await self._sleep(LOOK_SECONDS)

    async def _rest(
        self, view: View, node: NodeView, key: tuple[str, int, str], reading: Reading, *,
        strict: bool,
    ) -> AsyncIterator[Piece]:  # fmt: skip
        name, attempt, stream = key
        place = LogPlace(view.id, name, attempt, stream, stored(node, attempt, stream))
        while not reading.ended:
            try:
                part = await self._router.read_log(
                    node.cluster, place, offset=reading.offset, limit=PIECE
                )
            except (Unreachable, Refused):
                # While it is followed the cluster may come back, or the node run elsewhere.
                nothing = attempt == node.attempt and silent(node, stream)
                if strict and not nothing:
                    raise
                reading.cut = not nothing
                return
            reading.offset += len(part.data)
            reading.ended, reading.cut = part.end and not part.data, False
            if not part.data:
                return
            yield Piece(name, part.attempt or attempt, stream, part.data)


def over(read: Mapping[tuple[str, int, str], Reading]) -> bool:
    """Everything there is has been read, of a run that has ended."""
    return not any(reading.cut for reading in read.values())


def stored(node: NodeView, attempt: int, stream: str) -> str:
    """Where the ledger says that the log is; it knows only the newest attempt's."""
    written = node.stderr if stream == "stderr" else node.stdout
    return written.uri if written is not None and attempt == node.attempt else ""


def silent(node: NodeView, stream: str) -> bool:
    """Is it settled that the newest attempt wrote nothing there? No region needs to be asked
    then."""
    written = node.stderr if stream == "stderr" else node.stdout
    return node.phase in ("SUCCEEDED", "FAILED") and written is None


def wanted(view: View, node: str) -> list[NodeView]:
    """Nodes that ran at all; a name that is not in the graph is said so."""
    if node and node not in [item.id for item in view.nodes]:
        raise NotFound(
            f"{view.id} has no node {node!r}",
            remedy=f"its nodes are: {', '.join(item.id for item in view.nodes)}",
        )
    return [item for item in view.nodes if item.cluster and node in ("", item.id)]
