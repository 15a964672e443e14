"""The streams have one owner, `fabwafer streams`; everybody else waits for them."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import nats
import pytest

from fabwafer.records import migrate
from fabwafer_bridge import streams
from fabwafer_bridge.settings import BridgeSettings, StreamSettings
from tests.support.nats_servers import NatsCluster, NatsServer
from tests.support.running import Bridge, unready, wait_until

README = Path(__file__).parents[2] / "bridge" / "README.md"


def make(nats_url: str, **settings: object) -> subprocess.CompletedProcess[str]:
    """Runs `fabwafer streams` with settings as an operator gives them."""
    env = {f"FABWAFER_{name.upper()}": str(value) for name, value in settings.items()}
    return subprocess.run(
        [sys.executable, "-m", "fabwafer.cli", "streams"],
        env=os.environ | {"FABWAFER_NATS_URL": nats_url, **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


async def limits(nats_url: str) -> dict[str | None, tuple[int | None, int | None]]:
    """The largest size and the copies of each stream."""
    client = await nats.connect(nats_url)
    try:
        infos = await client.jetstream().streams_info()
    finally:
        await client.close()
    return {info.config.name: (info.config.max_bytes, info.config.num_replicas) for info in infos}


def test_the_streams_are_made_once_and_updated_by_what_is_set(nats_server: NatsServer) -> None:
    assert make(nats_server.url, mqtt_max_bytes=1 << 22).returncode == 0
    made = asyncio.run(limits(nats_server.url))
    assert set(made) >= {durable.stream for durable in streams.DURABLES.values()}
    assert made[streams.MQTT] == (1 << 22, 1)
    assert make(nats_server.url, mqtt_max_bytes=1 << 23, stream_max_bytes=1 << 24).returncode == 0
    updated = asyncio.run(limits(nats_server.url))
    assert (updated[streams.MQTT], updated[streams.IMAGES]) == ((1 << 23, 1), (1 << 24, 1))
    assert make(nats_server.url, mqtt_max_bytes=1 << 23, stream_max_bytes=1 << 24).returncode == 0
    assert asyncio.run(limits(nats_server.url)) == updated


def test_a_cluster_that_has_just_started_is_waited_for(nats_cluster: NatsCluster) -> None:
    for server in nats_cluster.servers:
        server.kill()
    for server in nats_cluster.servers:
        server.start(wait=False)
    done = make(",".join(nats_cluster.urls), replicas=3)
    assert done.returncode == 0, done.stderr
    made = asyncio.run(limits(nats_cluster.urls[0]))
    assert {made[durable.stream][1] for durable in streams.DURABLES.values()} == {3}


def test_a_bridge_waits_for_the_streams_and_makes_none(tmp_path: Path, nats_server: NatsServer) -> None:
    url = f"sqlite:///{tmp_path / 'records.db'}"
    migrate(url)
    bridge = Bridge(tmp_path, nats_url=nats_server.url, inference_url="http://127.0.0.1:9", database_url=url)
    try:
        bridge.spawn()
        wait_until(lambda: "waiting for `fabwafer streams`" in bridge.last_words(), bridge.last_words)
        time.sleep(0.5)
        assert unready(bridge.url) == "starting"
        assert asyncio.run(limits(nats_server.url)) == {}
        assert make(nats_server.url).returncode == 0
        bridge.wait_ready()
    finally:
        bridge.stop()


def test_a_bridge_that_is_told_to_stop_while_it_waits_ends_in_order(tmp_path: Path, nats_server: NatsServer) -> None:
    bridge = Bridge(tmp_path, nats_url=nats_server.url, inference_url="http://127.0.0.1:9", database_url="sqlite://")
    bridge.spawn()
    try:
        wait_until(lambda: "waiting for `fabwafer streams`" in bridge.last_words(), bridge.last_words)
    finally:
        code = bridge.stop()
    assert code == 0


def test_credentials_can_be_given_apart_from_the_address(tmp_path: Path, nats_server: NatsServer) -> None:
    parts = urlsplit(nats_server.url)
    address = f"nats://{parts.hostname}:{parts.port}"
    secret = tmp_path / "password"
    secret.write_text(f"{parts.password}\n")
    done = make(address, nats_user=parts.username, nats_password_file=secret)
    assert done.returncode == 0, done.stderr
    assert streams.MQTT in asyncio.run(limits(nats_server.url))


def test_a_wrong_setting_is_named_in_a_sentence() -> None:
    done = make("nats://127.0.0.1:9", replicas=9)
    assert done.returncode == 1
    assert done.stderr.startswith("FABWAFER_REPLICAS: ")
    assert "Traceback" not in done.stderr


def test_a_databases_credentials_can_be_given_apart_from_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "password").write_text("p@ss/word\n")
    monkeypatch.setenv("FABWAFER_DATABASE_URL", "postgresql://db.fab.example/fabwafer")
    monkeypatch.setenv("FABWAFER_DATABASE_USER", "bridge")
    monkeypatch.setenv("FABWAFER_DATABASE_PASSWORD_FILE", str(tmp_path / "password"))
    settings = BridgeSettings.read()
    assert settings.records_url == "postgresql://bridge:p%40ss%2Fword@db.fab.example/fabwafer"
    assert "p@ss" not in repr(settings)


def test_the_readme_names_every_setting() -> None:
    text = README.read_text()
    names = {*BridgeSettings.model_fields, *StreamSettings.model_fields}
    assert [name for name in names if f"`{name.upper()}`" not in text] == []
