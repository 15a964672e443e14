"""A bridge that is stopped under load gives back at once what it has in hand."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from nats.js.api import ConsumerConfig

from tests.chaos.system import DURABLES, System, running
from tests.support.nats_servers import NatsServer
from tests.support.running import ModelServer

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

ONE_HOUR = 3600.0


@asynccontextmanager
async def a_server_that_never_answers() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """Its address, and an event that is set when it was asked."""
    asked = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        asked.set()
        await asyncio.sleep(ONE_HOUR)

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
    finally:
        server.close()


async def never_again_by_itself(system: System) -> None:
    """Lets the bus wait for an hour before it delivers again what was not given back."""
    async with system.jetstream() as js:
        for stream, durable in DURABLES:
            config: ConsumerConfig = (await js.consumer_info(stream, durable)).config
            await js.add_consumer(stream, config.evolve(ack_wait=ONE_HOUR))


async def test_a_bridge_that_is_stopped_while_the_model_server_hangs_leaves_its_images_to_the_next(
    tmp_path: Path, nats_server: NatsServer, model_server: ModelServer, chance: random.Random
) -> None:
    async with running(tmp_path, nats_server, model_server, chance) as system:
        await never_again_by_itself(system)
        async with a_server_that_never_answers() as (url, asked):
            await asyncio.to_thread(system.bridge.stop)
            system.bridge.environment["FABWAFER_INFERENCE_URL"] = url
            await asyncio.to_thread(system.bridge.start)
            await system.fleet.publish(system.fleet.images(100))
            await asked.wait()
            assert await asyncio.to_thread(system.bridge.stop) == 0
        system.bridge.environment["FABWAFER_INFERENCE_URL"] = model_server.url
        await asyncio.to_thread(system.bridge.start)
        await system.check()


async def test_a_bridge_that_is_stopped_under_load_leaves_nothing_in_hand(
    tmp_path: Path, nats_server: NatsServer, model_server: ModelServer, chance: random.Random
) -> None:
    async with running(tmp_path, nats_server, model_server, chance) as system:
        await never_again_by_itself(system)
        for number in range(3):
            async with system.under_load(system.fleet.images(300)):
                await system.fleet.until(300 * number + chance.randint(30, 240))
                assert await asyncio.to_thread(system.bridge.stop) == 0
                await asyncio.to_thread(system.bridge.start)
        await system.check()
