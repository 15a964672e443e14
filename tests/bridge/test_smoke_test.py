"""The smoke test: one wafer map through the running system, and nothing left of it."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from typer.testing import CliRunner

from fabwafer.messages.bodies import Image
from fabwafer.messages.topics import SMOKE_TEST_FAB, Topic
from fabwafer.records import Filter, Records, migrate
from fabwafer_bridge import streams
from fabwafer_bridge.commands.smoke_test import app
from fabwafer_bridge.devices import Devices
from fabwafer_bridge.smoke_test import SmokeTestError, drawn_wafer_map
from tests.support.device_auth import DeviceAuthProcess, describe_system
from tests.support.devices import Device
from tests.support.nats_servers import NatsServer
from tests.support.proxy import Proxy
from tests.support.records import predicted, shot
from tests.support.running import Bridge, ModelServer, wait_until

STEPS = (
    "add the device helm-test/camera-",
    "connect to mqtt://127.0.0.1:",
    "publish a wafer map, and receive its PUBACK: ",
    "receive its prediction by MQTT: ",
    "find its record: ",
    "remove the device and its records: ",
)
COMMAND = "from fabwafer_bridge.commands.smoke_test import app; app()"


@dataclass
class System:
    """A running system whose model server can be made to fail."""

    data: Path
    server: NatsServer
    device_auth: DeviceAuthProcess
    bridge: Bridge
    proxy: Proxy

    @property
    def database_url(self) -> str:
        return f"sqlite:///{self.data / 'records.db'}"

    def recorded(self, fab: str = SMOKE_TEST_FAB) -> list[str]:
        """The cameras of a fab that the records know."""
        with Records(self.database_url) as records:
            return [row.camera for row in records.rows(Filter(fab=fab))]

    def left(self) -> dict[str, object]:
        """Whatever is left of smoke tests."""
        return asyncio.run(self._left()) | {
            "records": self.recorded(),
            "series": [one for one in self.bridge.samples() if one.labels.get("fab") == SMOKE_TEST_FAB],
        }

    async def _left(self) -> dict[str, object]:
        client = await nats.connect(self.server.url)
        try:
            devices = [one.camera for one in await (await Devices.open(client)).all() if one.fab == SMOKE_TEST_FAB]
            return {"devices": devices, "messages": await _messages(client)}
        finally:
            await client.close()


async def _messages(client: Client) -> list[str]:
    found: list[str] = []
    for stream in (streams.MQTT, streams.IMAGES, streams.PREDICTIONS, streams.SHADOW_IMAGES):
        info = await client.jetstream().stream_info(stream, subjects_filter=">")
        found += [subject for subject in info.state.subjects or {} if SMOKE_TEST_FAB in subject]
    return found


NOTHING: dict[str, object] = {"devices": [], "messages": [], "records": [], "series": []}


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, model_server: ModelServer) -> Iterator[System]:
    data = tmp_path_factory.mktemp("smoke")
    database_url = f"sqlite:///{data / 'records.db'}"
    migrate(database_url)
    proxy = Proxy(model_server.url)
    proxy.start()
    with NatsServer(data / "nats") as server:
        bridge = Bridge(data, nats_url=server.url, inference_url=proxy.url, database_url=database_url)
        try:
            bridge.start()
            with DeviceAuthProcess(server) as device_auth:
                describe_system(data, server)
                yield System(data, server, device_auth, bridge, proxy)
        finally:
            bridge.stop()
            proxy.stop()


def smoke_test(system: System, *arguments: str) -> tuple[BaseException | None, str]:
    """Run the command; return what it ended with, and what it printed."""
    result = CliRunner().invoke(app, ["--data", str(system.data), *arguments])
    return result.exception, result.output


def test_a_wafer_map_goes_all_the_way_and_nothing_is_left_of_it(system: System) -> None:
    error, output = smoke_test(system)
    assert error is None, output
    lines = [line for line in output.splitlines() if not line.startswith(" ")]
    assert [line.startswith(step) for line, step in zip(lines, STEPS, strict=False)] == [True] * len(STEPS), output
    assert all(line.endswith(" s") for line in lines[:-1])
    assert lines[-1] == "The smoke test has passed."
    assert "Edge-Ring" in output
    assert system.left() == NOTHING
    with Records(system.database_url) as records:
        assert records.pending_alerts() == []


def test_a_prediction_that_does_not_come_fails_its_step_and_is_not_recorded_later(system: System) -> None:
    def stored() -> float:
        return system.bridge.metric("fabwafer_messages_total", consumer="record-predictions", result="passed")

    before = stored()
    system.proxy.down = True
    try:
        error, output = smoke_test(system, "--timeout", "3")
    finally:
        system.proxy.down = False
    assert isinstance(error, SmokeTestError)
    assert "step failed: receive its prediction by MQTT: not done within the 3 s of --timeout" in str(error)
    assert "the model server" in str(error)
    assert output.splitlines()[-1].startswith("remove the device and its records: ")
    credentials = asyncio.run(_add(system.server, "faba", "after"))
    image = Image.of_file(drawn_wafer_map(), imgid="1", timestamp=1, fab="faba", camera="after")
    with Device(system.server.mqtt_url, *credentials) as device:
        assert device.publish(Topic("faba", "after", "img", "1").topic, image.to_json())
    # classify holds the image of the smoke test, and is answered now.
    wait_until(lambda: stored() == before + 2, system.bridge.last_words)
    assert system.recorded("faba") == ["after"]
    assert system.left() == NOTHING


async def _add(server: NatsServer, fab: str, camera: str) -> tuple[str, str]:
    client = await nats.connect(server.url)
    devices = await Devices.open(client)
    credentials = await devices.add(fab, camera)
    await devices.until_applied(30)
    await client.close()
    return credentials.user, credentials.password


def test_one_that_is_stopped_half_way_leaves_nothing(system: System) -> None:
    system.proxy.down = True
    try:
        process = subprocess.Popen(
            [sys.executable, "-u", "-c", COMMAND, "--data", str(system.data)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        while "PUBACK" not in (line := process.stdout.readline()):
            assert line, process.communicate()[1]
        process.send_signal(signal.SIGTERM)
        output, error = process.communicate(timeout=60)
    finally:
        system.proxy.down = False
    assert process.returncode == 1
    assert "stopped by a signal" in error
    assert "remove the device and its records: " in output
    assert system.left() == NOTHING


def test_what_killed_tests_left_is_removed_and_a_test_at_work_is_not_disturbed(system: System) -> None:
    async def leave() -> None:
        client = await nats.connect(system.server.url)
        devices = await Devices.open(client)
        bucket = await client.jetstream().key_value("devices")
        await devices.add_for_smoke_test("camera-at-work")
        await devices.add_for_smoke_test("camera-old")
        entry = await bucket.get("helm-test.camera-old")
        old = next(one for one in await devices.all() if one.camera == "camera-old").model_copy(update={"created": 0})
        await bucket.update("helm-test.camera-old", old.model_dump_json().encode(), last=entry.revision)
        await client.close()

    async def end() -> None:
        client = await nats.connect(system.server.url)
        await (await Devices.open(client)).revoke("helm-test", "camera-at-work")
        await client.close()

    asyncio.run(leave())
    cameras = ("camera-at-work", "camera-old", "camera-revoked")
    with Records(system.database_url) as records:
        for camera in cameras:
            records.store_shots([shot(fab=SMOKE_TEST_FAB, camera=camera)])
            records.store_predictions([predicted(fab=SMOKE_TEST_FAB, camera=camera)])
    error, output = smoke_test(system)
    assert error is None, output
    left = system.left()
    assert (left["devices"], left["records"]) == (["camera-at-work"], ["camera-at-work"])
    asyncio.run(end())
    assert smoke_test(system)[0] is None
    assert system.left() == NOTHING


def test_a_listener_that_nobody_answers_at_fails_the_step_that_connects(system: System) -> None:
    described = (system.data / "system.json").read_text()
    (system.data / "system.json").write_text(described.replace(system.server.mqtt_url, "mqtt://127.0.0.1:9"))
    try:
        error, _ = smoke_test(system, "--timeout", "5")
    finally:
        (system.data / "system.json").write_text(described)
    assert isinstance(error, SmokeTestError)
    assert "step failed: connect to mqtt://127.0.0.1:9 as the device: " in str(error)
    assert "fabwafer_mqtt_dropped_total" in str(error)
    assert system.left() == NOTHING
