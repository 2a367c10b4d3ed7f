"""What a pod may say at the door, and what is made of it when it lies: the test is the pod."""

import asyncio
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from whimbrel.runtime_frames import Decoder, encode
from whimbrel.spec import Failure, Owner

from data_plane_agent.launcher import Attempt, Broke, Finished, Found, Saved
from data_plane_agent.warm.door import FRAME_LIMIT
from data_plane_agent.warm.pool import PoolKey
from data_plane_agent.warm.pools import WarmPools
from data_plane_agent.warm.sight import Sighted, Watcher
from tests.data_plane_agent.processes.under_test import until_ended
from tests.data_plane_agent.warm.under_test import SETTINGS, Region, region, until

pytestmark = pytest.mark.anyio
LOST = Failure(Owner.SYSTEM, "node_lost", "its node is gone")


class OnePod:
    """Implements `Pods`: one pod, there from the start, that the test speaks for."""

    def __init__(self, pool: PoolKey) -> None:
        self.sighted = Sighted("w-1", "u1", pool, "secret", host="node-1")
        self.watcher: Watcher | None = None

    def may_run(self, attempt: Attempt) -> bool:
        return True

    async def run(self, watcher: Watcher, *, port: int) -> None:
        self.watcher = watcher
        watcher.seen(self.sighted)
        watcher.listed()
        await asyncio.Event().wait()

    async def create(self, pool: PoolKey, *, name: str, token: str) -> str:
        return f"uid of {name}"

    async def delete(self, name: str, uid: str) -> None: ...


class Pod:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.decoder = Decoder()
        self.inbox: list[dict[str, Any]] = []

    def say(self, *messages: dict[str, Any]) -> None:
        self.writer.write(encode(list(messages)))

    async def hear(self, kind: str, *, seconds: float = 20.0) -> dict[str, Any]:
        async with asyncio.timeout(seconds):
            while True:
                for message in self.inbox:
                    if message.get("t", "ack") == kind:
                        self.inbox.remove(message)
                        return message
                data = await self.reader.read(65536)
                if not data:
                    raise EOFError
                self.inbox += self.decoder.feed(data)

    async def greet(self, pool: PoolKey, **changes: Any) -> None:
        hello = {"t": "warm", "v": 1, "pool": pool.id, "pod": "w-1", "token": "secret"}
        about = {"ready": True, "leaving": False, "running": None, "kept": [], "last": 0}
        self.say({**hello, **about, **changes})

    def done(self, frame: dict[str, Any], **changes: Any) -> dict[str, Any]:
        now = time.time_ns()
        return {
            "t": "done", "seq": frame["seq"], "k": frame["meta"]["k"], "d": frame["meta"]["d"],
            "s": now, "e": now, "value": "{}", "digest": "x", "artifacts": [], "offloaded": None,
            "stdout": None, "stderr": None, "saved": None, **changes,
        }  # fmt: skip


@pytest.fixture
def here(tmp_path: Path):  # type: ignore[no-untyped-def]
    with region(tmp_path, "") as made:
        yield made


@pytest.fixture
async def agent(here: Region) -> AsyncIterator[WarmPools]:
    pods = OnePod(PoolKey.of(here.attempt("f")))
    made = WarmPools(pods, here.orders, SETTINGS, fall_back=_nobody)
    await made.open()
    try:
        yield made
    finally:
        await made.close(kill=False)


async def _nobody(_attempts: Any) -> None:
    raise AssertionError


async def dial(agent: WarmPools) -> Pod:
    return Pod(*await asyncio.open_connection("127.0.0.1", agent.port))


@pytest.fixture
async def pod(agent: WarmPools, here: Region) -> AsyncIterator[Pod]:
    made = await dial(agent)
    await made.greet(PoolKey.of(here.attempt("f")))
    await made.hear("welcome")
    yield made
    made.writer.close()


def artifact(uri: str) -> dict[str, Any]:
    return {"uri": uri, "sha256": "x", "bytes": 1, "region": "us-east", "kind": "file"}


async def test_an_answer_is_acknowledged_once_it_is_taken(
    here: Region, agent: WarmPools, pod: Pod
) -> None:
    """Until then a pod that dials again keeps it, whatever it repeats."""
    events = agent.watch()
    await anext(events)
    await agent.start([here.attempt("f")])
    answer = pod.done(await pod.hear("task"))
    pod.say(answer)
    await until_ended(events, 1)  # told, but nobody asks for more
    pod.say(answer)
    again = await dial(agent)
    kept = [{"seq": 1, "k": answer["k"], "d": answer["d"]}]
    await again.greet(PoolKey.of(here.attempt("f")), kept=kept, last=1)
    await again.hear("welcome")
    again.say(answer)
    with pytest.raises(TimeoutError):
        await again.hear("ack", seconds=0.1)
    asking = asyncio.ensure_future(anext(events))
    assert await again.hear("ack") == {"ack": [1]}
    asking.cancel()
    again.writer.close()


async def test_what_is_no_answer_breaks_the_task(here: Region, agent: WarmPools, pod: Pod) -> None:
    events = agent.watch()
    await anext(events)
    await agent.start([here.attempt("f")])
    pod.say(pod.done(await pod.hear("task"), artifacts=[{"uri": 1}]))
    (told,) = await until_ended(events, 1)
    assert isinstance(told, Broke)
    assert (told.failure.owner, told.failure.kind) == (Owner.SYSTEM, "worker_lost")


async def test_an_answer_is_of_the_attempt_that_was_given_whatever_it_claims(
    here: Region, agent: WarmPools, pod: Pod
) -> None:
    events = agent.watch()
    await anext(events)
    await agent.start([here.attempt("f")])
    pod.say(pod.done(await pod.hear("task"), k=["q/d/other", "n", 1, 1], d="other"))
    (told,) = await until_ended(events, 1)
    assert isinstance(told, Finished)
    assert (told.key.execution, told.input_digest) == ("p/d/run", "digest n")


async def test_a_checkpoint_of_another_attempt_is_not_believed(
    here: Region, agent: WarmPools, pod: Pod
) -> None:
    events = agent.watch()
    await anext(events)
    await agent.start([here.attempt("f")])
    frame = await pod.hear("task")
    folder = frame["meta"]["f"]
    for at, uri in ((1, "s3://b/q/d/other/n/1/1/x/object"), (2, f"s3://b/{folder}/1-0/checkpoint")):
        pod.say({"t": "saved", "seq": frame["seq"], "artifact": artifact(uri), "at": at})
    pod.say(pod.done(frame))
    told = await until_ended(events, 1)
    saved = [event for event in told if isinstance(event, Saved)]
    assert [event.artifact.uri for event in saved] == [f"s3://b/{folder}/1-0/checkpoint"]


async def test_a_dead_pod_breaks_only_what_it_had_begun(
    here: Region, agent: WarmPools, pod: Pod
) -> None:
    """Both were in its hands."""
    events = agent.watch()
    await anext(events)
    (pool,) = agent.pools.values()
    pool.lane("flow:f").seconds = 0.0
    await agent.start([here.attempt("f", node="a"), here.attempt("f", node="b")])
    first = await pod.hear("task")
    await pod.hear("task")
    pod.say({"t": "begin", "seq": first["seq"], "at": 1})
    await asyncio.sleep(0.05)
    agent.gone("w-1", LOST)
    told = [event for event in await until_ended(events, 1) if isinstance(event, Broke)]
    assert [(event.key.node, event.failure.kind) for event in told] == [("a", "node_lost")]
    assert pool.waiting == 1


async def test_only_what_is_its_own_is_found(here: Region, agent: WarmPools) -> None:
    pod = await dial(agent)
    own = {"k": ["p/d/run", "n", 1, 1], "d": "own"}
    other = {"k": ["q/d/run", "n", 1, 1], "d": "other"}
    kept = [{"seq": 1, **own}, {"seq": 2, **other}]
    running = {"seq": 3, "s": 5, "f": "q/d/run/n/2/1/x", "k": ["q/d/run", "n", 2, 1], "d": ""}
    pool = PoolKey.of(here.attempt("f"))
    await pod.greet(pool, kept=kept, running=running, last=3)
    (found,) = await anext(agent.watch())
    assert isinstance(found, Found)
    assert list(found.running.values()) == ["own"]
    assert await pod.hear("cancel") == {"t": "cancel", "seq": 3}
    assert await pod.hear("ack") == {"ack": [2]}
    pod.writer.close()


@pytest.mark.parametrize("token", ["", "wrong"])
@pytest.mark.parametrize("name", ["w-1", "stranger"])
async def test_nobody_is_let_in_without_the_right_token(
    here: Region, agent: WarmPools, token: str, name: str
) -> None:
    pod = await dial(agent)
    await pod.greet(PoolKey.of(here.attempt("f")), token=token, pod=name)
    with pytest.raises((EOFError, ConnectionError)):
        await pod.hear("welcome")
    pod.writer.close()


@pytest.mark.parametrize("data", [b"\0\0\0\3{]}", b"\0\0\0\2[]" + encode({"t": "warm"})])
async def test_nonsense_is_hung_up_on(agent: WarmPools, data: bytes) -> None:
    pod = await dial(agent)
    pod.writer.write(data)
    with pytest.raises((EOFError, ConnectionError)):
        await pod.hear("welcome", seconds=5.0)
    pod.writer.close()


async def test_a_frame_that_never_ends_is_hung_up_on(pod: Pod) -> None:
    pod.writer.write(struct.pack(">I", 1 << 31) + b" " * (FRAME_LIMIT + 1))
    with pytest.raises((EOFError, ConnectionError)):
        await pod.hear("welcome")


async def test_started_is_told_of_what_lasts(here: Region, agent: WarmPools, pod: Pod) -> None:
    events = agent.watch()
    await anext(events)
    await agent.start([here.attempt("f")])
    pod.say({"t": "begin", "seq": (await pod.hear("task"))["seq"], "at": 7})
    (started,) = await until(events, lambda seen: bool(seen))
    assert (started.at_ns, started.host) == (7, "node-1")  # type: ignore[union-attr]
