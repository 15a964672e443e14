"""Commands ask a bus that is reading its users anew."""

import asyncio

import pytest
from nats.errors import NoRespondersError

from fabwafer.commands.bus import PatientClient
from fabwafer_bridge.devices import Device, Devices
from fabwafer_bridge.system_account import ServerConnection
from fabwafer_bridge.users_file import users
from tests.support.nats_servers import DEVICE_AUTH_PASSWORD, NatsServer


async def test_requests_are_answered_although_the_server_reads_its_users_anew(nats_server: NatsServer) -> None:
    client = PatientClient()
    await client.connect(nats_server.url)
    devices = await Devices.make(client, replicas=1)
    address = f"nats://device-auth:{DEVICE_AUTH_PASSWORD}@127.0.0.1:{nats_server.client_port}"
    server = await ServerConnection.open(address, asyncio.Event())
    reading = True

    async def ask() -> None:
        while reading:
            await devices.revision()

    asking = [asyncio.create_task(ask()) for _ in range(3)]
    for number in range(40):  # without patience about one request fails in each
        known = [Device(fab="fab1", camera=f"c{one}", hash="$2b$04$" + "a" * 53, created=1) for one in range(number)]
        nats_server.users_file.write_text(users(known))
        await server.reload()
        await asyncio.sleep(0.02)
    reading = False
    await asyncio.gather(*asking)
    await server.close()
    await client.close()


async def test_a_request_that_nobody_ever_answers_fails(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fabwafer.commands.bus.PATIENCE", 0.2)
    client = PatientClient()
    await client.connect(nats_server.url)
    with pytest.raises(NoRespondersError):
        await client.request("nobody.listens", b"")
    await client.close()
