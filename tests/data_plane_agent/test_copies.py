"""Copies of other regions' objects: checked, named by content, made once, refused where they may
not lie."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from whimbrel.spec import Artifact

from data_plane_agent import messages as m
from data_plane_agent.blobs import Blobs
from data_plane_agent.copies import Copies
from data_plane_agent.questions import Questions

pytestmark = pytest.mark.anyio


class Stores:
    def __init__(self, folder: Path) -> None:
        self.there = Blobs(f"file://{folder}/there", region="us-east")
        self.here = Blobs(f"file://{folder}/here", region="eu-west")
        self.copies = Copies(self.here)

    async def copy(self, *artifacts: Artifact) -> dict[str, Artifact]:
        return await self.copies.copy(artifacts, folder="p/d")


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return Stores(tmp_path)


async def test_a_copy_is_named_by_its_content_and_after_its_original(stores: Stores) -> None:
    original = await stores.there.put("p/d/x/n/1/1/ab/num bers.txt", b"20 1")
    copied = await stores.copy(original)
    copy = copied[original.uri]
    digest = original.sha256
    key = f"p/d/replicas/{digest[:2]}/{digest}"
    assert copy == replace(
        original, uri=f"{stores.here.root}/{key}#num%20bers.txt", region="eu-west"
    )
    assert await stores.here.get(copy.uri) == b"20 1"
    assert stores.here.holds(copy.uri, below="p/d")  # what pods may read


async def test_what_lies_there_needs_no_original(stores: Stores, tmp_path: Path) -> None:
    original = await stores.there.put("k", b"1234")
    first = await stores.copy(original)
    (tmp_path / "there").rename(tmp_path / "lost")
    assert await stores.copy(original) == first


async def test_a_copy_that_was_changed_is_made_again(stores: Stores) -> None:
    original = await stores.there.put("k", b"1234")
    (copy,) = (await stores.copy(original)).values()
    await stores.here.put(copy.uri.removeprefix(f"{stores.here.root}/").partition("#")[0], b"4321")
    await stores.copy(original)
    assert await stores.here.get(copy.uri) == b"1234"


async def test_what_is_not_what_was_stored_is_left_out(
    stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    good = await stores.there.put("good", b"1234")
    other = replace(await stores.there.put("bad", b"4321"), sha256=good.sha256)
    longer = replace(await stores.there.put("long", b"4321"), bytes=3)
    nameless = replace(good, uri=f"{good.uri}2", sha256="")
    copied = await stores.copy(other, longer, nameless)
    assert copied == {}
    assert caplog.text.count("is not copied") == 3
    assert "nothing says what its content is to be" in caplog.text
    assert not list(Path(stores.here.root.removeprefix("file://")).rglob("*/replicas/*/*"))


async def test_data_that_must_stay_elsewhere_is_not_taken(
    stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    mine = await stores.there.put("a", b"a")
    bound = replace(await stores.there.put("b", b"b"), allowed_regions=("us-*",))
    welcome = replace(await stores.there.put("c", b"c"), allowed_regions=("us-*", "eu-*"))
    assert set(await stores.copy(mine, bound, welcome)) == {mine.uri, welcome.uri}
    assert "it must stay in us-*; this is eu-west" in caplog.text


class Slow:
    """A store that takes an object when it is told to."""

    root, region = "s3://b", "eu-west"

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.go = asyncio.Event()

    async def take(self, artifact: Artifact, key: str) -> None:
        self.taken.append(key)
        await self.go.wait()


async def test_a_copy_that_takes_long_goes_on_and_is_found() -> None:
    store = Slow()
    copies = Copies(store, answer_seconds=0)
    artifact = Artifact("s3://a/k", "0" * 64, 1, "us-east")
    assert await copies.copy([artifact], folder="p/d") == {}
    await asyncio.sleep(0)
    store.go.set()
    while not (found := await copies.copy([artifact], folder="p/d")):
        await asyncio.sleep(0)
    assert found[artifact.uri].region == "eu-west"
    assert len(store.taken) == 1


async def test_the_question_is_answered(stores: Stores) -> None:
    nothing: Any = None
    questions = Questions(engine=nothing, store=stores.here, copies=stores.copies, live=nothing)
    original = await stores.there.put("k", b"1234")
    answer = await questions.answer(m.Copy("q", (original,), "p/d"))
    assert [uri for uri, _ in answer.copied] == [original.uri]
