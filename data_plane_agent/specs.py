"""Specifications by digest: fetched once, kept in a folder, indexed as graphs.

Called by the engine when a Claim names a digest; asks the ledger only for what the folder does not
hold.
"""

from collections import OrderedDict
from pathlib import Path

from whimbrel.errors import InvalidInput, WhimbrelError
from whimbrel.spec import digest as digest_of

from data_plane_agent import codec
from data_plane_agent.dag import Graph
from data_plane_agent.messages import Ledger

IN_MEMORY = 256
"""Graphs kept indexed. Fewer index again when many versions run at once; more cost memory."""


class Specs:
    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self._folder = folder
        self._ledger = ledger
        self._graphs: OrderedDict[str, Graph] = OrderedDict()
        folder.mkdir(parents=True, exist_ok=True)

    async def graph(self, digest: str) -> Graph:
        """Raises errors.Unreachable, or another error of ours when the specification can't be
        driven here."""
        graph = self._graphs.get(digest)
        if graph is None:
            graph = self._stored(digest)
        if graph is None:
            data = await self._ledger.fetch_spec(digest)
            graph = _checked(data, digest)
            part = self._folder / f"{digest}.part"
            part.write_bytes(data)
            part.replace(self._folder / digest)
        self._graphs[digest] = graph
        self._graphs.move_to_end(digest)
        if len(self._graphs) > IN_MEMORY:
            self._graphs.popitem(last=False)
        return graph

    def _stored(self, digest: str) -> Graph | None:
        """None also when the file was torn by a crash: it is fetched again."""
        try:
            return _checked((self._folder / digest).read_bytes(), digest)
        except (OSError, WhimbrelError):
            return None


def _checked(data: bytes, digest: str) -> Graph:
    try:
        spec = codec.workflow(data)
    except (ValueError, TypeError) as error:
        raise InvalidInput(f"the specification {digest[:12]} can't be read: {error}") from error
    if digest_of(spec) != digest:
        raise InvalidInput(
            f"the specification {digest[:12]} has parts that this agent does not know",
            remedy="run the workflow on an agent of a newer version",
        )
    return Graph.of(spec)
