"""The store by absolute address: what was put is read, what is gone is named."""

from dataclasses import replace
from pathlib import Path

import pytest
from whimbrel.errors import InvalidInput
from whimbrel.runtime_store import StoreFull, UnreadableInput

from data_plane_agent.blobs import Blobs, StoreOptions
from tests.object_server import object_server

pytestmark = pytest.mark.anyio


async def test_put_and_get(tmp_path: Path) -> None:
    blobs = Blobs(f"file://{tmp_path}/a store", region="eu-west")
    artifact = await blobs.put("p/d/x/n/1/1/ab/out put.txt", b"hello")
    assert artifact.uri == f"file://{tmp_path}/a store/p/d/x/n/1/1/ab/out%20put.txt"
    assert (artifact.bytes, artifact.region, artifact.kind) == (5, "eu-west", "file")
    assert await blobs.get(artifact.uri) == b"hello"
    assert await blobs.size(artifact.uri) == 5


async def test_another_regions_object_is_read_by_its_address(tmp_path: Path) -> None:
    there = Blobs(f"file://{tmp_path}/there", region="us-east")
    here = Blobs(f"file://{tmp_path}/here", region="eu-west")
    artifact = await there.put("k", b"1234")
    assert await here.get(artifact.uri) == b"1234"


async def test_unreadable_names_what_is_gone_or_changed(tmp_path: Path) -> None:
    blobs = Blobs(f"file://{tmp_path}/store", region="us-east")
    good = await blobs.put("good", b"1234")
    cut = replace(await blobs.put("cut", b"1234"), bytes=9)
    gone = replace(good, uri=f"file://{tmp_path}/store/gone")
    odd = replace(good, uri="not an address")
    assert await blobs.unreadable([good, cut, gone, odd]) == [cut.uri, gone.uri, odd.uri]
    (tmp_path / "store").rename(tmp_path / "away")
    assert await blobs.unreadable([good]) == [good.uri]
    with pytest.raises(UnreadableInput, match="store/good"):
        await blobs.get(good.uri)


async def test_a_store_that_takes_nothing(tmp_path: Path) -> None:
    blobs = Blobs(f"file://{tmp_path}/store", region="us-east")
    (tmp_path / "store").rmdir()
    (tmp_path / "store").write_text("a file where the folder was")
    with pytest.raises(StoreFull, match="can't write to the store"):
        await blobs.put("k", b"1")


async def test_an_s3_store_and_its_peers(tmp_path: Path) -> None:
    with object_server() as here, object_server() as there:
        peers = {
            "s3://other": StoreOptions(there.url, "k", "s"),
            "s3://other/apart": StoreOptions(here.url, "k", "s"),
        }
        own = StoreOptions(here.url, "k", "s")
        blobs = Blobs("s3://bucket/us", region="us-east", options=own, peers=peers)
        artifact = await blobs.put("x/a b", b"1234")
        assert artifact.uri == "s3://bucket/us/x/a%20b"
        assert here.objects["bucket/us/x/a b"] == b"1234"
        there.put("other/k", b"56789")
        here.put("other/apart/k", b"0")
        assert await blobs.get("s3://other/k") == b"56789"
        assert await blobs.get("s3://other/apart/k#name.txt") == b"0"
        assert await blobs.size(artifact.uri) == 4
        gone = replace(artifact, uri="s3://other/gone")
        assert await blobs.unreadable([artifact, gone]) == [gone.uri]
        file = tmp_path / "file"
        file.write_bytes(b"from the disk")
        assert (await blobs.put("f", file)).bytes == 13
        (page,) = [page async for page in blobs.entries("x/")]
        assert [(entry.uri, entry.bytes) for entry in page] == [(artifact.uri, 4)]
        await blobs.delete([artifact.uri, artifact.uri])
        assert "bucket/us/x/a b" not in here.objects


async def test_signing_wants_keys(tmp_path: Path) -> None:
    blobs = Blobs(f"file://{tmp_path}/store", region="us-east")
    good = await blobs.put("good", b"1234")
    with pytest.raises(UnreadableInput, match="no store that this region has keys of"):
        await blobs.sign("GET", [good.uri], seconds=60)


def test_an_endpoint_is_of_an_s3_store(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no S3 store"):
        Blobs(f"file://{tmp_path}/s", region="r", options=StoreOptions("http://127.0.0.1:1"))
    assert "hush" not in repr(StoreOptions("http://h", "key", "hush"))
