"""The store of an attempt in a pod: slots, pages, addresses; nothing but URLs."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from whimbrel.errors import TooLarge
from whimbrel.runtime_order import ABROAD_SECONDS, Order, Page, Pages, SignedStore
from whimbrel.runtime_pod_http import Http, Refusal
from whimbrel.runtime_store import StoreFull, UnreadableInput, name_of
from whimbrel.spec import Artifact

from tests.object_server import ObjectServer, object_server

LIFE_NS = 1000


@pytest.fixture
def server() -> Iterator[ObjectServer]:
    with object_server() as server:
        yield server


class Clock:
    """Of seconds for patience, of nanoseconds for URLs; sleeping is instant."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.ns = 0

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


def page(server: ObjectServer, number: int, *, expires_ns: int = LIFE_NS) -> dict[str, Any]:
    def slot(name: str) -> dict[str, str]:
        return {"uri": f"s3://b/{name}", "put": f"{server.url}/b/{name}?sig={number}"}

    more = server.url + f"/b/page-{number + 1}"
    return {
        "n": number,
        "artifacts": [slot(f"{number}-{i}/object") for i in range(2)],
        "checkpoints": [
            slot(f"{number}/checkpoint")
            | {"get": f"{server.url}/b/{number}/checkpoint", "notice": f"{server.url}/box/{number}"}
        ],
        "result": slot("result"),
        "log": slot("log"),
        "more": {"notice": f"{server.url}/box/more-{number}", "get": more},
        "expires_ns": expires_ns,
    }


def order(server: ObjectServer, **reads: str) -> bytes:
    fields = {
        "v": 1,
        "k": ["x", "n", 1, 2],
        "d": "digest",
        "entry": "m:f",
        "in": {},
        "trace": "",
        "timeout": 0,
        "region": "us-east",
        "bundle": {"url": "u", "sha256": "s"},
        "checkpoint": None,
        "reads": reads,
        "page": page(server, 1),
    }
    return json.dumps(fields).encode()


def pages(server: ObjectServer, clock: Clock, **reads: str) -> Pages:
    first = Order.of(order(server, **reads), now_ns=0).page
    http = Http(clock=lambda: clock.seconds, sleep=clock.sleep)
    return Pages(first, http, now_ns=lambda: clock.ns)


def store(server: ObjectServer, clock: Clock, tmp_path: Path, **reads: str) -> SignedStore:
    return SignedStore(pages(server, clock, **reads), region="us-east", scratch=str(tmp_path))


def artifact(data: bytes, uri: str = "s3://peer/in") -> Artifact:
    return Artifact(uri, hashlib.sha256(data).hexdigest(), len(data), "eu")


def test_an_order_says_what_is_wrong_with_it(server: ObjectServer) -> None:
    assert Order.of(order(server), now_ns=0).key == ("x", "n", 1, 2)
    with pytest.raises(ValueError, match="version 3"):
        Order.of(order(server).replace(b'"v": 1', b'"v": 3'), now_ns=0)
    with pytest.raises(ValueError, match="not an order"):
        Order.of(b'{"v": 1}', now_ns=0)
    with pytest.raises(ValueError, match="Expecting"):
        Order.of(b"<html>", now_ns=0)


def test_bytes_and_files_go_to_slots_and_keep_their_names(
    server: ObjectServer, tmp_path: Path
) -> None:
    region = store(server, Clock(), tmp_path)
    first = region.put_bytes(b"1", name="outputs.json", kind="value")
    (tmp_path / "a model.bin").write_bytes(b"weights")
    second = region.put_file(tmp_path / "a model.bin")
    assert (first.uri, first.kind, first.region) == ("s3://b/1-0/object", "value", "us-east")
    assert second.uri == "s3://b/1-1/object#a%20model.bin"
    assert name_of(second.uri) == "a model.bin"
    assert server.objects["b/1-1/object"] == b"weights"
    assert (second.bytes, second.sha256) == (7, hashlib.sha256(b"weights").hexdigest())


@pytest.mark.parametrize("uri", ["s3://b/k#..%2F..%2Fetc%2Fpasswd", "s3://b/k#/etc/passwd"])
def test_a_name_never_leaves_its_folder(uri: str) -> None:
    assert name_of(uri) == "passwd"
    assert name_of("s3://b/k#..") == "object"


def test_a_file_that_no_upload_takes_is_the_users(server: ObjectServer, tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate((5 << 30) + 1)
    with pytest.raises(TooLarge, match="write several files"):
        store(server, Clock(), tmp_path).put_file(tmp_path / "huge")


def test_reads_are_those_that_were_asked_for(server: ObjectServer, tmp_path: Path) -> None:
    url = server.put("peer/in", b"hello")
    region = store(server, Clock(), tmp_path, **{"s3://peer/in#in.txt": url})
    path = region.get_file(artifact(b"hello", "s3://peer/in#in.txt"))
    assert (path.name, path.read_bytes()) == ("in.txt", b"hello")
    assert region.get_bytes(artifact(b"hello", "s3://peer/in#in.txt")) == b"hello"
    with pytest.raises(UnreadableInput, match="does not name it"):
        region.get_bytes(artifact(b"hello", "s3://peer/other"))


def test_what_is_not_what_was_stored_is_unreadable(server: ObjectServer, tmp_path: Path) -> None:
    url = server.put("peer/in", b"jello")
    region = store(server, Clock(), tmp_path, **{"s3://peer/in": url})
    with pytest.raises(UnreadableInput, match="not what was stored"):
        region.get_file(artifact(b"hello"))
    with pytest.raises(UnreadableInput, match="not what was stored"):
        region.get_bytes(artifact(b"hello"))
    del server.objects["peer/in"]
    with pytest.raises(UnreadableInput, match="404"):
        region.get_file(artifact(b"hello"))


def test_a_broken_download_goes_on_where_it_broke(server: ObjectServer, tmp_path: Path) -> None:
    data = bytes(range(256)) * 4000
    url = server.put("peer/in", data)
    region = store(server, Clock(), tmp_path, **{"s3://peer/in": url})
    breaks = [-1, -1]
    server.fault = lambda _method, _path: breaks.pop() if breaks else 0
    assert region.get_file(artifact(data)).read_bytes() == data


def test_a_busy_store_is_asked_again_a_refusing_one_is_not(
    server: ObjectServer, tmp_path: Path
) -> None:
    region = store(server, Clock(), tmp_path)
    busy = [503, 500, 429]
    server.fault = lambda _method, _path: busy.pop() if busy else 0
    region.put_bytes(b"1", name="x")
    assert server.objects["b/1-0/object"] == b"1"
    server.log.clear()
    server.fault = lambda _method, _path: 403
    with pytest.raises(StoreFull, match="403: so it was told"):
        region.put_bytes(b"2", name="x")
    assert server.log == [("PUT", "b/1-1/object"), ("GET", "b/page-2"), ("PUT", "box/more-1")]


def dies(server: ObjectServer, *dead: str) -> None:
    """URLs of the first page are answered as by S3 when what they were signed with has ended; the
    agent, when it is asked, writes the next page."""
    url = server.put("renewed/in", b"hello")
    fresh = page(server, 2) | {"reads": {"s3://peer/in": url}}

    def answer(method: str, path: str) -> int:
        if (method, path) == ("PUT", "box/more-1"):
            server.put("b/page-2", json.dumps(fresh).encode())
        return 403 if path in dead else 0

    server.fault = answer


def test_urls_that_died_early_are_replaced_once(server: ObjectServer, tmp_path: Path) -> None:
    region = store(server, Clock(), tmp_path, **{"s3://peer/in": server.put("old/in", b"hello")})
    dies(server, "b/1-0/object", "b/1-1/object", "b/1/checkpoint", "old/in")
    assert region.put_bytes(b"1", name="x").uri == "s3://b/2-0/object"
    assert region.get_bytes(artifact(b"hello")) == b"hello"
    (tmp_path / "file").write_bytes(b"2")
    assert region.put_file(tmp_path / "file").uri == "s3://b/2-1/object#file"
    assert region.put_checkpoint(b"state").uri == "s3://b/2/checkpoint"
    assert server.log.count(("PUT", "box/more-1")) == 1


def test_who_finds_its_url_dead_after_somebody_else_did_uses_the_page_that_came(
    server: ObjectServer, tmp_path: Path
) -> None:
    region = store(server, Clock(), tmp_path)
    dies(server, "b/1-0/object", "b/1-1/object")
    answer, others = server.fault, list[str]()

    def meanwhile(method: str, path: str) -> int:
        if path == "b/1-0/object":
            others.append(region.put_bytes(b"2", name="y").uri)
        return answer(method, path)

    server.fault = meanwhile
    assert region.put_bytes(b"1", name="x").uri == "s3://b/2-1/object"
    assert others == ["s3://b/2-0/object"]
    assert ("PUT", "box/more-2") not in server.log


def test_a_download_whose_url_died_early_begins_anew(server: ObjectServer, tmp_path: Path) -> None:
    data = b"hello"
    region = store(server, Clock(), tmp_path, **{"s3://peer/in": server.put("old/in", data)})
    dies(server, "old/in")
    assert region.get_file(artifact(data)).read_bytes() == data
    dies(server, "renewed/in", "b/page-3", "box/more-2")
    with pytest.raises(UnreadableInput, match="403"):
        region.get_bytes(artifact(data))


def test_a_notice_whose_url_died_early_goes_where_the_next_page_says(
    server: ObjectServer, tmp_path: Path
) -> None:
    region = store(server, Clock(), tmp_path)
    saved = region.put_checkpoint(b"state")
    dies(server, "box/1")
    region.saved(["x", "n", 1, 2], saved)
    assert json.loads(server.objects["box/2"])["artifact"]["uri"] == saved.uri


def test_patience_ends(server: ObjectServer, tmp_path: Path) -> None:
    clock = Clock()
    server.fault = lambda _method, _path: 503
    with pytest.raises(StoreFull, match="503"):
        store(server, clock, tmp_path).put_bytes(b"2", name="x")
    assert 60 < clock.seconds <= 120


def test_a_store_that_went_with_its_region_is_not_waited_for(
    server: ObjectServer, tmp_path: Path
) -> None:
    """Else each node would wait out a store's restart before what lay there is computed again."""
    clock = Clock()
    uri = "s3://peer/in"
    region = store(server, clock, tmp_path, **{uri: server.url + "/peer/in"})
    server.fault = lambda _method, _path: 503
    with pytest.raises(UnreadableInput, match="503"):
        region.get_bytes(artifact(b"2", uri))
    assert clock.seconds <= ABROAD_SECONDS


def test_more_slots_than_a_page(server: ObjectServer, tmp_path: Path) -> None:
    """The agent is asked once, and its page is used when it comes."""
    region = store(server, Clock(), tmp_path)
    asked: list[str] = []

    def agent(method: str, path: str) -> int:
        if method == "PUT" and path.startswith("box/more"):
            asked.append(path)
        if method == "GET" and path == "b/page-2" and asked and len(server.log) > 8:
            server.put("b/page-2", json.dumps(page(server, 2)).encode())
        return 0

    server.fault = agent
    uris = [region.put_bytes(b"x", name="x").uri for _ in range(4)]
    assert uris == [f"s3://b/{n}-{i}/object" for n in (1, 2) for i in (0, 1)]
    assert asked == ["box/more-1"]
    assert json.loads(server.objects["box/more-1"]) == {"t": "more", "n": 2}


def test_an_agent_that_never_answers(server: ObjectServer, tmp_path: Path) -> None:
    clock = Clock()
    region = store(server, clock, tmp_path)
    for _ in range(2):
        region.put_bytes(b"x", name="x")
    with pytest.raises(StoreFull, match="signed no more URLs"):
        region.put_bytes(b"x", name="x")
    assert clock.seconds > 900
    assert server.log.count(("PUT", "box/more-1")) >= 30


def test_old_urls_are_replaced_before_they_die(server: ObjectServer, tmp_path: Path) -> None:
    """Slots of an old page are not used any more, inputs get new URLs."""
    clock = Clock()
    url = server.put("peer/in", b"hello")
    region = store(server, clock, tmp_path, **{"s3://peer/in": f"{server.url}/expired"})
    fresh = page(server, 2, expires_ns=10 * LIFE_NS) | {"reads": {"s3://peer/in": url}}
    server.put("b/page-2", json.dumps(fresh).encode())
    with pytest.raises(UnreadableInput):
        region.get_bytes(artifact(b"hello"))
    clock.ns = int(0.8 * LIFE_NS)
    assert region.get_bytes(artifact(b"hello")) == b"hello"
    assert region.put_bytes(b"x", name="x").uri == "s3://b/2-0/object"


def test_another_holders_page_is_found_when_the_own_one_is_dead(
    server: ObjectServer, tmp_path: Path
) -> None:
    clock = Clock()
    kept: list[Page] = []
    chain = pages(server, clock)
    mine = Pages(chain.page, chain.http, now_ns=lambda: clock.ns, kept=lambda: kept[0])
    region = SignedStore(mine, region="us-east", scratch=str(tmp_path))
    kept.append(Page.of(page(server, 7, expires_ns=10 * LIFE_NS), now_ns=0))
    clock.ns = 2 * LIFE_NS
    assert region.put_bytes(b"x", name="x").uri == "s3://b/7-0/object"


def test_a_checkpoint_is_told_once_it_is_stored(server: ObjectServer, tmp_path: Path) -> None:
    noted: list[Artifact] = []
    region = SignedStore(
        pages(server, Clock()),
        region="us-east",
        scratch=str(tmp_path),
        noted=lambda saved, _at: noted.append(saved),
    )
    saved = region.put_checkpoint(b"state")
    assert not noted
    region.saved(["x", "n", 1, 2], saved)
    assert noted == [saved]
    assert json.loads(server.objects["box/1"])["artifact"]["uri"] == "s3://b/1/checkpoint"
    assert region.get_bytes(saved) == b"state"


def test_a_get_that_is_refused(server: ObjectServer) -> None:
    with pytest.raises(Refusal) as refusal:
        Http().get(f"{server.url}/nothing")
    assert refusal.value.status == 404
