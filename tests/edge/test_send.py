"""`fabwafer send` on a real server; the tests answer the images themselves."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import nats
import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.aio.msg import Msg

from fabwafer.maps.synthetic import sample
from fabwafer.maps.wafermap import encode
from tests.support.device_auth import DeviceAuthProcess, describe_system, fabwafer
from tests.support.nats_servers import NatsServer, add_device
from tests.support.streams import make_streams

Shot = dict[str, Any]


@dataclass
class Bus:
    """A server with one device, faba.camera1; `answers` makes of each image what is said of it."""

    server: NatsServer
    client: Client
    user: str
    password: str
    answers: Callable[[Shot], list[Shot]] = lambda shot: [said(shot, "Center")]
    arrived: "asyncio.Queue[str]" = field(default_factory=asyncio.Queue)

    async def take(self, message: Msg) -> None:
        shot = json.loads(message.data)
        self.arrived.put_nowait(shot["imgid"])
        for answer in self.answers(shot):
            await self.client.publish(message.subject.replace(".img.", ".prediction."), json.dumps(answer).encode())

    async def send(self, *arguments: str | Path, user: str | None = None, password: str | None = None) -> "Sent":
        """Runs `fabwafer send --json` with these in the environment."""
        known = {"FABWAFER_DEVICE_USER": user, "FABWAFER_DEVICE_PASSWORD": password}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "fabwafer.cli", "send", "--json", *map(str, arguments)),
            env=os.environ
            | {"FABWAFER_MQTT_URL": self.server.mqtt_url}
            | {name: value for name, value in known.items() if value is not None},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(), timeout=60)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return Sent(process.returncode, [json.loads(line) for line in out.splitlines()], err.decode())

    async def send_signed_in(self, *arguments: str | Path) -> "Sent":
        return await self.send(*arguments, user=self.user, password=self.password)

    async def refuses(self, sent: "Sent", *words: str) -> None:
        """Checks for one sentence with these words, and that nothing reached the bus before what is sent next."""
        assert (sent.code, sent.lines) == (1, [])
        assert len(sent.error.strip().splitlines()) == 1, sent.error
        for word in (*words, "nothing was sent"):
            assert word in sent.error
        await self.client.publish("fabwafer.faba.camera1.img.next", b'{"imgid": "next", "timestamp": 1}')
        assert await asyncio.wait_for(self.arrived.get(), timeout=30) == "next"


@dataclass
class Sent:
    code: int | None
    lines: list[Shot]
    error: str


def said(shot: Shot, prediction: str, *, earlier: int = 0) -> Shot:
    return {
        "imgid": shot["imgid"],
        "timestamp": shot["timestamp"] - earlier,
        "fab": "faba",
        "camera": "camera1",
        "prediction": prediction,
        "probability": 0.75,
        "source": "cluster",
    }


@pytest_asyncio.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[Bus]:
    client = await nats.connect(nats_server.url)
    bus = Bus(nats_server, client, *add_device(nats_server, "faba", "camera1"))
    await client.subscribe("fabwafer.*.*.img.*", cb=bus.take)
    await client.flush()
    yield bus
    await client.close()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return draw(tmp_path / "wafer.png")


def draw(file: Path) -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(encode(sample(seed=5, n=1)[0][1], scale=3))
    return file


async def test_what_is_known_of_the_wafers_travels_with_each_image(bus: Bus, image: Path) -> None:
    shots: list[Shot] = []

    def collect(shot: Shot) -> list[Shot]:
        shots.append(shot)
        return []

    bus.answers = collect
    given = {"lot": "L7", "slot": "12", "product": "P1", "tool": "ETCH-3", "step": "M1", "notch": "down"}
    options = [word for name, value in given.items() for word in (f"--{name}", value)]
    sent = await bus.send_signed_in(image, draw(image.with_name("second.png")), *options, "--wait", "0")
    assert sent.code == 0, sent.error
    for _ in range(2):
        await asyncio.wait_for(bus.arrived.get(), timeout=30)
    assert [{name: shot[name] for name in given} for shot in shots] == [given, given]


async def test_a_lot_too_long_for_a_message_is_refused_before_anything_is_sent(bus: Bus, image: Path) -> None:
    sent = await bus.send_signed_in(image, "--lot", "L" * 257)
    await bus.refuses(sent, "--lot: expected at most 256 characters, got 257")


async def test_fab_and_camera_come_from_the_user_in_the_environment(bus: Bus, image: Path) -> None:
    sent = await bus.send_signed_in(image)
    assert (sent.code, sent.error, bus.arrived.get_nowait()) == (0, "", "wafer")
    (line,) = sent.lines
    assert (line["image"], line["stored"], line["prediction"]) == (str(image), True, "Center")


async def test_a_late_answer_to_an_earlier_image_of_the_name_is_not_shown(bus: Bus, image: Path) -> None:
    bus.answers = lambda shot: [said(shot, "Donut", earlier=60_000), said(shot, "Center")]
    sent = await bus.send_signed_in(image, "--wait", "60")
    assert [line["prediction"] for line in sent.lines] == ["Center"]


async def test_an_image_that_got_no_answer_in_time_shows_when_it_was_taken(bus: Bus, image: Path) -> None:
    bus.answers = lambda shot: [said(shot, "Donut", earlier=60_000)]
    sent = await bus.send_signed_in(image, "--wait", "0.5")
    assert sent.code == 0, sent.error
    (line,) = sent.lines
    assert (line["imgid"], line["stored"], line["prediction"]) == ("wafer", True, None)
    assert isinstance(line["timestamp"], int)


@pytest.mark.parametrize(
    "names",
    [
        ("one/wafer.png", "two/wafer.png"),
        ("wafer.png", "wafer.jpg"),
        ("wafer 1.png", "wafer+1.png"),
        ("w" * 64 + "1.png", "w" * 64 + "2.png"),
    ],
)
async def test_files_that_would_be_one_image_are_refused_by_name(
    bus: Bus, tmp_path: Path, names: tuple[str, str]
) -> None:
    files = [draw(tmp_path / name) for name in names]
    await bus.refuses(await bus.send_signed_in(*files), *map(str, files), "rename")


@pytest.mark.parametrize(
    ("options", "got"),
    [
        (("--fab", "fabb"), "--fab fabb --camera camera1"),
        (("--camera", "camera2"), "--fab faba --camera camera2"),
    ],
)
async def test_a_user_cannot_send_as_another_camera(bus: Bus, image: Path, options: tuple[str, str], got: str) -> None:
    sent = await bus.send_signed_in(image, *options)
    await bus.refuses(sent, "'faba.camera1'", "--fab faba --camera camera1", f"got {got}")


@pytest.mark.parametrize("user", ["camera1", "faba.", ".camera1", "a.b.c"])
async def test_a_user_that_names_no_camera_is_refused(bus: Bus, image: Path, user: str) -> None:
    await bus.refuses(await bus.send(image, "--user", user, "--password", "x"), "FAB.CAMERA", repr(user))


async def test_half_of_the_credentials_is_refused_wherever_it_comes_from(bus: Bus, image: Path) -> None:
    for sent in (await bus.send(image, "--user", bus.user), await bus.send(image, user=bus.user)):
        assert "got only a user" in sent.error
    for sent in (await bus.send(image, "--password", bus.password), await bus.send(image, password=bus.password)):
        assert "got only a password" in sent.error
        assert bus.password not in sent.error
    await bus.refuses(sent, "--user", "FABWAFER_DEVICE_USER", "--password", "FABWAFER_DEVICE_PASSWORD")


async def test_one_half_from_the_environment_and_one_from_the_command_line_are_whole(bus: Bus, image: Path) -> None:
    sent = await bus.send(image, "--user", bus.user, password=bus.password)
    assert [line["prediction"] for line in sent.lines] == ["Center"]


async def test_what_is_no_file_is_refused_before_the_others_are_sent(bus: Bus, image: Path, tmp_path: Path) -> None:
    directory = tmp_path / "images"
    directory.mkdir()
    missing = tmp_path / "missing.png"
    sent = await bus.send_signed_in(image, directory)
    assert sent.error.strip() == f"{directory}: expected a PNG or JPEG file, this is a directory; nothing was sent"
    sent = await bus.send_signed_in(image, missing)
    await bus.refuses(sent, f"{missing}: expected a PNG or JPEG file, there is no such file")


async def test_a_device_that_is_revoked_cannot_send(nats_server: NatsServer, image: Path, tmp_path: Path) -> None:
    describe_system(tmp_path, nats_server)
    await make_streams(nats_server.url)
    with DeviceAuthProcess(nats_server):
        given = json.loads(fabwafer("device", "add", "faba", "camera1", "--json", data=tmp_path).stdout)
        sign_in = ("--user", given["user"], "--password", given["password"], "--wait", "0")
        assert fabwafer("send", image, *sign_in, data=tmp_path).returncode == 0
        revoked = fabwafer("device", "revoke", "faba", "camera1", "--json", data=tmp_path)
        assert (revoked.returncode, revoked.stderr, json.loads(revoked.stdout)) == (0, "", {"user": "faba.camera1"})
        sent = fabwafer("send", image, *sign_in, data=tmp_path)
    assert (sent.returncode, sent.stdout) == (3, "")
    assert "'faba.camera1': wrong password, or revoked" in sent.stderr


async def test_who_reads_only_the_first_line_gets_no_traceback(bus: Bus, tmp_path: Path) -> None:
    files = [draw(tmp_path / f"wafer{number}.png") for number in range(40)]
    shell = await asyncio.create_subprocess_shell(
        '"$PYTHON" -m fabwafer.cli send --rate 20 "$@" | head -n 1'.replace('"$@"', " ".join(map(str, files))),
        env=os.environ
        | {
            "PYTHON": sys.executable,
            "FABWAFER_MQTT_URL": bus.server.mqtt_url,
            "FABWAFER_DEVICE_USER": bus.user,
            "FABWAFER_DEVICE_PASSWORD": bus.password,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(shell.communicate(), timeout=60)
    assert (out.decode(), err.decode()) == (f"{files[0]}: Center 75%\n", "")


def mqtt_client_ids(server: NatsServer) -> set[str]:
    """The client ids of all MQTT connections that a server has had."""
    with urlopen(f"http://127.0.0.1:{server.monitor_port}/connz?state=all", timeout=5) as answer:
        return {one["mqtt_client"] for one in json.load(answer)["connections"] if "mqtt_client" in one}


async def test_the_client_id_is_the_user_with_an_underscore_for_the_dot_or_the_one_given(bus: Bus, image: Path) -> None:
    assert (await bus.send_signed_in(image)).code == 0
    assert mqtt_client_ids(bus.server) == {"faba_camera1"}
    assert (await bus.send_signed_in(image, "--client-id", "second")).code == 0
    assert mqtt_client_ids(bus.server) == {"faba_camera1", "second"}


async def test_a_client_id_that_the_listener_refuses_is_named_before_anything_is_sent(bus: Bus, image: Path) -> None:
    for wrong in ("a.b", "a b", "", "x" * 201):
        await bus.refuses(await bus.send_signed_in(image, "--client-id", wrong), "--client-id", repr(wrong))


async def test_two_senders_with_one_client_id_both_end_with_all_images_stored(bus: Bus, tmp_path: Path) -> None:
    bus.answers = lambda _: []
    images = [[draw(tmp_path / name / f"{name}{number}.png") for number in range(10)] for name in "ab"]
    both = await asyncio.gather(*(bus.send_signed_in("--wait", "1", "--rate", "10", *several) for several in images))
    assert [sent.code for sent in both] == [0, 0]
    assert all(line["stored"] for sent in both for line in sent.lines)
    arrived = {bus.arrived.get_nowait() for _ in range(bus.arrived.qsize())}
    assert arrived == {file.stem for several in images for file in several}
