"""The gateway for tests, between a real Mosquitto with cameras and a bus with an intake."""

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import nats
import pytest

from fabwafer.maps.synthetic import sample
from fabwafer.maps.wafermap import encode
from fabwafer.messages.bodies import Image
from fabwafer_bridge import dead_letters, streams
from fabwafer_local.ports import free_ports
from tests.support.mosquitto import Mosquitto, Publisher
from tests.support.nats_servers import NatsServer
from tests.support.running import Bridge, _Process, answers, wait_until

FILE = encode(sample(0, 1)[0][1])
MAX_PAYLOAD = 8 * 1024 * 1024


class Gateway(_Process):
    """The gateway, with settings as an operator gives them."""

    def __init__(self, directory: Path, broker: Mosquitto, bus: NatsServer, **settings: str) -> None:
        directory.mkdir(parents=True)
        (port,) = free_ports(1)
        env = os.environ | {
            "FABWAFER_EXTERNAL_BROKER_URL": broker.url,
            "FABWAFER_NATS_URL": bus.url,
            "FABWAFER_METRICS_PORT": str(port),
            **settings,
        }
        super().__init__([sys.executable, "-m", "fabwafer.cli", "gateway"], env, directory / "gateway.log")
        self.url = f"http://127.0.0.1:{port}"

    def metric(self, result: str) -> float:
        """Return how many messages had this result."""
        return Bridge.metric(self, "fabwafer_messages_total", consumer="gateway", result=result)  # type: ignore[arg-type]

    def start(self) -> Self:
        """Start it, and wait until it carries messages."""
        self.spawn()
        wait_until(lambda: answers(f"{self.url}/readyz"), f"the gateway: {self.last_words()}")
        return self


@pytest.fixture
def bus(nats_server: NatsServer, tmp_path: Path) -> Iterator[NatsServer]:
    """The bus with the bridge's intake on it."""
    intake = Bridge(
        tmp_path / "bridge",
        nats_url=nats_server.url,
        inference_url="http://127.0.0.1:9",
        database_url="sqlite://",
        only="intake",
    )
    try:
        intake.start()
        yield nats_server
    finally:
        intake.stop()


@pytest.fixture
def gateway(mosquitto: Mosquitto, bus: NatsServer, tmp_path: Path) -> Iterator[Gateway]:
    """A gateway between the two."""
    running = Gateway(tmp_path / "gateway", mosquitto, bus)
    try:
        yield running.start()
    finally:
        running.stop()


@pytest.fixture
def camera(mosquitto: Mosquitto) -> Iterator[Publisher]:
    """A camera on the external broker."""
    publisher = Publisher(mosquitto)
    yield publisher
    publisher.close()


def image(imgid: str, **more: object) -> bytes:
    return Image.of_file(FILE, imgid=imgid, timestamp=1_700_000_000_000, fab="fab1", camera="cam1", **more).to_json()


def publish_images(camera: Publisher, first: int, count: int) -> None:
    for number in range(first, first + count):
        camera.publish(f"fabwafer/fab1/cam1/img/w{number}", image(f"w{number}"))


def in_stream(bus: NatsServer, stream: str = streams.IMAGES) -> dict[str, int]:
    """Return how many messages a stream holds, by the last part of their subject."""

    async def ask() -> dict[str, int]:
        client = await nats.connect(bus.url)
        try:
            state = (await client.jetstream().stream_info(stream, subjects_filter=">")).state
        finally:
            await client.close()
        return {subject.rpartition(".")[2]: count for subject, count in (state.subjects or {}).items()}

    return asyncio.run(ask())


def listed_dead_letters(bus: NatsServer) -> list[dead_letters.DeadLetter]:
    async def ask() -> list[dead_letters.DeadLetter]:
        client = await nats.connect(bus.url)
        try:
            return [letter async for letter in dead_letters.listed(client.jetstream())]
        finally:
            await client.close()

    return asyncio.run(ask())


def expected(count: int) -> dict[str, int]:
    return {f"w{number}": 1 for number in range(count)}
