"""Nothing is lost, and nothing is there twice, when a part is killed under load."""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.system import ROUNDS, running
from tests.support.nats_servers import NatsServer
from tests.support.postgres import fresh_database
from tests.support.running import ModelServer

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(60 + 120 * ROUNDS)]

STEADY = 150.0
"""Images a second; what two cores take with everything on them."""
IMAGES = 300
"""Images a round."""


def moment(chance: random.Random, done: int, images: int = IMAGES) -> int:
    """After how many PUBACKs of all rounds the next kill comes: somewhere in the middle of a round."""
    return done + chance.randint(images // 10, images * 8 // 10)


@pytest.fixture(scope="module")
def own_model_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    """A TorchServe of these tests' own, to be killed."""
    server = ModelServer(tmp_path_factory.mktemp("own-torchserve"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'records.db'}"
    else:
        with fresh_database(request.getfixturevalue("postgres_server")) as url:
            yield url


async def test_killing_the_bridge_under_load_loses_nothing(
    tmp_path: Path, nats_server: NatsServer, model_server: ModelServer, chance: random.Random, database_url: str
) -> None:
    async with running(tmp_path, nats_server, model_server, chance, database_url=database_url) as system:
        for number in range(ROUNDS):
            async with system.under_load(system.fleet.images(IMAGES), rate=STEADY):
                await system.fleet.until(moment(chance, number * IMAGES))
                system.bridge.kill()
                await asyncio.to_thread(system.bridge.start)
        await system.check()


async def test_killing_the_model_servers_worker_under_load_loses_nothing(
    tmp_path: Path, nats_server: NatsServer, own_model_server: ModelServer, chance: random.Random
) -> None:
    async with running(tmp_path, nats_server, own_model_server, chance) as system:
        for number in range(ROUNDS):
            async with system.under_load(system.fleet.images(IMAGES), rate=STEADY):
                await system.fleet.until(moment(chance, number * IMAGES))
                own_model_server.kill_worker()
                await asyncio.to_thread(own_model_server.wait_ready)
        await system.check()


async def test_killing_the_model_servers_jvm_under_load_loses_nothing(
    tmp_path: Path, nats_server: NatsServer, own_model_server: ModelServer, chance: random.Random
) -> None:
    async with running(tmp_path, nats_server, own_model_server, chance) as system:
        for number in range(ROUNDS):
            async with system.under_load(system.fleet.images(IMAGES), rate=STEADY):
                await system.fleet.until(moment(chance, number * IMAGES))
                own_model_server.kill()
                await asyncio.to_thread(own_model_server.start)
        await system.check()


async def test_killing_the_bus_under_load_loses_nothing(
    tmp_path: Path, nats_server: NatsServer, model_server: ModelServer, chance: random.Random
) -> None:
    async with running(tmp_path, nats_server, model_server, chance) as system:
        for number in range(ROUNDS):
            async with system.under_load(system.fleet.images(IMAGES), rate=STEADY):
                await system.fleet.until(moment(chance, number * IMAGES))
                nats_server.kill()
                await asyncio.to_thread(nats_server.start)
        await system.check()


async def test_killing_the_bus_under_flood_loses_nothing(
    tmp_path: Path, nats_server: NatsServer, model_server: ModelServer, chance: random.Random
) -> None:
    flood = 4 * IMAGES
    async with running(tmp_path, nats_server, model_server, chance, connections=8, in_flight=16) as system:
        for number in range(ROUNDS):
            async with system.under_load(system.fleet.images(flood)):
                await system.fleet.until(moment(chance, number * flood, flood))
                nats_server.kill()
                await asyncio.to_thread(nats_server.start)
        await system.check()
        assert system.fleet.resent, "no kill caught an image between its PUBLISH and its PUBACK"
