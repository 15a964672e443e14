"""A system to kill parts of: real servers, a real bridge, and a fleet of cameras that publishes to it."""

import asyncio
import contextlib
import os
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import nats
import pytest
from nats.errors import Error as NatsError
from nats.js import JetStreamContext

from fabwafer.messages.bodies import Image
from fabwafer.records import Records, migrate
from fabwafer_bridge import streams
from fabwafer_bridge.settings import StreamSettings
from tests.chaos import ledger
from tests.chaos.fleet import Device, Fleet
from tests.support.nats_servers import NatsCluster, NatsServer, add_device
from tests.support.running import PATIENCE, Bridge, ModelServer

ROUNDS: Final = int(os.environ.get("FABWAFER_CHAOS_ROUNDS", "3"))
DURABLES: Final = (
    (streams.MQTT, streams.INTAKE),
    (streams.IMAGES, streams.CLASSIFY),
    (streams.IMAGES, streams.RECORD),
    (streams.PREDICTIONS, streams.RECORD),
)


@pytest.fixture
def chance() -> random.Random:
    """What decides the moments of the kills. The seed of a run is printed, and FABWAFER_CHAOS_SEED repeats it."""
    seed = int(os.environ.get("FABWAFER_CHAOS_SEED", random.SystemRandom().getrandbits(32)))
    print(f"FABWAFER_CHAOS_SEED={seed}")
    return random.Random(seed)


@dataclass
class System:
    """What runs, and who publishes to it."""

    servers: list[NatsServer]
    bridge: Bridge
    records: Records
    fleet: Fleet
    durables: Sequence[tuple[str, str]] = DURABLES
    """Stream and name of the consumers that a message passes."""

    @asynccontextmanager
    async def under_load(self, images: list[Image], *, rate: float | None = None) -> AsyncIterator[None]:
        """Publishes beside the body of the `async with`, and waits until each image has its PUBACK."""
        publishing = asyncio.create_task(self.fleet.publish(images, rate=rate))
        try:
            yield
            await publishing
        finally:
            publishing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await publishing

    async def settled(self) -> None:
        """Waits until the bus waits for nothing any more, as long as there is progress."""
        deadline = time.monotonic() + PATIENCE
        before: object = None
        async with self.jetstream() as js:
            while True:
                waiting = await waiting_messages(js, self.durables)
                if waiting is not None and not any(waiting.values()):
                    return
                if waiting != before:
                    before, deadline = waiting, time.monotonic() + PATIENCE
                assert time.monotonic() < deadline, f"{before} wait, {PATIENCE:g} s in vain: {self.bridge.last_words()}"
                await asyncio.sleep(0.1)

    async def check(self) -> None:
        """Waits until all is done, and checks that nothing was lost."""
        await self.settled()
        ledger.check(self.fleet.published, self.records.wafers())
        async with self.jetstream() as js:
            assert (await js.stream_info(streams.DEAD)).state.messages == 0, "dead letters"

    @asynccontextmanager
    async def jetstream(self) -> AsyncIterator[JetStreamContext]:
        """A look into the bus."""
        client = await nats.connect([server.url for server in self.servers if server.running])
        try:
            yield client.jetstream(timeout=5)
        finally:
            await client.close()


async def waiting_messages(js: JetStreamContext, durables: Sequence[tuple[str, str]]) -> dict[str, int] | None:
    """How many messages wait for each durable; None while the bus does not say."""
    waiting = {}
    for stream, durable in durables:
        try:
            info = await js.consumer_info(stream, durable)
        except (NatsError, TimeoutError):
            return None
        waiting[f"{stream}/{durable}"] = (info.num_pending or 0) + (info.num_ack_pending or 0)
    return waiting


@asynccontextmanager
async def running(
    directory: Path,
    bus: NatsServer | NatsCluster,
    model: ModelServer,
    chance: random.Random,
    *,
    database_url: str = "",
    connections: int = 4,
    in_flight: int = 4,
    only: str = "",
    replicas: int = 1,
    mqtt_max_bytes: int = StreamSettings().mqtt_max_bytes,
) -> AsyncIterator[System]:
    """Runs a bridge between a bus and a model server, with three cameras that publish.

    Args:
        directory: For the bridge's log and the records.
        bus: One server or a cluster.
        model: The model server.
        chance: Decides what is left to chance.
        database_url: The records; a SQLite file when empty.
        connections: Of each camera.
        in_flight: Images of each connection that are on their way at once.
        only: The bridge's consumers; all when empty.
        replicas: Copies of each stream.
        mqtt_max_bytes: The limit of `$MQTT_msgs`.
    """
    servers = [bus] if isinstance(bus, NatsServer) else bus.servers
    url = database_url or f"sqlite:///{directory / 'records.db'}"
    migrate(url)
    bridge = Bridge(
        directory / "bridge",
        nats_url=",".join(server.url for server in servers),
        inference_url=model.url,
        database_url=url,
        only=only,
        replicas=replicas,
        mqtt_max_bytes=mqtt_max_bytes,
    )
    try:
        # The streams are made; only then there are devices.
        await asyncio.to_thread(bridge.start)
        devices = [
            Device("fab1", camera, *await asyncio.to_thread(add_device, servers, "fab1", camera))
            for camera in ("cam1", "cam2", "cam3")
        ]
        fleet = Fleet(
            devices,
            lambda: [server.mqtt_port for server in servers if server.running],
            chance,
            connections=connections,
            in_flight=in_flight,
        )
        with Records(url) as records:
            yield System(servers, bridge, records, fleet)
    finally:
        await asyncio.to_thread(bridge.stop)
