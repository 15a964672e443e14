"""The configuration of the NATS server, held against the real one."""

import asyncio
import json
import os
import socket
from importlib.resources import files
from pathlib import Path
from urllib.request import urlopen

import nats
import psutil

from fabwafer_bridge.users_file import users
from fabwafer_local import nats as nats_config
from tests.support.nats_servers import BRIDGE_PASSWORD, DEVICE_AUTH_PASSWORD, NatsCluster, NatsServer, add_device
from tests.support.raw_mqtt import RawMqtt


def test_every_port_is_bound_to_loopback_only(nats_cluster: NatsCluster) -> None:
    for server in nats_cluster.servers:
        listening = [each.laddr for each in psutil.Process(server.pid).connections("tcp") if each.status == "LISTEN"]
        assert len(listening) == 4  # clients, devices, monitoring, routes
        assert {address.ip for address in listening} == {"127.0.0.1"}


async def test_no_file_holds_a_secret_and_the_users_file_is_private(nats_server: NatsServer) -> None:
    client = await nats.connect(nats_server.url)
    await client.close()
    for file in nats_server.directory.rglob("*"):
        if file.is_file():
            text = file.read_bytes()
            assert BRIDGE_PASSWORD.encode() not in text, file
            assert DEVICE_AUTH_PASSWORD.encode() not in text, file
    assert nats_server.users_file.stat().st_mode & 0o777 == 0o600


async def test_the_bridge_stays_connected_and_can_connect_after_a_reload(nats_server: NatsServer) -> None:
    lost = asyncio.Event()

    async def on_lost() -> None:
        lost.set()

    before = await nats.connect(nats_server.url, disconnected_cb=on_lost)
    add_device(nats_server, "faba", "camera1")
    after = await nats.connect(nats_server.url)
    assert (await after.jetstream().account_info()).streams == 0
    await before.flush()
    assert not lost.is_set()
    await before.close()
    await after.close()


def test_the_environment_is_quoted_since_the_server_parses_it() -> None:
    quoted = nats_config.environment(bridge_user="bridge", bridge_password="12k", device_auth_password="1e5x")
    assert quoted["FABWAFER_BRIDGE_PASSWORD"] == '"12k"'
    assert quoted["FABWAFER_DEVICE_AUTH_PASSWORD"] == '"1e5x"'


async def test_a_message_of_8_mib_passes_and_a_larger_one_does_not(nats_server: NatsServer) -> None:
    client = await nats.connect(nats_server.url)
    assert client.max_payload == 8 * 1024 * 1024
    await client.close()
    device = RawMqtt(nats_server.mqtt_port, *add_device(nats_server, "faba", "camera1"))
    assert device.publish("fabwafer/faba/camera1/img/a", bytes(8_000_000))
    assert not device.publish("fabwafer/faba/camera1/img/a", bytes(8_400_000))


def test_qos_2_is_refused_since_a_full_stream_would_lose_it(nats_server: NatsServer) -> None:
    device = RawMqtt(nats_server.mqtt_port, *add_device(nats_server, "faba", "camera1"))
    assert not device.publish("fabwafer/faba/camera1/img/a", qos=2)


def test_writing_the_configuration_again_keeps_the_devices(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats")
    user, _ = add_device(server, "faba", "camera1")
    nats_config.write_config(server.directory, client_port=server.client_port, mqtt_port=server.mqtt_port)
    assert user in server.users_file.read_text()


def test_a_server_counts_as_ready_only_when_both_ports_answer(nats_server: NatsServer) -> None:
    assert nats_config.is_ready(nats_server.client_port, nats_server.mqtt_port)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = closed.getsockname()[1]
        assert not nats_config.is_ready(nats_server.client_port, nobody)
        assert not nats_config.is_ready(nobody, nats_server.mqtt_port)
        # A listener of something else is no NATS server.
        assert not nats_config.is_ready(nats_server.monitor_port, nats_server.mqtt_port)


async def test_streams_survive_a_kill_and_a_cluster_survives_the_loss_of_one(nats_cluster: NatsCluster) -> None:
    client = await nats.connect(nats_cluster.urls)
    js = client.jetstream()
    await js.add_stream(name="KEPT", subjects=["kept"], num_replicas=3)
    await js.publish("kept", b"1")
    cluster = (await js.stream_info("KEPT")).cluster
    assert cluster is not None
    assert cluster.leader is not None
    killed = nats_cluster.server_named(cluster.leader)
    killed.kill()
    for _ in range(200):
        try:
            await js.publish("kept", b"2", timeout=1)
            break
        except (nats.errors.Error, TimeoutError):
            await asyncio.sleep(0.05)
    killed.start()
    nats_cluster.wait_for_meta_leader()
    assert (await js.stream_info("KEPT")).state.messages >= 2
    await client.close()


def test_the_program_is_found() -> None:
    assert os.access(nats_config.binary(), os.X_OK)


def test_durations_mean_what_they_say(tmp_path: Path) -> None:
    with (
        NatsServer(tmp_path / "nats", sync_interval="2m") as server,
        urlopen(f"http://127.0.0.1:{server.monitor_port}/varz", timeout=5) as answer,
    ):
        shown = json.load(answer)
    assert shown["jetstream"]["config"]["sync_interval"] == 120 * 10**9
    # The server complains of a number where it expects a duration, and takes it for seconds.
    assert "should be converted to a duration" not in server.log_file.read_text()


def test_what_is_the_same_everywhere_has_effect(nats_server: NatsServer) -> None:
    with urlopen(f"http://127.0.0.1:{nats_server.monitor_port}/varz", timeout=5) as answer:
        shown = json.load(answer)
    assert (shown["max_payload"], shown["max_pending"]) == (8 << 20, 64 << 20)
    assert (shown["mqtt"]["ack_wait"], shown["mqtt"]["max_ack_pending"]) == (30 * 10**9, 1024)
    assert shown["mqtt"]["host"] == shown["host"] == "127.0.0.1"
    assert shown["system_account"] == "SYS"


def test_the_users_file_that_is_shipped_is_the_one_without_devices() -> None:
    assert (files("fabwafer_bridge") / "users.conf").read_text() == users([])


def test_the_file_that_is_shipped_holds_nothing_of_one_server(nats_server: NatsServer) -> None:
    """So a cluster's servers can run with the same file, and with their own beside it."""
    shared = nats_server.config.read_text()
    assert shared == (files("fabwafer_bridge") / "nats.conf").read_text()
    for own in (str(nats_server.directory), str(nats_server.client_port), str(nats_server.mqtt_port), "127.0.0.1"):
        assert own not in shared
