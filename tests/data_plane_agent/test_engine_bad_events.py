"""What one attempt says wrongly costs that attempt, at most its run: never the agent."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from whimbrel.spec import Artifact, Failure, Outputs, Owner, sha256

from data_plane_agent import messages as m
from data_plane_agent.documents import Documents
from data_plane_agent.launcher import AttemptEvent, AttemptKey, Broke, Finished, Saved
from tests.data_plane_agent.engine_under_test import X, agent, answer, forever, until
from tests.data_plane_agent.graphs import chain
from tests.fakes import FakeLedger, finished

pytestmark = pytest.mark.anyio

NOT_UTF8 = os.fsdecode(b"caf\xe9")
KEY = AttemptKey(X, "n0", 1, 1)
GOOD = finished(KEY, {"o0": "v"}, "d")
ARTIFACT = Artifact("file:///a", "a", 10**30, "r", "checkpoint")


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (replace(GOOD, started_ns=10**30), "bad_answer"),
        (replace(GOOD, outputs=Outputs("{", "d")), "bad_answer"),
        (replace(GOOD, outputs=Outputs('{"o0":1e999}', "d")), "bad_answer"),
        (Broke(KEY, Failure(Owner.USER, "raised", NOT_UTF8), 1, 2), "bad_answer"),
    ],
)
async def test_an_end_that_can_not_be_told(
    tmp_path: Path, event: Finished | Broke, kind: str
) -> None:
    ledger = FakeLedger()
    ledger.launch(X, chain(2))
    ledger.launch("p/d/y", chain(1))
    async with agent(tmp_path, ledger, forever) as it:
        it.assign(X)
        it.join()
        await until(lambda: it.launcher.started)
        it.launcher.events.put_nowait([event])
        end = await it.end()
        assert isinstance(end, m.Failed)
        assert (end.failure.owner, end.failure.kind) == (Owner.USER, kind)
        it.launcher.behave = answer
        it.assign("p/d/y")
        assert isinstance(await it.end("p/d/y"), m.Succeeded)


async def test_a_checkpoint_that_can_not_be_told_is_none(tmp_path: Path) -> None:
    ledger = FakeLedger()
    ledger.launch(X, chain(1))
    async with agent(tmp_path, ledger, forever) as it:
        it.assign(X)
        it.join()
        await until(lambda: it.launcher.started)
        attempt = it.launcher.started[0]
        said: list[AttemptEvent] = [
            Saved(KEY, ARTIFACT, 1),
            finished(KEY, answer(attempt), attempt.input_digest),
        ]
        it.launcher.events.put_nowait(said)
        assert isinstance(await it.end(), m.Succeeded)


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"o":NaN}', b"[" * 100_000, b"\xff"])
async def test_a_bad_document_is_an_unreadable_one(data: bytes) -> None:
    class Store:
        async def get(self, uri: str) -> bytes:
            return data

    artifact = Artifact("file:///d", sha256(data), len(data), "r", "outputs")
    assert await Documents(Store()).read(artifact) is None
