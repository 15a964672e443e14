"""A fab for tests: a server with device-auth, and devices that connect to it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import nats
import pytest
import pytest_asyncio
from nats.aio.client import Client

from fabwafer_bridge.devices import Credentials, Devices
from fabwafer_bridge.listener_log import REASONS
from tests.support.device_auth import DeviceAuthProcess
from tests.support.nats_servers import NatsServer
from tests.support.raw_mqtt import RawMqtt
from tests.support.streams import make_streams

ACCEPTED = 0
NOT_AUTHORIZED = 5


class Fab:
    """A server with device-auth, and a connection with the bridge's rights; counts of drops start at 0."""

    def __init__(self, server: NatsServer, device_auth: DeviceAuthProcess, bus: Client, devices: Devices) -> None:
        self.server = server
        self.device_auth = device_auth
        self.bus = bus
        self.devices = devices
        self._dropped_before = {reason: device_auth.dropped(reason) for reason in REASONS}
        self._logged_before = len(device_auth.logged())

    async def add(self, camera: str) -> Credentials:
        credentials = await self.devices.add("faba", camera)
        await self.devices.until_applied(30)
        return credentials

    def connect(self, credentials: Credentials, client_id: str = "", *, acknowledges: bool = True) -> RawMqtt:
        device = self.try_to_connect(credentials, client_id, acknowledges=acknowledges)
        assert device.connack == ACCEPTED
        return device

    def try_to_connect(self, credentials: Credentials, client_id: str = "", *, acknowledges: bool = True) -> RawMqtt:
        name = client_id or credentials.user.replace(".", "-")
        return RawMqtt(
            self.server.mqtt_port,
            credentials.user,
            credentials.password,
            client_id=name,
            acknowledges=acknowledges,
        )

    def dropped(self, reason: str) -> float:
        return self.device_auth.dropped(reason) - self._dropped_before[reason]

    def log(self) -> list[dict[str, Any]]:
        return self.device_auth.logged()[self._logged_before :]

    async def stored(self) -> list[str]:
        """Return the subjects in the stream that stores what devices publish, before they are consumed."""
        info = await self.bus.jetstream().stream_info("$MQTT_msgs", subjects_filter=">")
        return sorted(info.state.subjects or {})


@pytest_asyncio.fixture
async def fab(nats_server: NatsServer) -> AsyncIterator[Fab]:
    """A new server with a new device-auth."""
    await make_streams(nats_server.url)
    with DeviceAuthProcess(nats_server) as device_auth:
        bus = await nats.connect(nats_server.url)
        yield Fab(nats_server, device_auth, bus, await Devices.open(bus))
        await bus.close()


@pytest.fixture(scope="module")
def server_with_device_auth(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NatsServer, DeviceAuthProcess]]:
    with NatsServer(tmp_path_factory.mktemp("shared") / "nats") as server:
        asyncio.run(make_streams(server.url))
        with DeviceAuthProcess(server) as device_auth:
            yield server, device_auth


@pytest_asyncio.fixture
async def shared_fab(server_with_device_auth: tuple[NatsServer, DeviceAuthProcess]) -> AsyncIterator[Fab]:
    """A server and a device-auth shared with other tests, without devices and messages."""
    server, device_auth = server_with_device_auth
    bus = await nats.connect(server.url)
    await bus.jetstream().purge_stream("$MQTT_msgs")
    devices = await Devices.open(bus)
    yield Fab(server, device_auth, bus, devices)
    for device in await devices.all():
        await devices.revoke(device.fab, device.camera)
    await devices.until_applied(30)
    await bus.close()
