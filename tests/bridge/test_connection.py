"""The connection to the bus: what is too large harms it never, and one that is closed for good ends the process."""

import asyncio
from pathlib import Path

import nats
import pytest

from fabwafer_bridge.connection import connect, until_closed
from fabwafer_bridge.publisher import NeverStoredError, Outgoing, Publisher
from fabwafer_bridge.roles import ROLES
from fabwafer_bridge.service import Bridge
from fabwafer_bridge.settings import BridgeSettings
from fabwafer_bridge.streams import StreamsRefusedError, make_streams
from tests.support.nats_servers import NatsServer
from tests.support.streams import make_streams as make_streams_at

MAX_PAYLOAD = 8 * 1024 * 1024


async def test_what_only_its_headers_make_too_large_is_never_stored_and_the_connection_stays(
    nats_server: NatsServer,
) -> None:
    await make_streams_at(nats_server.url)
    client = await connect(nats_server.url, name="test")
    publisher = Publisher(client)
    headers = {"Nats-Msg-Id": "1", "Fabwafer-Reason": "x" * 200}
    almost = Outgoing("fabwafer-dead.test", b" " * (MAX_PAYLOAD - 100), headers)
    fits = Outgoing("fabwafer-dead.test", b"fits", {"Nats-Msg-Id": "2"})
    refused, stored = await publisher.store([almost, fits])
    assert isinstance(refused, NeverStoredError)
    assert stored is None
    assert client.is_connected
    await client.close()


async def test_a_client_that_has_given_up_is_noticed(nats_server: NatsServer) -> None:
    client = await nats.connect(nats_server.url)
    await client.close()
    with pytest.raises(ConnectionError, match="given up"):
        await asyncio.wait_for(until_closed(client), 10)


@pytest.mark.parametrize("streams", [True, False])
async def test_a_bridge_whose_client_has_given_up_ends(
    nats_server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streams: bool
) -> None:
    if streams:
        await make_streams_at(nats_server.url)
    monkeypatch.setenv("FABWAFER_NATS_URL", nats_server.url)
    bridge = Bridge(BridgeSettings.read(), [role for role in ROLES if role == "intake"])
    running = asyncio.create_task(bridge.run(asyncio.Event()))
    async with asyncio.timeout(30):
        while bridge._client is None or (streams and bridge._unready is not None):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        await bridge._client.close()
        with pytest.raises((ConnectionError, nats.errors.ConnectionClosedError)):
            await running


async def test_streams_that_the_bus_has_no_room_for_are_refused_in_a_sentence(nats_server: NatsServer) -> None:
    client = await nats.connect(nats_server.url)
    with pytest.raises(StreamsRefusedError, match=r"expected \d+ MiB, the sum of their limits"):
        await asyncio.wait_for(
            make_streams(client.jetstream(), replicas=1, mqtt_max_bytes=1 << 50, max_bytes=1 << 30), 30
        )
    await client.close()
