"""The outbox: a crash leaves a prefix; numbers begin anew; a full disk loses nothing."""

import asyncio
import errno
from pathlib import Path
from typing import Any

import pytest

from data_plane_agent import outbox as module
from data_plane_agent.outbox import Entry, Outbox, decode, encode

pytestmark = pytest.mark.anyio

ALL = 10_000_000


def entries(count: int, *, execution: str = "p/d/x", epoch: int = 1) -> list[Entry]:
    return [Entry(execution, epoch, f"event {i}".encode(), last=i == 4) for i in range(count)]


async def write(folder: Path, batches: list[list[Entry]], *, settle: int = 0) -> None:
    box = Outbox(folder)
    writing = asyncio.create_task(box.run())
    for batch in batches:
        box.put(batch)
        while len(await box.batch(ALL, limit_bytes=ALL)) < box.waiting:
            await asyncio.sleep(0)
    box.settle(settle)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)


def reopened(folder: Path) -> list[Entry]:
    box = Outbox(folder)
    pending = box.pending()
    box.close()
    return pending


async def test_what_was_put_is_there_after_a_restart(tmp_path: Path) -> None:
    await write(tmp_path, [entries(5), entries(3)])
    assert reopened(tmp_path) == entries(5) + entries(3)


async def test_what_was_put_last_is_written_at_the_end(tmp_path: Path) -> None:
    box = Outbox(tmp_path)
    writing = asyncio.create_task(box.run())
    await asyncio.sleep(0)
    box.put(entries(2))
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    assert reopened(tmp_path) == entries(2)


async def test_settled_ones_do_not_come_back(tmp_path: Path) -> None:
    await write(tmp_path, [entries(5)], settle=3)
    assert reopened(tmp_path) == entries(5)[3:]
    (tmp_path / "outbox.cursor").unlink()
    assert reopened(tmp_path) == entries(5), "a lost cursor offers once more, and loses nothing"


async def test_torn_at_every_byte(tmp_path: Path) -> None:
    await write(tmp_path, [entries(6)])
    whole = (tmp_path / "outbox").read_bytes()
    (tmp_path / "outbox.cursor").unlink()
    seen: set[int] = set()
    for length in range(len(whole)):
        folder = tmp_path / f"torn{length}"
        folder.mkdir()
        (folder / "outbox").write_bytes(whole[:length])
        found = reopened(folder)
        assert found == entries(6)[: len(found)]
        seen.add(len(found))
        await write(folder, [entries(1, execution="p/d/after")])
        assert reopened(folder) == [*found, *entries(1, execution="p/d/after")]
    assert seen == {0, 1, 2, 3, 4, 5}


async def test_a_torn_header_does_not_swallow_what_comes_after(tmp_path: Path) -> None:
    await write(tmp_path, [entries(5)], settle=5)
    (tmp_path / "outbox").write_bytes(b"WH")
    await write(tmp_path, [entries(2)])
    assert reopened(tmp_path) == entries(2)


def test_a_flipped_byte_ends_the_prefix() -> None:
    text = b"".join(map(encode, entries(3)))
    size = len(encode(entries(1)[0]))
    for at in range(size, 2 * size):
        bad = text[:at] + bytes([text[at] ^ 1]) + text[at + 1 :]
        assert decode(bad)[0] == entries(1)


async def test_numbers(tmp_path: Path) -> None:
    await write(tmp_path, [entries(3), entries(2, execution="p/d/y")])
    box = Outbox(tmp_path)
    assert box.first == 1
    box.settle(2)
    assert (box.first, box.waiting) == (3, 3)
    assert box.renumber(lambda one: one.execution == "p/d/y") == 1
    assert (box.first, box.pending()) == (1, entries(2, execution="p/d/y"))
    box.close()


async def test_a_batch_has_limits(tmp_path: Path) -> None:
    await write(tmp_path, [entries(5)])
    box = Outbox(tmp_path)
    assert len(await box.batch(2, limit_bytes=ALL)) == 2
    assert len(await box.batch(9, limit_bytes=15)) == 2
    assert len(await box.batch(9, limit_bytes=1)) == 1
    box.close()


async def test_compaction_keeps_what_is_unsettled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COMPACT_BYTES", 20)
    box = Outbox(tmp_path)
    writing = asyncio.create_task(box.run())
    box.put(entries(5))
    await box.batch(1, limit_bytes=ALL)
    before = (tmp_path / "outbox").stat().st_size
    box.settle(4)
    box.put(entries(1, execution="p/d/y"))
    while len(await box.batch(9, limit_bytes=ALL)) < 2:
        await asyncio.sleep(0)
    box.settle(4)
    assert box.first == 5
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    assert (tmp_path / "outbox").stat().st_size < before
    assert reopened(tmp_path) == [entries(5)[4], *entries(1, execution="p/d/y")]


async def test_a_full_disk_is_said_and_outlived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    health: list[bool] = []
    box = Outbox(tmp_path, on_health=health.append)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0)
    full = 3
    fdatasync = module.os.fdatasync

    def refuse(file: int) -> Any:
        nonlocal full
        if full:
            full -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        fdatasync(file)

    monkeypatch.setattr(module.os, "fdatasync", refuse)
    writing = asyncio.create_task(box.run())
    box.put(entries(3))
    assert await box.batch(9, limit_bytes=ALL) == entries(3)
    assert health == [False, True]
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    assert reopened(tmp_path) == entries(3)


async def test_what_is_to_be_forgotten_is_not_said_by_a_restart_either(tmp_path: Path) -> None:
    await write(tmp_path, [entries(3), entries(2, execution="p/d/y")])
    box = Outbox(tmp_path)
    box.put(entries(1))
    saved = (tmp_path / "outbox.cursor").read_bytes()
    assert box.settle(1, forget={("p/d/x", 1)}) == 3
    assert (box.first, box.pending()) == (2, entries(2, execution="p/d/y"))
    assert (tmp_path / "outbox.cursor").read_bytes() == saved, "not before the mark is on disk"
    writing = asyncio.create_task(box.run())
    after = [Entry("p/d/x", 1, b"said from the answer"), Entry("p/d/x", 2, b"at another epoch")]
    box.put(after)
    while len(await box.batch(ALL, limit_bytes=ALL)) < 4:
        await asyncio.sleep(0)
    box.settle(2)
    assert (tmp_path / "outbox.cursor").read_bytes() != saved
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    assert reopened(tmp_path) == [entries(2, execution="p/d/y")[1], *after]


async def test_what_is_being_written_is_forgotten_too(tmp_path: Path) -> None:
    box = Outbox(tmp_path)
    writing = asyncio.create_task(box.run())
    box.put([*entries(module.GROUP_EVENTS), *entries(1, execution="p/d/y")])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert box.settle(0, forget={("p/d/x", 1)}) == module.GROUP_EVENTS
    kept = entries(1, execution="p/d/y")
    assert await box.batch(ALL, limit_bytes=ALL) == kept
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    assert reopened(tmp_path) == kept
