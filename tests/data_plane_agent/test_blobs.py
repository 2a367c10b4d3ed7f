"""The store by absolute address: what was put is read, what is gone is named."""

from dataclasses import replace
from pathlib import Path

import pytest
from whimbrel.runtime_store import StoreFull, UnreadableInput

from data_plane_agent.blobs import Blobs

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
