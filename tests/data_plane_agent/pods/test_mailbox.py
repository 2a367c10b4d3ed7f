"""Notices of running pods: believed for one pod, acted upon once or twice, never lost."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from whimbrel.spec import Artifact

from data_plane_agent.launcher import AttemptKey
from data_plane_agent.pods.mailbox import LONGEST_SECONDS, STALE_SECONDS, Mailbox
from data_plane_agent.pods.orders import Sender
from tests.data_plane_agent.pods.parts import KEY, POD, Region, attempt, region

pytestmark = pytest.mark.anyio

WRITTEN = 1767225600.0  # when the server says that every object was
BOX = "bucket/us east/mailbox/alpha"


class Office:
    def __init__(self, here: Region) -> None:
        self.here = here
        self.known = {POD: Sender(KEY, "x/n/1/2/ab")}
        self.now = WRITTEN
        self.saved: list[tuple[AttemptKey, Artifact, int]] = []
        self.slept: list[float] = []
        self.rounds = 0
        self.mailbox = Mailbox(
            here.blobs,
            here.orders,
            cluster="alpha",
            known=lambda: self.known,
            saved=lambda *what: self.saved.append(what),
            clock=lambda: self.now,
            sleep=self._sleep,
        )

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if len(self.slept) > self.rounds:
            raise StopAsyncIteration

    async def run(self, rounds: int) -> None:
        self.slept.clear()
        self.rounds = rounds
        with pytest.raises((StopAsyncIteration, RuntimeError)):
            await self.mailbox.run()

    def post(self, notice: Any, *, pod: str = POD, name: str = "r1") -> None:
        data = notice if isinstance(notice, bytes) else json.dumps(notice).encode()
        self.here.server.put(f"{BOX}/{pod}/{name}", data)

    def box(self) -> list[str]:
        return self.here.server.keys(BOX)


def saved(at: int, *, folder: str = "x/n/1/2/ab") -> dict[str, Any]:
    uri = f"s3://bucket/us%20east/{folder}/1-0/checkpoint"
    uri = uri.replace("%20", " ")
    artifact = {"uri": uri, "sha256": "0" * 64, "bytes": 1, "region": "us-east", "kind": "file"}
    return {"t": "saved", "artifact": artifact, "at": at}


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    with region(tmp_path) as here:
        yield Office(here)


async def test_a_checkpoint_is_told_and_its_notice_goes(office: Office) -> None:
    office.post(saved(7))
    await office.run(1)
    ((key, artifact, at),) = office.saved
    assert (key, at) == (KEY, 7)
    assert artifact.uri.endswith("1-0/checkpoint")
    assert office.box() == []


async def test_an_older_checkpoint_never_follows_a_newer_one(office: Office) -> None:
    office.post(saved(9), name="a")
    office.post(saved(7), name="b")
    await office.run(1)
    office.mailbox.heard(POD, {"saved": saved(8)})
    assert [at for _, _, at in office.saved] == [9]
    office.mailbox.heard(POD, {"saved": saved(10)})
    office.mailbox.heard(POD, {"saved": None})
    assert [at for _, _, at in office.saved] == [9, 10]


async def test_a_page_is_written_before_its_notice_goes(office: Office) -> None:
    order = await office.here.orders.write(attempt(), pod=POD)
    office.known = {POD: Sender(KEY, order.folder)}
    office.post({"t": "more", "n": 2})
    office.here.server.fault = lambda method, path: (
        403 if method == "PUT" and "page-2" in path else 0
    )
    await office.run(1)
    assert len(office.box()) == 1
    office.here.server.fault = lambda _method, _path: 0
    await office.run(1)
    assert office.here.server.keys(f"bucket/us east/{order.folder}/page-2.json")
    assert office.box() == []


async def test_more_notices_than_a_list_holds(office: Office) -> None:
    office.here.server.page = 2
    for number in range(5):
        office.post(saved(number + 1), name=f"r{number}")
    await office.run(1)
    assert [at for _, _, at in office.saved] == [1, 2, 3, 4, 5]
    assert office.box() == []


async def test_a_pod_speaks_for_itself_only(office: Office) -> None:
    office.post(saved(7, folder="y/n/1/2/ab"))
    office.post(saved(8), pod="w-stranger")
    await office.run(1)
    assert office.saved == []
    assert office.box() == [f"{BOX}/w-stranger/r1"]


async def test_a_strangers_notice_goes_after_a_while(office: Office) -> None:
    office.post(saved(8), pod="w-stranger")
    office.now = WRITTEN + STALE_SECONDS + 1
    await office.run(1)
    assert office.box() == []


@pytest.mark.parametrize(
    "notice",
    [
        b"\xff",
        b"[]",
        {"t": "rm"},
        {"t": "saved", "artifact": {}, "at": 1},
        {**saved(1), "at": 10**30},
        b" " * 20_000,
    ],
)
async def test_nonsense_is_thrown_away(office: Office, notice: Any) -> None:
    office.post(notice)
    await office.run(1)
    assert (office.saved, office.box()) == ([], [])


async def test_nobody_runs_nobody_is_asked(office: Office) -> None:
    office.known = {}
    await office.run(3)
    assert office.here.server.log == []


async def test_a_store_that_is_away_is_asked_less_often(office: Office) -> None:
    office.post(saved(7))
    office.here.server.fault = lambda _method, _path: 403
    await office.run(6)
    assert office.slept == [1, 2, 4, 8, LONGEST_SECONDS, LONGEST_SECONDS, LONGEST_SECONDS]
    office.here.server.fault = lambda _method, _path: 0
    await office.run(1)
    assert len(office.saved) == 1


async def test_one_pods_box_before_its_end_is_told(office: Office) -> None:
    other = POD + "3"
    office.known[other] = Sender(KEY, "x/n/1/2/ab")
    office.post(saved(7))
    office.post(saved(8), pod=other)
    await office.mailbox.look(POD)
    assert [at for _, _, at in office.saved] == [7]
    assert office.box() == [f"{BOX}/{other}/r1"]
