"""What the MQTT listener drops silently is counted by device-auth, by reason and once."""

from collections.abc import Callable

import nats
import pytest

from fabwafer_bridge.devices import Credentials, Devices
from fabwafer_bridge.listener_log import TakenClientId, read_taken_client_id
from tests.support.device_auth import DeviceAuthProcess
from tests.support.fabs import NOT_AUTHORIZED, Fab
from tests.support.nats_servers import NatsCluster, NatsServer
from tests.support.raw_mqtt import RawMqtt
from tests.support.running import wait_until
from tests.support.streams import make_streams


def _publish(topic: str | bytes, payload: bytes = b"x", qos: int = 1) -> Callable[[Fab, Credentials], None]:
    def act(fab: Fab, credentials: Credentials) -> None:
        fab.connect(credentials, "dropping").publish(topic, payload, qos=qos)

    return act


def _subscribe(topic_filter: str) -> Callable[[Fab, Credentials], None]:
    def act(fab: Fab, credentials: Credentials) -> None:
        fab.connect(credentials, "dropping").subscribe(topic_filter)

    return act


def _send(data: bytes) -> Callable[[Fab, Credentials], None]:
    def act(fab: Fab, credentials: Credentials) -> None:
        device = fab.connect(credentials, "dropping")
        device.send(data)
        assert not device.alive()

    return act


def _wrong_password(fab: Fab, credentials: Credentials) -> None:
    wrong = credentials.model_copy(update={"password": "wrong"})
    assert fab.try_to_connect(wrong, "dropping").connack == NOT_AUTHORIZED


def _client_id_with_a_dot(fab: Fab, credentials: Credentials) -> None:
    assert fab.try_to_connect(credentials, "with.dot").connack == 2


def _another_version(fab: Fab, credentials: Credentials) -> None:
    assert RawMqtt(fab.server.mqtt_port, credentials.user, credentials.password, level=5).connack == 1


OWN = "fabwafer/faba/mine/img/"


@pytest.mark.parametrize(
    ("reason", "act"),
    [
        pytest.param("permission", _publish("fabwafer/faba/theirs/img/1"), id="another's image"),
        pytest.param("permission", _publish("fabwafer/fabb/mine/prediction/1", qos=0), id="another fab's prediction"),
        pytest.param("unknown_topic", _publish("wafers/1"), id="a topic that is not ours"),
        pytest.param("unknown_topic", _publish("fabwafer/faba/mine/image/1"), id="a misspelt kind"),
        pytest.param("unknown_topic", _publish("fabwafer/faba/mine/img"), id="no image id"),
        pytest.param("unknown_topic", _publish('fabwafer/faba/mine/"/img/1'), id="a quotation mark"),
        pytest.param("bad_topic", _publish(OWN + "a b"), id="a space"),
        pytest.param("bad_topic", _publish(OWN + "a\nb"), id="a line break"),
        pytest.param("bad_topic", _publish(OWN + "+"), id="a wildcard"),
        pytest.param("bad_topic", _publish(OWN + "a\0b"), id="a null"),
        pytest.param("bad_topic", _publish(b"fabwafer/faba/mine/img/\xff"), id="no text"),
        pytest.param("bad_topic", _publish(""), id="no topic"),
        pytest.param("oversize", _publish(OWN + "1", bytes(9_000_000)), id="9 MB"),
        pytest.param("qos2", _publish(OWN + "1", qos=2), id="QoS 2"),
        pytest.param("subscription", _subscribe("#"), id="reading everything"),
        pytest.param("subscription", _subscribe("fabwafer/faba/mine/a b"), id="subscribing with a space"),
        pytest.param("subscription", _subscribe(""), id="subscribing to nothing"),
        pytest.param("authentication", _wrong_password, id="a wrong password"),
        pytest.param("client_id", _client_id_with_a_dot, id="a client id with a dot"),
        pytest.param("protocol", _another_version, id="MQTT 5"),
        pytest.param("protocol", _send(b"\xf0\x00"), id="an unknown packet"),
        pytest.param("protocol", _send(b"\x32\x01\x00"), id="a truncated publish"),
    ],
)
async def test_what_the_listener_drops_is_counted_by_reason_and_its_device_works_again(
    shared_fab: Fab, reason: str, act: Callable[[Fab, Credentials], None]
) -> None:
    fab = shared_fab
    credentials = await fab.add("mine")
    act(fab, credentials)
    wait_until(lambda: fab.dropped(reason) >= 1, f"{reason} is counted: {fab.server.log_file.read_text()[-500:]}")
    assert fab.connect(credentials, "well-behaved").publish(OWN + "good")
    assert await fab.stored() == ["$MQTT.msgs.fabwafer.faba.mine.img.good"]

    # It is counted before the server is asked for the user, and logged after that.
    wait_until(lambda: any(line["event"] == "dropped" for line in fab.log()), f"{reason} is logged")
    (dropped,) = [line for line in fab.log() if line["event"] == "dropped"]
    assert (dropped["reason"], dropped["times"]) == (reason, 1)
    if act is _another_version:
        return
    if act is not _client_id_with_a_dot:  # it is refused before the server looks who it is
        assert dropped["user"] == "faba.mine"
    assert dropped["client_id"] == ("with.dot" if act is _client_id_with_a_dot else "dropping")


async def test_what_could_not_be_stored_is_counted_and_its_device_works_again(nats_server: NatsServer) -> None:
    await make_streams(nats_server.url, mqtt_max_bytes=100_000)
    with DeviceAuthProcess(nats_server) as device_auth:
        bus = await nats.connect(nats_server.url)
        fab = Fab(nats_server, device_auth, bus, await Devices.open(bus))
        credentials = await fab.add("mine")
        device = fab.connect(credentials)
        published = 0
        while device.publish(f"{OWN}{published}", bytes(10_000)):
            published += 1
            assert published < 100
        wait_until(lambda: device_auth.dropped("not_stored") == 1, "it is counted")
        assert (await bus.jetstream().stream_info("$MQTT_msgs")).state.messages == published
        await bus.jetstream().purge_stream("$MQTT_msgs")
        assert fab.connect(credentials).publish(OWN + "again")
        await bus.close()


async def test_drops_are_counted_once_over_log_rotation_and_restarts_of_device_auth(nats_server: NatsServer) -> None:
    nats_server.config.write_text(
        nats_server.config.read_text().replace("logfile_size_limit: 16MB", "logfile_size_limit: 20000")
    )
    nats_server.restart()
    await make_streams(nats_server.url)
    total = 0

    def publish_badly(fab: Fab, credentials: Credentials, count: int) -> None:
        nonlocal total
        device = fab.connect(credentials)
        for number in range(count):
            assert device.publish(f"wafers/{number}")
        total += count

    device_auth = DeviceAuthProcess(nats_server)
    try:
        device_auth.start()
        bus = await nats.connect(nats_server.url)
        fab = Fab(nats_server, device_auth, bus, await Devices.open(bus))
        credentials = await fab.add("mine")
        publish_badly(fab, credentials, 300)
        wait_until(lambda: device_auth.dropped("unknown_topic") == 300, "all are counted over rotations")
        assert len(list(nats_server.directory.glob("nats.log.*"))) >= 1
        device_auth.stop()
        # While device-auth is away the log is rotated, but not so often that the part it has not read is deleted.
        publish_badly(fab, credentials, 250)
        device_auth.start()
        wait_until(lambda: device_auth.dropped("unknown_topic") == 250, "what came while it was away is counted")
        publish_badly(fab, credentials, 1)
        wait_until(lambda: device_auth.dropped("unknown_topic") == 251, "and what comes now")
        await bus.close()
    finally:
        device_auth.stop()
    counted = sum(line["times"] for line in device_auth.logged() if line["event"] == "dropped")
    assert counted == total


async def test_a_client_id_that_another_user_takes_is_counted_and_both_are_named(shared_fab: Fab) -> None:
    fab = shared_fab
    mine, theirs = await fab.add("mine"), await fab.add("theirs")
    connected = fab.connect(mine, "stolen")
    taking = fab.connect(theirs, "stolen")
    assert taking.alive()
    assert not connected.alive()
    wait_until(lambda: fab.dropped("client_id_taken") == 1, lambda: fab.server.log_file.read_text()[-500:])
    wait_until(lambda: any(line["event"] == "dropped" for line in fab.log()), "it is logged")
    (dropped,) = [line for line in fab.log() if line["event"] == "dropped"]
    assert (dropped["reason"], dropped["client_id"]) == ("client_id_taken", "stolen")
    assert (dropped["user"], dropped["by"]) == ("faba.mine", "faba.theirs")
    assert dropped["what"].startswith("faba.theirs connected with the client id of faba.mine")


async def test_a_device_that_takes_its_own_client_id_again_is_not_counted(shared_fab: Fab) -> None:
    fab = shared_fab
    mine, theirs = await fab.add("mine"), await fab.add("theirs")
    before, after = fab.connect(mine, "own"), fab.connect(mine, "own")
    assert (before.alive(), after.alive()) == (False, True)
    # What comes later in the log shows that the former was read.
    before, after = fab.connect(mine, "other"), fab.connect(theirs, "other")
    wait_until(lambda: fab.dropped("client_id_taken") >= 1, lambda: fab.server.log_file.read_text()[-500:])
    assert fab.dropped("client_id_taken") == 1


async def test_a_client_id_that_another_user_takes_on_another_server_of_the_cluster_is_counted(
    nats_cluster: NatsCluster,
) -> None:
    first, second, _ = nats_cluster.servers
    await make_streams(first.url, replicas=3)
    device_auths = [DeviceAuthProcess(server, replicas=3) for server in nats_cluster.servers]
    try:
        for device_auth in device_auths:
            device_auth.start(ready=False)
        for device_auth in device_auths:
            wait_until(device_auth.ready, "every device-auth is ready")
        bus = await nats.connect(first.url)
        devices = await Devices.open(bus)
        mine, theirs = [await devices.add("faba", camera) for camera in ("mine", "theirs")]
        await devices.until_applied(30)
        await bus.close()
        connected = RawMqtt(first.mqtt_port, mine.user, mine.password, client_id="stolen")
        assert RawMqtt(second.mqtt_port, theirs.user, theirs.password, client_id="stolen").connack == 0
        wait_until(lambda: device_auths[0].dropped("client_id_taken") == 1, lambda: first.log_file.read_text()[-500:])
        assert not connected.alive()
        (dropped,) = [line for line in device_auths[0].logged() if line.get("reason") == "client_id_taken"]
        assert (dropped["user"], dropped["by"]) == ("faba.mine", "faba.theirs")
    finally:
        for device_auth in device_auths:
            device_auth.stop()


_HEAD = '[24073] 2026/11/26 14:52:57.075720 [WRN] 127.0.0.1:43018 - mid:27 - "a\\"b" - '


@pytest.mark.parametrize(
    ("line", "taken"),
    [
        (
            _HEAD
            + r'Replacing old client "[::1]:43002 - mid:8 - \"a\\\"b\"" since both have the same client ID "a\"b"',
            TakenClientId(r"a\"b", 8, "[::1]:43002", 27),
        ),
        (
            _HEAD + r'Closing because a remote connection has started with the same client ID: "a\"b"',
            TakenClientId(r"a\"b", 27, "127.0.0.1:43018", None),
        ),
        (_HEAD + "reconnected", None),
        (
            _HEAD.replace("WRN", "ERR") + "Closing because a remote connection has started with the same client ID: x",
            None,
        ),
    ],
)
def test_a_line_about_a_taken_client_id_is_read(line: str, taken: TakenClientId | None) -> None:
    assert read_taken_client_id(line) == taken
