"""What the engine does when the ledger refuses what it said: begin anew from the answer."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from whimbrel.spec import (
    Outputs,
    canonical,
    input_digest,
    sha256,
)
from whimbrel.spec import digest as spec_digest

from data_plane_agent import messages as m
from data_plane_agent.launcher import Attempt, AttemptKey
from tests.data_plane_agent.engine_under_test import X, agent, answer, until
from tests.data_plane_agent.graphs import chain, graph
from tests.fakes import FakeLedger, finished

pytestmark = pytest.mark.anyio


async def test_an_incomplete_end_begins_anew_from_what_is_live(tmp_path: Path) -> None:
    ledger = FakeLedger()
    ledger.launch(X, chain(2))
    lost: list[str] = []

    def behave(attempt: Attempt) -> Mapping[str, Any]:
        if attempt.key.node == "n1" and not lost:
            lost.append("n0")
            ledger.rows[X]["nodes"].append("never")
        return answer(attempt)

    async with agent(tmp_path, ledger, behave) as it:
        it.assign(X)
        it.join()
        await until(lambda: len(ledger.claims) >= 2)
        ledger.rows[X]["nodes"].remove("never")
        await it.end()
        assert it.nodes_started == ["n0", "n1"]


async def test_a_kept_output_wins_and_its_dependents_run_again(tmp_path: Path) -> None:
    ledger = FakeLedger()
    spec = chain(2)
    ledger.launch(X, spec)
    kept = canonical({"o0": "kept"})

    def behave(attempt: Attempt) -> Mapping[str, Any] | None:
        if attempt.key.node == "n0":
            ledger.rows[X]["outputs"]["n0"] = m.NodeOutput(
                "n0", 1, Outputs(kept, sha256(kept)), attempt.input_digest, 1, 2
            )
            return {"o0": "ours"}
        return answer(attempt) if attempt.inputs["before"] == ["kept"] else None

    async with agent(tmp_path, ledger, behave) as it:
        it.assign(X)
        it.join()
        end = await it.end()
        assert isinstance(end, m.Succeeded)
        assert it.nodes_started == ["n0", "n1", "n1"]
        assert AttemptKey(X, "n1", 1, 1) in it.launcher.cancelled
        assert it.launcher.started[2].key.attempt == 2, "a late end of the first must not count"
        made_from = input_digest(spec_digest(spec.tasks[0]), {"x": 7, "before": ["kept"]})
        assert ledger.rows[X]["outputs"]["n1"].input_digest == made_from


@dataclass
class Rival:
    """A ledger in which another session of ours has output n0 first. It answers the first batch
    when `heard` is set: with CONFLICT, or FENCED at our own epoch, as the run was theirs then."""

    ledger: FakeLedger
    verdict: m.Verdict
    heard: asyncio.Event
    batches: int = 0

    async def commit(self, events: Any, *, first: int, cluster_epoch: int) -> m.Receipt:
        self.batches += 1
        if self.batches > 1:
            return await type(self.ledger).commit(
                self.ledger, events, first=first, cluster_epoch=cluster_epoch
            )
        await self.heard.wait()
        kept = canonical({"o0": "kept"})
        node = m.NodeOutput("n0", 1, Outputs(kept, sha256(kept)), made_from(), 1, 2)
        self.ledger.rows[X]["outputs"]["n0"] = node
        self.ledger.cursors[cluster_epoch] = len(events)
        refused = [m.Objection(0, self.verdict, 1, node)]
        refused += [m.Objection(at, m.Verdict.INCOMPLETE, 1) for at in range(1, len(events))]
        return m.Receipt(len(events), objections=tuple(refused))


def made_from(*before: Any) -> str:
    return input_digest(spec_digest(chain(1).tasks[0]), {"x": 7, "before": list(before)})


@pytest.mark.parametrize("verdict", [m.Verdict.CONFLICT, m.Verdict.FENCED])
@pytest.mark.parametrize("ends", ["before", "while it is claimed"])
async def test_what_was_made_from_a_refused_output_is_not_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdict: m.Verdict, ends: str
) -> None:
    ledger = FakeLedger()
    ledger.launch(X, graph({"n0": [], "n1": ["n0"], "n2": ["n1"], "apart": []}))
    rival = Rival(ledger, verdict, asyncio.Event())
    monkeypatch.setattr(ledger, "commit", rival.commit)

    def behave(attempt: Attempt) -> Mapping[str, Any] | None:
        node, before = attempt.key.node, attempt.inputs["before"]
        if node == "apart" or (node == "n1" and before != ["kept"] and ends != "before"):
            return None
        return {"o0": "ours"} if node == "n0" else {"o0": f"{node} of {before}"}

    async with agent(tmp_path, ledger, behave) as it:
        it.assign(X)
        it.join()
        if ends == "before":
            await until(lambda: "n2" in it.nodes_started and it.outbox.waiting >= 3)
        else:
            await until(lambda: {"n1", "apart"} <= set(it.nodes_started) and rival.batches)
            claim = ledger.claim

            async def claim_late(wishes: Sequence[m.Wish], *, cluster_epoch: int) -> Any:
                stale = next(one for one in it.launcher.started if one.key.node == "n1")
                end = finished(stale.key, {"o0": "stale"}, stale.input_digest)
                it.launcher.events.put_nowait([end])
                await until(lambda: it.launcher.events.empty())
                await until(lambda: it.outbox.waiting == 0)
                return await claim(wishes, cluster_epoch=cluster_epoch)

            monkeypatch.setattr(ledger, "claim", claim_late)
        apart = next(one for one in it.launcher.started if one.key.node == "apart")
        rival.heard.set()
        await until(lambda: it.nodes_started.count("n1") == 2)
        assert apart.key not in it.launcher.cancelled
        it.launcher.events.put_nowait([finished(apart.key, {"o0": 1}, apart.input_digest)])
        assert isinstance(await it.end(), m.Succeeded)
        assert it.nodes_started.count("apart") == 1
    outputs = ledger.rows[X]["outputs"]
    assert outputs["n1"].input_digest == made_from("kept")
    assert outputs["n2"].input_digest == made_from("n1 of ['kept']")
