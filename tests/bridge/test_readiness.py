"""The bridge is ready while the champion answers, with the tokens of whatever model server runs."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from fabwafer.maps.synthetic import sample
from fabwafer.maps.wafermap import encode
from fabwafer.messages.bodies import Image
from fabwafer.records import Records, migrate
from fabwafer_bridge.champion import SILENT
from fabwafer_handlers.management import Management
from tests.support.devices import Device
from tests.support.model_servers import TorchServe
from tests.support.nats_servers import NatsServer, add_device
from tests.support.running import Bridge, unready, wait_until

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def server(tiny_model: Path, tmp_path: Path) -> Iterator[TorchServe]:
    """A model server that asks for tokens, for one test to harm."""
    server = TorchServe(tmp_path / "torchserve", tiny_model)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'records.db'}"
    migrate(url)
    return url


@pytest.fixture
def bridge(tmp_path: Path, nats_server: NatsServer, server: TorchServe, database_url: str) -> Iterator[Bridge]:
    """A bridge that knows the server's key file."""
    bridge = Bridge(
        tmp_path,
        nats_url=nats_server.url,
        inference_url=server.url,
        inference_key_file=server.key_file,
        database_url=database_url,
    )
    try:
        yield bridge.start()
    finally:
        bridge.stop()


def test_a_bridge_whose_model_was_removed_is_unready_until_it_is_back(bridge: Bridge, server: TorchServe) -> None:
    management = Management(server.management, server.key_file)
    wait_until(lambda: unready(bridge.url) is None, bridge.last_words)
    asyncio.run(management.drop("tiny-1"))
    wait_until(lambda: unready(bridge.url) is not None, "the bridge takes itself for ready")
    reason = unready(bridge.url) or ""
    assert reason.startswith(SILENT)
    assert "Model not found: wafer" in reason
    (archive,) = server.directory.rglob("*.mar")
    asyncio.run(management.load(archive.name))
    wait_until(lambda: unready(bridge.url) is None, bridge.last_words)


def test_after_a_restart_of_the_model_server_images_are_predicted_with_its_new_token(
    bridge: Bridge, server: TorchServe, nats_server: NatsServer, database_url: str
) -> None:
    def predicted() -> int:
        with Records(database_url) as records:
            return sum(bool(wafer.predictions) for wafer in records.wafers())

    images = [
        Image.of_file(encode(grid), imgid=f"w{number}", timestamp=1, fab="faba", camera="camera1")
        for number, (_, grid) in enumerate(sample(2, 2))
    ]
    with Device(nats_server.mqtt_url, *add_device(nats_server, "faba", "camera1")) as device:
        device.publish(images[0].topic("img").topic, images[0].to_json())
        wait_until(lambda: predicted() == 1, bridge.last_words)
        assert server.key_file is not None
        before = server.key_file.read_text()
        server.kill()
        wait_until(lambda: unready(bridge.url) is not None, "the bridge takes itself for ready")
        device.publish(images[1].topic("img").topic, images[1].to_json())
        server.start()
        assert server.key_file.read_text() != before
        wait_until(lambda: predicted() == 2, bridge.last_words)
        wait_until(lambda: unready(bridge.url) is None, bridge.last_words)
    assert bridge.metric("fabwafer_dead_letters_total") == 0


def test_a_bridge_that_asks_no_model_needs_none_to_be_ready(
    tmp_path: Path, nats_server: NatsServer, database_url: str
) -> None:
    bridge = Bridge(tmp_path, nats_url=nats_server.url, inference_url=NOWHERE, database_url=database_url, only="intake")
    try:
        bridge.start()
        assert unready(bridge.url) is None
    finally:
        bridge.stop()
