"""Orders: every address in one opens one object; answers are believed only as far as they go."""

import json
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from whimbrel.errors import Refused
from whimbrel.runtime_order import Order, Pages, SignedStore
from whimbrel.runtime_pod_http import Http
from whimbrel.runtime_store import StoreFull, UnreadableInput
from whimbrel.spec import Artifact, sha256

from data_plane_agent.blobs import Blobs, StoreOptions
from data_plane_agent.copies import Copies
from data_plane_agent.pods.orders import Orders, Sender
from tests.data_plane_agent.pods.parts import KEY, POD, Region, attempt, region

pytestmark = pytest.mark.anyio

BUNDLE = f"bucket/us east/bundles/{'b' * 64}"


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Region]:
    with region(tmp_path) as here:
        yield here


def fetched(url: str) -> bytes:
    with urllib.request.urlopen(url) as answer:
        return answer.read()


def given(artifact: Artifact) -> dict[str, Any]:
    return {"$artifact": asdict(artifact)}


async def test_a_pod_reads_its_inputs_and_writes_its_outputs(here: Region, tmp_path: Path) -> None:
    one = await here.blobs.put("p/d/x/m/1/1/ab/a file", b"hello")
    checkpoint = await here.blobs.put("x/n/0/1/ab/checkpoint", b"state")
    order = await here.orders.write(attempt(checkpoint, files=[given(one)]), pod=POD)
    data = fetched(order.url)
    assert sha256(data) == order.sha256
    parsed = Order.of(data, now_ns=time.time_ns())
    assert (parsed.key, parsed.input_digest) == (("x", "n", 1, 2), "digest")
    assert (parsed.timeout, parsed.grace, parsed.region) == (60.0, 30.0, "us-east")
    assert fetched(parsed.bundle_url) == b"the code"
    store = SignedStore(Pages(parsed.page, Http()), region="us-east", scratch=str(tmp_path))
    assert store.get_bytes(one) == b"hello"
    assert store.get_bytes(checkpoint) == b"state"
    written = store.put_bytes(b"result", name="x")
    assert written.uri.startswith(f"s3://bucket/us east/{order.folder}/")
    assert await here.blobs.get(written.uri) == b"result"


async def test_a_pod_reads_a_copy(here: Region, tmp_path: Path) -> None:
    original = await here.blobs.put("p/d/x/m/1/1/ab/a file", b"hello")
    copied = await Copies(here.blobs).copy([original], folder="p/d")
    copy = copied[original.uri]
    order = await here.orders.write(attempt(copy, files=[given(copy)]), pod=POD)
    parsed = Order.of(fetched(order.url), now_ns=time.time_ns())
    store = SignedStore(Pages(parsed.page, Http()), region="us-east", scratch=str(tmp_path))
    assert store.get_file(copy).name == "a file"
    assert store.get_bytes(copy) == b"hello"


async def test_the_bundle_is_brought_once(here: Region) -> None:
    for _ in range(2):
        await here.orders.write(attempt(), pod=POD)
    assert here.server.log.count(("PUT", BUNDLE)) == 1
    assert len(here.fetched) == 1


async def test_a_bundle_that_the_store_has_thrown_away_is_brought_again(here: Region) -> None:
    now_ns = [1]

    async def fetch(_digest: str) -> Path:
        return archive

    archive = here.archive
    orders = Orders(here.blobs, cluster="alpha", fetch_archive=fetch, clock_ns=lambda: now_ns[0])
    await orders.code("b" * 64)
    del here.server.objects[BUNDLE]
    now_ns[0] += 3599 * 10**9
    await orders.code("b" * 64)
    assert BUNDLE not in here.server.objects
    now_ns[0] += 10**9
    await orders.code("b" * 64)
    assert here.server.objects[BUNDLE] == b"the code"


async def test_orders_of_one_attempt_have_one_digest_and_own_folders(here: Region) -> None:
    first, again = [await here.orders.write(attempt(n=1), pod=POD) for _ in range(2)]
    other = await here.orders.write(attempt(n=2), pod=POD)
    assert first.digest == again.digest != other.digest
    assert first.folder != again.folder


async def test_urls_open_one_object_for_a_time(here: Region) -> None:
    order = await here.orders.write(attempt(), pod=POD)
    query = parse_qs(urlsplit(order.url).query)
    assert query["X-Amz-Expires"] == ["3600"]
    text = fetched(order.url).decode()
    assert "secret12" not in text
    assert order.folder in text
    page = json.loads(text)["page"]
    slots = page["artifacts"] + page["checkpoints"]
    assert len({slot["put"] for slot in slots}) == len(slots) == 20
    notices = [slot["notice"] for slot in page["checkpoints"]] + [page["more"]["notice"]]
    assert all(f"/mailbox/alpha/{POD}/" in notice for notice in notices)
    assert len(set(notices)) == 5


async def test_an_input_without_keys_to_it(here: Region) -> None:
    """A checkpoint like that only costs the work since."""
    peer = Artifact("s3://peer/k", "0" * 64, 1, "eu")
    with pytest.raises(UnreadableInput) as error:
        await here.orders.write(attempt(file=given(peer)), pod=POD)
    assert error.value.uri == peer.uri
    order = await here.orders.write(attempt(peer), pod=POD)
    assert json.loads(fetched(order.url))["reads"] == {}


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/us east/q/d/x/n/1/1/ab/object",
        "s3://bucket/us east/p/e/object",
        "s3://bucket/us east/p/d",
        "s3://bucket/us east/p/d/../../q/d/object",
        "s3://bucket/us east/p/d/%2e%2e/%2E%2e/q/d/object",
        "s3://bucket/us east/p/d//object",
        "s3://bucket/us east/p/dd/object",
        "s3://bucket/p/d/object",
        "s3://peer/eu/q/d/object",
        "s3://peer/p/d/object",
        "file:///etc/passwd",
    ],
)
async def test_an_input_of_another_project_is_signed_for_no_pod(here: Region, uri: str) -> None:
    """Neither for a pod of its own nor for a warm one, whoever named it."""
    orders = with_peer(here)
    task = attempt(file=given(Artifact(uri, "0" * 64, 1, "us-east")))
    with pytest.raises(UnreadableInput, match="not below p/d/"):
        await here.orders.write(task, pod=POD)
    with pytest.raises(UnreadableInput, match="not below p/d/"):
        await orders.reads(task)


async def test_an_input_of_the_own_project_may_lie_in_a_peers_store(here: Region) -> None:
    orders = with_peer(here)
    uris = ["s3://bucket/us east/p/d/a", "s3://peer/eu/p/d/a#name"]
    files = [given(Artifact(uri, "0" * 64, 1, "eu")) for uri in uris]
    assert list(await orders.reads(attempt(files=files))) == uris


def with_peer(here: Region) -> Orders:
    async def fetch(digest: str) -> Path:
        raise FileNotFoundError(digest)

    blobs = Blobs(
        here.blobs.root,
        region="us-east",
        options=here.options,
        peers={"s3://peer/eu": here.options},
    )
    return Orders(blobs, cluster="alpha", fetch_archive=fetch)


async def test_the_next_page_has_other_slots_and_the_same_inputs(here: Region) -> None:
    one = await here.blobs.put("p/d/in", b"hello")
    order = await here.orders.write(attempt(file=given(one)), pod=POD)
    sender = Sender(KEY, order.folder)
    first = json.loads(fetched(order.url))["page"]
    await here.orders.next_page(sender, pod=POD, number=2)
    second = json.loads(fetched(first["more"]["get"]))
    assert second["n"] == 2
    assert list(second["reads"]) == [one.uri]
    uris = {slot["uri"] for page in (first, second) for slot in page["artifacts"]}
    assert len(uris) == 32
    await here.orders.next_page(sender, pod=POD, number=2)
    again = json.loads(fetched(first["more"]["get"]))
    assert [slot["uri"] for slot in again["artifacts"]] == [
        slot["uri"] for slot in second["artifacts"]
    ]


@pytest.mark.parametrize("number", [0, 1, 5000, -3])
async def test_pages_that_no_pod_needs(here: Region, number: int) -> None:
    order = await here.orders.write(attempt(), pod=POD)
    before = here.server.keys("")
    await here.orders.next_page(Sender(KEY, order.folder), pod=POD, number=number)
    assert here.server.keys("") == before


DONE = {
    "t": "done",
    "k": ["someone", "else", 1, 1],
    "d": "digest",
    "s": 1,
    "e": 2,
    "value": "{}",
    "digest": "dd",
    "artifacts": [],
    "offloaded": None,
    "stdout": None,
    "stderr": None,
}
BROKE = {
    "t": "broke",
    "d": "digest",
    "s": 1,
    "e": 2,
    "owner": "user",
    "kind": "raised",
    "message": "m",
    "tb": "",
    "unreadable": [],
}


async def test_an_answer_is_of_the_pod_that_gives_it(here: Region) -> None:
    sender = Sender(KEY, "x/n/1/2/ab")
    for said in (DONE, BROKE):
        answer = await here.orders.answer(json.dumps(said), sender)
        assert answer == {**said, "k": ["x", "n", 1, 2]}


async def test_a_stored_answer(here: Region) -> None:
    sender = Sender(KEY, "x/n/1/2/ab")
    stored = await here.blobs.put("x/n/1/2/ab/result.json", json.dumps(DONE).encode())
    said = {"t": "stored", "uri": stored.uri, "sha256": stored.sha256, "bytes": stored.bytes}
    answer = await here.orders.answer(json.dumps(said), sender)
    assert answer is not None
    assert answer["t"] == "done"
    assert await here.orders.answer(json.dumps({**said, "sha256": "0" * 64}), sender) is None
    other = Sender(KEY, "x/n/1/2/cd")
    assert await here.orders.answer(json.dumps(said), other) is None
    here.server.fault = lambda _method, _path: 403
    with pytest.raises(UnreadableInput):
        await here.orders.answer(json.dumps(said), sender)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "killed",
        json.dumps({"t": "stored"}),
        json.dumps({**DONE, "artifacts": [{"uri": 1}]}),
        json.dumps({**DONE, "offloaded": "x"}),
        json.dumps({**DONE, "e": "late"}),
        json.dumps({**BROKE, "owner": "nobody"}),
        json.dumps({**BROKE, "unreadable": [1]}),
        json.dumps({**BROKE, "stdout": []}),
    ],
)
async def test_what_is_no_answer(here: Region, text: str) -> None:
    assert await here.orders.answer(text, Sender(KEY, "x/n/1/2/ab")) is None


async def test_a_rescued_log(here: Region) -> None:
    sender = Sender(KEY, "x/n/1/2/ab")
    artifact = await here.orders.save_log(sender, b"last words")
    assert artifact is not None
    assert here.orders.owned(artifact, sender)
    assert await here.blobs.get(artifact.uri) == b"last words"
    assert await here.orders.save_log(sender, b"") is None


async def test_stores_that_pods_cannot_use(here: Region, tmp_path: Path) -> None:
    async def fetch(digest: str) -> Path:
        raise FileNotFoundError(digest)

    await here.orders.open()
    folder = Blobs(f"file://{tmp_path}/store", region="us-east")
    with pytest.raises(Refused, match="signed URLs"):
        await Orders(folder, cluster="alpha", fetch_archive=fetch).open()


@pytest.mark.parametrize("status", [403, 404, 400, 301])
async def test_a_store_that_refuses_at_the_start(here: Region, status: int) -> None:
    here.server.fault = lambda _method, _path: status
    with pytest.raises(Refused, match="does not work"):
        await here.orders.open()


async def test_a_store_that_is_away_at_the_start_is_waited_for(
    here: Region, caplog: pytest.LogCaptureFixture
) -> None:
    here.server.fault = lambda _method, _path: 503
    await here.orders.open()
    assert "does not answer yet" in caplog.text
    here.server.fault = lambda _method, _path: 0
    nobody = StoreOptions("http://127.0.0.1:1", "key", "secret12")
    await Blobs("s3://bucket", region="us-east", options=nobody).refuse_for_pods()


async def test_a_store_that_is_away(here: Region) -> None:
    here.server.fault = lambda method, _path: 403 if method == "PUT" else 0
    with pytest.raises(StoreFull):
        await here.orders.write(attempt(), pod=POD)
    here.server.fault = lambda _method, _path: 0
    await here.orders.write(attempt(), pod=POD)
