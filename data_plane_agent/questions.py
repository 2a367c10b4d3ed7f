"""Questions of the control plane to this region, answered over the session: what can't you read,
what does a log say, copy this.

Called by the session for each question; asks the store, its copies and the launcher.
"""

from collections.abc import Sequence
from typing import Protocol

from whimbrel.spec import Artifact

from data_plane_agent import messages as m
from data_plane_agent.engine import Engine
from data_plane_agent.launcher import AttemptKey

MOST_BYTES = 1024 * 1024


class Store(Protocol):
    async def get(self, uri: str) -> bytes: ...
    async def unreadable(self, artifacts: Sequence[Artifact]) -> list[str]: ...


class Copier(Protocol):
    async def copy(self, artifacts: Sequence[Artifact], *, folder: str) -> dict[str, Artifact]: ...


class LiveLogs(Protocol):
    async def read_log(
        self, key: AttemptKey, stream: str, *, offset: int, limit: int
    ) -> tuple[bytes, bool]: ...


class Questions:
    def __init__(self, *, engine: Engine, store: Store, copies: Copier, live: LiveLogs) -> None:
        self._engine = engine
        self._store = store
        self._copies = copies
        self._live = live

    async def answer(self, question: m.Question) -> m.Answer:
        try:
            match question:
                case m.Probe(id, artifacts):
                    lost = await self._store.unreadable(artifacts)
                    return m.Answer(id, unreadable=tuple(lost))
                case m.Copy(id, artifacts, folder):
                    copied = await self._copies.copy(artifacts, folder=folder)
                    return m.Answer(id, copied=tuple(copied.items()))
                case m.ReadLog():
                    return await self._log(question)
                case m.OtherQuestion(id):
                    return m.Answer(id, error="this agent does not know the question")
        except Exception as error:
            # The asker is a person or a story elsewhere; either gets the reason.
            return m.Answer(question.id, error=f"{type(error).__name__}: {error}"[:500])

    async def _log(self, asked: m.ReadLog) -> m.Answer:
        key = self._engine.newest(asked.execution, asked.node, attempt=asked.attempt)
        limit = min(asked.limit or MOST_BYTES, MOST_BYTES)
        logs = None if key is None else self._engine.logs.get(key)
        if logs is None and asked.uri:
            # Ended under an agent before this one: the ledger remembers where its log is.
            return await self._stored(asked, asked.uri, asked.attempt, limit=limit)
        if key is None:
            return m.Answer(asked.id, error="this agent does not know the attempt")
        if logs is None:
            data, end = await self._live.read_log(
                key, asked.stream, offset=asked.offset, limit=limit
            )
            return m.Answer(asked.id, data=data, end=end, attempt=key.attempt)
        artifact = logs.stderr if asked.stream == "stderr" else logs.stdout
        uri = "" if artifact is None else artifact.uri
        return await self._stored(asked, uri, key.attempt, limit=limit)

    async def _stored(self, asked: m.ReadLog, uri: str, attempt: int, *, limit: int) -> m.Answer:
        text = await self._store.get(uri) if uri else b""
        data = text[asked.offset : asked.offset + limit]
        end = asked.offset + len(data) >= len(text)
        return m.Answer(asked.id, data=data, end=end, attempt=attempt)
