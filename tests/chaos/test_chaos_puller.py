"""A puller gets every message of its durable, whatever becomes of what it asked the bus for."""

import asyncio

import pytest
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig, StreamConfig

from fabwafer.service.process import end
from fabwafer_bridge.connection import connect
from fabwafer_bridge.puller import Puller
from tests.support.nats_servers import NatsServer

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120)]


async def post(client: Client, numbers: range) -> None:
    await asyncio.gather(*(client.jetstream().publish("post.letter", str(number).encode()) for number in numbers))


async def ensure_streams(client: Client) -> None:
    js = client.jetstream()
    await js.add_stream(StreamConfig(name="POST", subjects=["post.>"]))
    await js.add_consumer("POST", ConsumerConfig(durable_name="postman", ack_policy=AckPolicy.EXPLICIT, ack_wait=300))


async def carried(puller: Puller, wanted: range) -> None:
    """Takes messages and acknowledges them until each wanted one was there; one may come again."""
    missing = set(wanted)
    while missing:
        batch = await puller.batch(16)
        async with puller.held(batch):
            missing -= {int(message.data) for message in batch}


async def test_a_puller_asks_a_server_anew_that_was_killed_while_it_waited(nats_server: NatsServer) -> None:
    pullers: list[Puller] = []

    async def renew() -> None:
        for each in pullers:
            await each.renew()

    client = await connect(nats_server.url, name="test", reconnected=renew)
    await ensure_streams(client)
    puller = Puller(client, "POST", "postman", window=64)
    pullers.append(puller)
    await puller.start()
    for start in (0, 100, 200):
        nats_server.kill()
        await asyncio.to_thread(nats_server.start)
        poster = await connect(nats_server.url, name="poster")
        await post(poster, range(start, start + 100))
        await poster.close()
        await carried(puller, range(start, start + 100))
    await client.close()


async def test_a_puller_waits_for_a_durable_that_is_not_there_yet(nats_server: NatsServer) -> None:
    client = await connect(nats_server.url, name="test")
    puller = Puller(client, "POST", "postman", window=64)
    await puller.start()
    waiting = asyncio.create_task(carried(puller, range(100)))
    await asyncio.sleep(0.2)
    await ensure_streams(client)
    await post(client, range(100))
    await waiting
    await client.close()


async def test_a_puller_that_stops_leaves_at_once_to_the_next_what_it_did_not_begin(nats_server: NatsServer) -> None:
    client = await connect(nats_server.url, name="test")
    await ensure_streams(client)
    await post(client, range(100))
    first = Puller(client, "POST", "postman", window=64)
    await first.start()
    await carried(first, range(10))
    await first.stop()
    second = Puller(client, "POST", "postman", window=64)
    await second.start()
    await carried(second, range(16, 100))  # the server alone would wait for the first one for minutes
    await client.close()


async def test_what_is_worked_on_when_a_consumer_is_cancelled_goes_to_the_next_at_once(
    nats_server: NatsServer,
) -> None:
    client = await connect(nats_server.url, name="test")
    await ensure_streams(client)
    await post(client, range(40))
    first = Puller(client, "POST", "postman", window=64)
    await first.start()
    holding = asyncio.Event()

    async def work() -> None:
        async with first.held(await first.batch(16)):
            holding.set()
            await asyncio.Event().wait()

    works = [asyncio.create_task(work()) for _ in range(2)]
    await holding.wait()
    await first.stop()
    await end(works)
    second = Puller(client, "POST", "postman", window=64)
    await second.start()
    await carried(second, range(40))  # the server alone would wait for the first one for minutes
    await client.close()
