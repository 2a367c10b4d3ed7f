"""What a claim says of a run's data: copies are read, limits travel, values stay in the region."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from whimbrel.codec import artifact_to_wire
from whimbrel.runtime_store import plain
from whimbrel.spec import Artifact, Failure, Outputs, Owner, by_content, canonical, sha256
from whimbrel.wire.v1 import ledger_pb2

from data_plane_agent import codec
from data_plane_agent import messages as m
from data_plane_agent.launcher import Attempt, Finished
from tests.data_plane_agent.engine_under_test import X, agent, until
from tests.data_plane_agent.graphs import chain
from tests.fakes import FakeLedger

pytestmark = pytest.mark.anyio

ORIGINAL = Artifact("s3://there/k", sha256("k"), 1, "r-there")
COPY = replace(ORIGINAL, uri="s3://here/p/d/replicas/k#k", region="r-here")


def form(artifact: Artifact) -> dict[str, Any]:
    return {"$artifact": plain(artifact)}


class Ledger(FakeLedger):
    """Adds to each claim."""

    def __init__(self, **more: Any) -> None:
        super().__init__()
        self.more = more

    def _claim(self, wish: m.Wish) -> m.Claimed | m.NotClaimed:
        claimed = super()._claim(wish)
        return replace(claimed, **self.more) if isinstance(claimed, m.Claimed) else claimed


def inputs_of(attempt: Attempt) -> str:
    return json.dumps(dict(attempt.inputs), default=list)


@pytest.mark.parametrize("large", [False, True])
async def test_tasks_read_the_copy(tmp_path: Path, large: bool) -> None:
    value = {"o0": {"a": [form(ORIGINAL)]}}
    text, digest = canonical(value), sha256(canonical(by_content(value)))
    off = Artifact("s3://here/doc", sha256(text), len(text), "r-here", "value") if large else None
    ledger = Ledger(replicas={ORIGINAL.uri: COPY})
    ledger.launch(X, chain(2))
    made = Outputs("" if large else text, digest, (ORIGINAL,), off)
    async with agent(tmp_path, ledger, lambda attempt: {"o0": 1}) as it:
        it.objects["s3://here/doc"] = text.encode()
        it.assign(X)
        it.join()
        await until(lambda: it.launcher.started)
        first = it.launcher.started[0]
    ledger = Ledger(replicas={ORIGINAL.uri: COPY})
    ledger.launch(X, chain(2))
    ledger.rows[X]["outputs"]["n0"] = m.NodeOutput("n0", 1, made, first.input_digest, 1, 2)
    async with agent(tmp_path / "again", ledger, lambda attempt: {"o0": 1}) as it:
        it.objects["s3://here/doc"] = text.encode()
        it.assign(X)
        it.join()
        await it.end()
        [second] = it.launcher.started
        assert second.key.node == "n1"
        assert COPY.uri in inputs_of(second)
        assert ORIGINAL.uri not in inputs_of(second)


def test_a_claim_names_copies_of_documents_and_checkpoints() -> None:
    wire = artifact_to_wire(ORIGINAL)
    page = ledger_pb2.ClaimReply(execution=X, epoch=1, claimed=True, more=True)
    page.outputs.add(node="a").offloaded.CopyFrom(wire)
    page.checkpoints.add(node="b").artifact.CopyFrom(wire)
    further = ledger_pb2.ClaimReply(execution=X, epoch=1, claimed=True)
    further.replicas.add(uri=ORIGINAL.uri).copy.CopyFrom(artifact_to_wire(COPY))
    [claimed] = codec.claims([page, further])
    assert isinstance(claimed, m.Claimed)
    assert claimed.outputs[0].outputs.offloaded == COPY
    assert claimed.checkpoints[0].artifact == COPY
    assert claimed.replicas == {ORIGINAL.uri: COPY}


async def test_limits_travel_with_what_is_made(tmp_path: Path) -> None:
    ledger = Ledger(regions=("eu-*",))
    ledger.launch(X, chain(2))
    bound = replace(ORIGINAL, uri="s3://there/b", allowed_regions=("eu-west",))
    async with agent(tmp_path, ledger, lambda attempt: None) as it:
        it.assign(X)
        it.join()
        await until(lambda: it.launcher.started)
        attempt = it.launcher.started[0]
        text = canonical({"o0": [form(ORIGINAL), form(bound)]})
        digest = sha256(canonical(by_content(json.loads(text))))
        outputs = Outputs(text, digest, (ORIGINAL, bound))
        it.launcher.events.put_nowait([Finished(attempt.key, outputs, attempt.input_digest, 1, 2)])
        await until(lambda: len(it.launcher.started) == 2)
        assert inputs_of(it.launcher.started[1]).count('"allowed_regions": ["eu-*"]') == 1
        await until(lambda: "n0" in ledger.rows[X]["outputs"])
        told = ledger.rows[X]["outputs"]["n0"].outputs
        assert [one.allowed_regions for one in told.artifacts] == [("eu-*",), ("eu-west",)]
        assert '["eu-*"]' in told.value
        assert told.digest == digest


SECRET = "4111-1111"


def leaks(ledger: FakeLedger) -> bool:
    return SECRET in repr(ledger.batches)


async def test_values_stay_in_the_region(tmp_path: Path) -> None:
    ledger = Ledger(offload=True)
    ledger.launch(X, chain(2))

    def behave(attempt: Attempt) -> Mapping[str, Any]:
        return {"o0": SECRET}

    async with agent(tmp_path, ledger, behave) as it:
        it.assign(X)
        it.join()
        end = await it.end()
        assert isinstance(end, m.Succeeded)
        assert SECRET in inputs_of(it.launcher.started[1])  # it is there for its own region
        assert not leaks(ledger)
        result = json.loads(end.outputs)["all"]["$artifact"]
        assert (result["region"], result["kind"]) == ("r-here", "value")
        assert it.objects[result["uri"]] == f'["{SECRET}","{SECRET}"]'.encode()
        assert [one.uri for one in end.artifacts] == [result["uri"]]
        offloaded = ledger.rows[X]["outputs"]["n0"].outputs.offloaded
        assert offloaded is not None
        assert SECRET.encode() in it.objects[offloaded.uri]


async def test_error_texts_stay_in_the_region(tmp_path: Path) -> None:
    ledger = Ledger(offload=True)
    ledger.launch(X, chain(1))
    failure = Failure(Owner.USER, "raised", f"no card {SECRET}", traceback=f"at {SECRET}")
    async with agent(tmp_path, ledger, lambda attempt: failure) as it:
        it.assign(X)
        it.join()
        end = await it.end()
        assert isinstance(end, m.Failed)
        assert not leaks(ledger)
        assert (end.failure.owner, end.failure.kind) == (Owner.USER, "raised")
        assert end.failure.message.startswith("kept in region r-here: sha256 ")
        uri = end.failure.message.rpartition(", ")[2]
        assert it.objects[uri].decode() == f"no card {SECRET}\nat {SECRET}"


async def test_the_platforms_own_words_are_told(tmp_path: Path) -> None:
    ledger = Ledger(offload=True)
    ledger.launch(X, chain(1))
    failure = Failure(Owner.CONFIG, "image", "no such image")
    async with agent(tmp_path, ledger, lambda attempt: failure) as it:
        it.assign(X)
        it.join()
        end = await it.end()
        assert isinstance(end, m.Failed)
        assert end.failure.message == "no such image"
