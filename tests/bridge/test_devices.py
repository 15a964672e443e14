"""The registry of devices and its commands, on a real server with a real device-auth."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pytest
import pytest_asyncio
from nats.aio.client import Client

from fabwafer_bridge.devices import DeviceError, Devices, DevicesUnavailableError
from tests.support.device_auth import DeviceAuthProcess, describe_system, fabwafer
from tests.support.nats_servers import NatsServer
from tests.support.raw_mqtt import RawMqtt
from tests.support.running import wait_until
from tests.support.streams import make_streams

ACCEPTED = 0
NOT_AUTHORIZED = 5


@pytest_asyncio.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[Client]:
    client = await nats.connect(nats_server.url)
    yield client
    await client.close()


async def test_an_added_device_is_listed_and_its_password_is_stored_nowhere(
    nats_server: NatsServer, bus: Client
) -> None:
    devices = await Devices.make(bus, replicas=1)
    credentials = await devices.add("faba", "camera1")
    assert credentials.user == "faba.camera1"
    assert len(bytes.fromhex(credentials.password)) * 8 == 128
    (device,) = await devices.all()
    assert (device.user, device.fab, device.camera) == ("faba.camera1", "faba", "camera1")
    assert device.hash.startswith("$2b$04$")
    for file in nats_server.directory.rglob("*"):
        assert not file.is_file() or credentials.password.encode() not in file.read_bytes()


async def test_adding_a_device_that_exists_is_refused_and_changes_nothing(bus: Client) -> None:
    devices = await Devices.make(bus, replicas=1)
    await devices.add("faba", "camera1")
    before = await devices.all()
    with pytest.raises(DeviceError, match=r"faba\.camera1 exists.*rotate"):
        await devices.add("faba", "camera1")
    assert await devices.all() == before


async def test_of_many_who_add_the_same_device_at_once_one_succeeds(bus: Client) -> None:
    devices = await Devices.make(bus, replicas=1)
    results = await asyncio.gather(*(devices.add("faba", "camera1") for _ in range(20)), return_exceptions=True)
    assert sum(not isinstance(result, BaseException) for result in results) == 1
    assert all(isinstance(result, DeviceError) for result in results if isinstance(result, BaseException))


async def test_of_many_who_rotate_at_once_each_fails_or_knows_a_password_that_was_stored(bus: Client) -> None:
    devices = await Devices.make(bus, replicas=1)
    await devices.add("faba", "camera1")
    start = await devices.revision()
    results = await asyncio.gather(*(devices.rotate("faba", "camera1") for _ in range(10)), return_exceptions=True)
    succeeded = sum(not isinstance(result, BaseException) for result in results)
    assert succeeded >= 1
    assert await devices.revision() - start == succeeded


async def test_rotating_keeps_the_day_it_was_created_and_changes_the_hash(bus: Client) -> None:
    devices = await Devices.make(bus, replicas=1)
    first = await devices.add("faba", "camera1")
    (before,) = await devices.all()
    second = await devices.rotate("faba", "camera1")
    (after,) = await devices.all()
    assert first.password != second.password
    assert before.hash != after.hash
    assert before.created == after.created


async def test_a_revoked_device_can_be_added_again(bus: Client) -> None:
    devices = await Devices.make(bus, replicas=1)
    await devices.add("faba", "camera1")
    await devices.revoke("faba", "camera1")
    assert await devices.all() == []
    await devices.add("faba", "camera1")
    assert [device.user for device in await devices.all()] == ["faba.camera1"]


async def test_changing_a_device_that_is_not_there_is_refused(bus: Client) -> None:
    devices = await Devices.make(bus, replicas=1)
    with pytest.raises(DeviceError, match="no device faba"):
        await devices.revoke("faba", "camera1")
    with pytest.raises(DeviceError, match="no device faba"):
        await devices.rotate("faba", "camera1")


@pytest.mark.parametrize("name", ["", "a.b", "a b", "*", ">", "a/b", "a#", "ä", "x" * 65, 'a"b', "a\nb"])
async def test_a_name_that_means_something_on_the_bus_is_refused(bus: Client, name: str) -> None:
    devices = await Devices.make(bus, replicas=1)
    with pytest.raises(DeviceError, match="fab: expected 1 to 64"):
        await devices.add(name, "camera1")
    with pytest.raises(DeviceError, match="camera: expected 1 to 64"):
        await devices.add("faba", name)


async def test_the_fab_of_the_smoke_test_is_refused_to_everybody_else(bus: Client) -> None:
    devices = await Devices.make(bus, replicas=1)
    with pytest.raises(DeviceError, match="no fab can be called helm-test"):
        await devices.add("helm-test", "camera1")
    assert (await devices.add_for_smoke_test("camera1")).user == "helm-test.camera1"


async def test_an_entry_that_is_no_device_hides_no_other(bus: Client) -> None:
    devices = await Devices.make(bus, replicas=1)
    await devices.add("faba", "camera1")
    bucket = await bus.jetstream().key_value("devices")
    (device,) = await devices.all()
    await bucket.put("broken.json", b"{")
    await bucket.put("other.name", device.model_dump_json().encode())
    await bucket.put("a.b", b'{"fab": "a", "camera": "b", "hash": "\\"}]", "created": 1}')
    assert [each.user for each in await devices.all()] == ["faba.camera1"]


async def test_more_devices_than_fit_one_delivery_are_all_listed(bus: Client) -> None:
    devices = await Devices.make(bus, replicas=1)
    await asyncio.gather(*(devices.add("faba", f"camera{number}") for number in range(600)))
    assert len(await devices.all()) == 600


async def test_no_listing_misses_a_device_while_others_are_added(nats_server: NatsServer, bus: Client) -> None:
    devices = await Devices.make(bus, replicas=1)
    await devices.add("faba", "oldest")
    other = await nats.connect(nats_server.url)
    reading = await Devices.open(other)
    adding = asyncio.create_task(_add_slowly(devices, 100))
    while not adding.done():
        assert "faba.oldest" in [device.user for device in await reading.all()]
    await adding
    await other.close()


async def _add_slowly(devices: Devices, count: int) -> None:
    for number in range(count):
        await devices.add("faba", f"camera{number}")
        await asyncio.sleep(0.01)


async def test_opening_a_registry_that_nobody_made_says_so(bus: Client) -> None:
    with pytest.raises(DevicesUnavailableError, match="device-auth"):
        await Devices.open(bus)


async def test_the_commands_give_credentials_that_work_when_they_return(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    describe_system(data, nats_server)
    await make_streams(nats_server.url)
    port = nats_server.mqtt_port
    with DeviceAuthProcess(nats_server):
        added = fabwafer("device", "add", "faba", "camera1", "--json", data=data)
        assert added.returncode == 0, added.stderr
        first = json.loads(added.stdout)
        assert set(first) == {"user", "password"}
        connected = RawMqtt(port, first["user"], first["password"], client_id="first")
        assert connected.connack == ACCEPTED
        assert connected.publish("fabwafer/faba/camera1/img/a")

        again = fabwafer("device", "add", "faba", "camera1", data=data)
        assert again.returncode == 1
        assert again.stderr.strip() == (
            "device faba.camera1 exists: give it a new password with rotate, or revoke it first"
        )

        rotated = fabwafer("device", "rotate", "faba", "camera1", "--json", data=data)
        assert rotated.returncode == 0, rotated.stderr
        second = json.loads(rotated.stdout)
        assert not connected.alive()
        assert RawMqtt(port, first["user"], first["password"]).connack == NOT_AUTHORIZED
        connected = RawMqtt(port, second["user"], second["password"], client_id="second")
        assert connected.connack == ACCEPTED

        listed = fabwafer("device", "list", "--json", data=data)
        (line,) = listed.stdout.splitlines()
        device = json.loads(line)
        assert {key: device[key] for key in ("user", "fab", "camera")} == {
            "user": "faba.camera1",
            "fab": "faba",
            "camera": "camera1",
        }
        assert second["password"] not in listed.stdout
        assert "faba.camera1" in fabwafer("device", "list", data=data).stdout

        revoked = fabwafer("device", "revoke", "faba", "camera1", data=data)
        assert revoked.returncode == 0, revoked.stderr
        assert not connected.alive()
        assert RawMqtt(port, second["user"], second["password"]).connack == NOT_AUTHORIZED
        assert fabwafer("device", "list", "--json", data=data).stdout == ""

        shown = fabwafer("device", "add", "faba", "camera1", data=data)
        assert "shown only now" in shown.stdout
        assert f"mosquitto_pub -h 127.0.0.1 -p {port} -u faba.camera1 -P " in shown.stdout

        refused = fabwafer("device", "add", "fab a", "camera1", data=data)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "expected 1 to 64 letters" in refused.stderr
        assert "Traceback" not in refused.stderr


def test_adding_a_device_waits_for_a_system_that_is_just_starting(nats_server: NatsServer, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    command = ["device", "add", "faba", "camera1", "--json", "--data", str(data)]
    adding = subprocess.Popen(
        [sys.executable, "-m", "fabwafer.cli", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert adding.stderr is not None
    device_auth = DeviceAuthProcess(nats_server)
    try:
        assert "waiting for it" in adding.stderr.readline()
        device_auth.start(ready=False)
        describe_system(data, nats_server)
        wait_until(
            lambda: any("no device is let in" in line["event"] for line in device_auth.logged()),
            "device-auth waits",
        )
        assert adding.poll() is None
        asyncio.run(make_streams(nats_server.url))
        out, err = adding.communicate(timeout=60)
    finally:
        adding.kill()
        adding.wait()
        device_auth.stop()
    assert adding.returncode == 0, err
    credentials = json.loads(out)
    assert RawMqtt(nats_server.mqtt_port, credentials["user"], credentials["password"]).connack == ACCEPTED


def test_where_no_system_starts_in_time_a_command_says_how_to_start_one(tmp_path: Path) -> None:
    code = (
        "import sys, fabwafer.cli as cli, fabwafer_bridge.commands.device as device\n"
        "device.WAIT_SECONDS = 0.5\n"
        f"sys.argv = ['fabwafer', 'device', 'list', '--data', {str(tmp_path / 'none')!r}]\n"
        "cli.main()"
    )
    refused = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "start one with `fabwafer up" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert refused.stdout == ""
