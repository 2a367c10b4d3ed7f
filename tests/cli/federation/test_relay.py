"""The link forwards, is cut without a word, and drops what is stale when it is healed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable

import pytest
from whimbrel.cli.federation.relay import Relay

pytestmark = pytest.mark.anyio


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.transport.abort()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    relay = Relay("127.0.0.1", server.sockets[0].getsockname()[1])
    await relay.start("127.0.0.1")
    yield relay
    await relay.close()
    server.close()


async def dial(relay: Relay) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = relay.address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def ended(reading: Awaitable[bytes]) -> bool:
    try:
        return await reading == b""
    except ConnectionResetError:
        return True


async def test_a_whole_link_forwards_both_ways(relay: Relay) -> None:
    reader, writer = await dial(relay)
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    writer.close()


async def test_a_cut_link_is_silent_and_a_healed_one_drops_old_connections(relay: Relay) -> None:
    reader, writer = await dial(relay)
    writer.write(b"a")
    await reader.readexactly(1)
    relay.cut()
    writer.write(b"b")
    answer = asyncio.ensure_future(reader.read(1))
    done, _ = await asyncio.wait([answer], timeout=0.05)
    assert not done, "a cut link must neither answer nor end"
    relay.heal()
    assert await ended(answer)
    writer.transport.abort()
    fresh, again = await dial(relay)
    again.write(b"c")
    assert await fresh.readexactly(1) == b"c"
    again.transport.abort()


async def test_an_upstream_that_is_away_ends_the_connection(relay: Relay) -> None:
    lonely = Relay("127.0.0.1", 1)
    await lonely.start("127.0.0.1")
    reader, writer = await dial(lonely)
    assert await ended(reader.read(1))
    writer.close()
    await lonely.close()
