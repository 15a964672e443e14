"""What is given to a publisher is stored once the bus can store it, however long it was away or full."""

import asyncio
import json

import pytest
from nats.aio.client import Client
from nats.js.api import DiscardPolicy, StreamConfig

from fabwafer_bridge.connection import connect
from fabwafer_bridge.publisher import NeverStoredError, Outgoing, Publisher
from tests.support.nats_servers import NatsServer

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120)]


def letters(count: int, size: int) -> list[Outgoing]:
    return [Outgoing("post.letter", b"x" * size, {"Nats-Msg-Id": str(number)}) for number in range(count)]


async def stored(client: Client) -> int:
    return (await client.jetstream().stream_info("POST")).state.messages


async def test_an_outage_that_overflows_the_clients_buffer_loses_nothing(nats_server: NatsServer) -> None:
    client = await connect(nats_server.url, name="test")
    await client.jetstream().add_stream(StreamConfig(name="POST", subjects=["post.>"]))
    nats_server.kill()
    # More than the client holds back while it is not connected.
    publisher, post = Publisher(client), letters(3000, 6 * 1024)
    storing = asyncio.gather(*(publisher.store(post[start : start + 1000]) for start in range(0, 3000, 1000)))
    while client.is_connected:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.5)  # a few tries come to nothing
    assert not storing.done()
    await asyncio.to_thread(nats_server.start)
    assert await storing == [[None] * 1000] * 3
    assert await stored(client) == 3000
    await client.close()


async def test_a_full_stream_refuses_at_once_and_takes_all_when_it_is_empty_again(nats_server: NatsServer) -> None:
    client = await connect(nats_server.url, name="test")
    js = client.jetstream()
    await js.add_stream(StreamConfig(name="POST", subjects=["post.>"], max_bytes=64 * 1024, discard=DiscardPolicy.NEW))
    storing = asyncio.create_task(Publisher(client).store(letters(100, 1024)))
    emptied = 0
    while not storing.done():
        emptied += await _purged(client)
        await asyncio.sleep(0.05)
    assert await storing == [None] * 100
    assert emptied + await stored(client) == 100
    await client.close()


async def _purged(client: Client) -> int:
    """Empties the stream; returns how many messages it held."""
    answer = await client.request("$JS.API.STREAM.PURGE.POST", b"", timeout=5)
    return int(json.loads(answer.data)["purged"])


async def test_what_is_too_large_for_its_stream_is_said_to_be_so(nats_server: NatsServer) -> None:
    client = await connect(nats_server.url, name="test")
    await client.jetstream().add_stream(StreamConfig(name="POST", subjects=["post.>"], max_msg_size=1024))
    small, large = await Publisher(client).store([*letters(1, 100), Outgoing("post.letter", b"x" * 2048)])
    assert small is None
    assert isinstance(large, NeverStoredError)
    await client.close()


async def test_what_nobody_stores_yet_is_stored_when_there_is_a_stream(nats_server: NatsServer) -> None:
    client = await connect(nats_server.url, name="test")
    storing = asyncio.create_task(Publisher(client).store(letters(10, 100)))
    await asyncio.sleep(0.2)
    assert not storing.done()
    await client.jetstream().add_stream(StreamConfig(name="POST", subjects=["post.>"]))
    assert await storing == [None] * 10
    assert await stored(client) == 10
    await client.close()
