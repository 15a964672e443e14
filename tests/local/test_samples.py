"""The sample camera gets credentials by itself, and others when those that it has are refused."""

import json
from pathlib import Path

import nats

from fabwafer.commands.system import CAMERA_FILE
from fabwafer_local.room import Room
from fabwafer_local.samples import SampleCamera, write_samples
from fabwafer_local.supervisor import Supervisor
from tests.support.device_auth import DeviceAuthProcess, describe_system
from tests.support.nats_servers import NatsServer
from tests.support.streams import make_streams


async def stored(server: NatsServer) -> int:
    client = await nats.connect(server.url)
    state = (await client.jetstream().stream_info("$MQTT_msgs")).state
    await client.close()
    return state.messages


async def test_a_camera_whose_password_was_changed_gets_another_and_sends(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    describe_system(tmp_path, nats_server)
    await make_streams(nats_server.url)
    lines: list[str] = []
    camera = SampleCamera(tmp_path, Supervisor(tmp_path, lines.append, Room(tmp_path, lines.append)), lines.append)
    images = write_samples(tmp_path / "samples", 3)
    with DeviceAuthProcess(nats_server):
        await camera.make()
        file = tmp_path / CAMERA_FILE
        assert file.stat().st_mode & 0o777 == 0o600
        await camera.send(images, 100)
        assert await stored(nats_server) == 3

        file.write_text(json.dumps(json.loads(file.read_text()) | {"password": "changed"}))
        await camera.send(images, 100)
        assert await stored(nats_server) == 6
    assert lines == []


async def test_what_cannot_be_sent_is_told(nats_server: NatsServer, tmp_path: Path) -> None:
    describe_system(tmp_path, nats_server)
    await make_streams(nats_server.url)
    lines: list[str] = []
    camera = SampleCamera(tmp_path, Supervisor(tmp_path, lines.append, Room(tmp_path, lines.append)), lines.append)
    with DeviceAuthProcess(nats_server):
        await camera.make()
        await camera.send([tmp_path / "missing.png"], 100)
    [line] = lines
    assert line.startswith("the samples could not be sent: ")
    assert "there is no such file" in line
