"""Outputs documents too large to travel inline: read from the store, checked, parsed.

Called by the engine before a graph may move on, since a later node's inputs are parts of such a
document.
"""

import asyncio
import json
import logging
from collections.abc import Iterable
from typing import Any, Protocol

from whimbrel.spec import Artifact, canonical, sha256

from data_plane_agent import dag
from data_plane_agent import messages as m

log = logging.getLogger(__name__)


class Store(Protocol):
    async def get(self, uri: str) -> bytes: ...
    async def put(self, key: str, data: bytes, *, kind: str = "file") -> Artifact: ...


class Documents:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def read(self, artifact: Artifact) -> dag.Outputs | None:
        """None when it can't be read, or is not what was written."""
        try:
            data = await self._store.get(artifact.uri)
        except Exception as error:
            # Whatever a store's client raises means the same here.
            log.warning("can't read %s: %s", artifact.uri, error)
            return None
        if sha256(data) != artifact.sha256:
            log.error("%s is not what was written", artifact.uri)
            return None
        if (document := outputs_of(data)) is None:
            log.error("%s is no outputs document", artifact.uri)
        return document

    async def write(self, key: str, text: str) -> Artifact:
        """StoreFull when the store takes nothing."""
        return await self._store.put(key, text.encode(), kind="value")

    async def offloaded(self, events: Iterable[m.Event]) -> dict[str, dag.Outputs | None]:
        """The offloaded documents of these outputs, by digest."""
        wanted = [
            event.outputs.offloaded
            for event in events
            if isinstance(event, m.NodeOutput) and event.outputs.offloaded is not None
        ]
        found = await asyncio.gather(*map(self.read, wanted))
        return {one.sha256: document for one, document in zip(wanted, found, strict=True)}


def outputs_of(text: str | bytes) -> dict[str, Any] | None:
    """None for what is no JSON object, or has no digest: surrogates, NaN, endless nesting."""
    try:
        document = json.loads(text)
        canonical(document).encode()
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None  # pyright: ignore[reportUnknownVariableType]  # JSON


def artifact_in(value: Any) -> Artifact | None:
    """The artifact that a JSON form is, None when it is something else."""
    match value:
        case {"$artifact": dict(fields)} if len(value) == 1:  # pyright: ignore[reportUnknownVariableType]  # JSON
            known: dict[str, Any] = {**fields}
            known["allowed_regions"] = tuple(known.get("allowed_regions", ()))
            return Artifact(**known)
        case _:
            return None


def artifacts(value: Any) -> list[Artifact]:
    """Every artifact a JSON form refers to."""
    if (artifact := artifact_in(value)) is not None:
        return [artifact]
    match value:
        case dict():
            return [one for item in value.values() for one in artifacts(item)]  # pyright: ignore[reportUnknownVariableType]  # JSON
        case list():
            return [one for item in value for one in artifacts(item)]  # pyright: ignore[reportUnknownVariableType]  # JSON
        case _:
            return []
