"""device-auth on real servers: who may connect, what a device may do, and what is counted when it may not."""

import asyncio
import json
from pathlib import Path

import nats
import pytest
from nats.aio.msg import Msg

from fabwafer_bridge.devices import Credentials, Devices
from tests.support.device_auth import DeviceAuthProcess, describe_system, fabwafer
from tests.support.fabs import ACCEPTED, NOT_AUTHORIZED, Fab
from tests.support.nats_servers import NatsCluster, NatsServer
from tests.support.raw_mqtt import RawMqtt, Will
from tests.support.running import wait_until
from tests.support.streams import make_streams

OTHERS_FILTERS = (
    "#",
    "+/#",
    "+/+/+/+/+",
    "*/*/*/*/*",
    ">",
    "/#",
    "fabwafer/#",
    "fabwafer/faba/#",
    "fabwafer/faba/+/#",
    "fabwafer/+/mine/#",
    "fabwafer/faba/+/img/+",
    "fabwafer/faba/theirs/#",
    "fabwafer/faba/theirs/img/1",
    "fabwafer.faba.theirs.>",
    "fabwafer-images/#",
    "fabwafer-predictions/#",
    "fabwafer-dead/#",
    "fabwafer-shadow/#",
    "fabwafer-device-auth/#",
    "$MQTT/#",
    "$MQTT/msgs/#",
    "$MQTT/rmsgs/#",
    "$MQTT/sub/#",
    "$JS/#",
    "$JS/API/#",
    "$SYS/#",
    "$KV/#",
    "$KV/devices/#",
    "_INBOX/#",
    "$share/group/fabwafer/#",
)


@pytest.mark.parametrize("qos", [0, 1])
async def test_a_device_can_subscribe_to_its_own_and_to_nothing_else(fab: Fab, qos: int) -> None:
    mine, theirs = await fab.add("mine"), await fab.add("theirs")
    me, other = fab.connect(mine), fab.connect(theirs)
    assert [each for each in OTHERS_FILTERS if me.subscribe(each, qos)] == []
    assert me.subscribe("fabwafer/faba/mine/#", qos)
    assert me.subscribe("fabwafer/faba/mine/prediction/+", qos)

    for their_qos in (0, 1):
        assert other.publish("fabwafer/faba/theirs/img/1", b"secret", qos=their_qos)
        assert other.publish("fabwafer/faba/theirs/img/2", b"secret", qos=their_qos, retain=True)
    await fab.bus.publish("fabwafer.faba.theirs.prediction.1", b"secret")
    await fab.bus.publish("fabwafer.faba.mine.alert.1", b"for me")
    await fab.bus.flush()
    wait_until(lambda: me.alive() and me.received != [], "my own message comes")
    assert set(me.received) == {("fabwafer/faba/mine/alert/1", b"for me")}


async def test_a_session_that_comes_back_later_gets_nothing_of_others(fab: Fab) -> None:
    mine, theirs = await fab.add("mine"), await fab.add("theirs")

    def connect() -> RawMqtt:
        return RawMqtt(fab.server.mqtt_port, mine.user, mine.password, client_id="kept", clean=False)

    me = connect()
    assert not me.subscribe("fabwafer/faba/#", 1)
    assert me.subscribe("fabwafer/faba/mine/#", 1)
    me.close()
    other = fab.connect(theirs)
    assert other.publish("fabwafer/faba/theirs/img/1", b"secret")
    assert other.publish("fabwafer/faba/theirs/img/2", b"secret", retain=True)
    me = connect()
    assert me.alive()
    assert me.received == []


async def test_another_device_cannot_take_over_a_session_and_read_what_waits_in_it(fab: Fab) -> None:
    mine, theirs = await fab.add("mine"), await fab.add("theirs")
    port = fab.server.mqtt_port
    other = RawMqtt(port, theirs.user, theirs.password, client_id="shared", clean=False)
    assert other.subscribe("fabwafer/faba/theirs/#", 1)
    other.close()
    assert fab.connect(theirs, "second").publish("fabwafer/faba/theirs/img/1", b"secret")
    me = RawMqtt(port, mine.user, mine.password, client_id="shared", clean=False)
    assert me.subscribe("fabwafer/faba/mine/#")
    await fab.bus.publish("fabwafer.faba.theirs.prediction.1", b"secret")
    await fab.bus.publish("fabwafer.faba.mine.prediction.1", b"for me")
    await fab.bus.flush()
    wait_until(lambda: me.alive() and me.received != [], "my own message comes")
    assert me.received == [("fabwafer/faba/mine/prediction/1", b"for me")]


OTHERS_TOPICS = (
    "fabwafer/faba/theirs/img/1",
    "fabwafer/fabb/mine/img/1",
    "fabwafer/faba/mine/alert/1",
    "fabwafer/faba/mine/img",
    "fabwafer/faba/mine/img/1/2",
    "fabwafer/faba/mine",
    "fabwafer-images/faba/mine/1",
    "fabwafer-predictions/cluster/faba/mine/1",
    "fabwafer-shadow/img/faba/mine/1",
    "fabwafer-shadow/prediction/faba/mine/1",
    "fabwafer-device-auth/applied",
    "$MQTT/msgs/fabwafer/faba/theirs/img/1",
    "$JS/API/STREAM/PURGE/IMAGES",
    "$KV/devices/faba/theirs",
    "$SYS/REQ/SERVER/PING",
)


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("retain", [False, True])
async def test_a_device_can_publish_under_its_own_name_only(shared_fab: Fab, qos: int, retain: bool) -> None:
    fab = shared_fab
    me = fab.connect(await fab.add("mine"))
    heard: list[str] = []

    async def hear(message: Msg) -> None:
        heard.append(message.subject)

    await fab.bus.subscribe("fabwafer.>", cb=hear)
    await fab.bus.subscribe("fabwafer-images.>", cb=hear)
    await fab.bus.flush()
    before = await fab.devices.revision()
    for topic in OTHERS_TOPICS:
        assert me.publish(topic, qos=qos, retain=retain), topic
    assert me.publish("fabwafer/faba/mine/img/1", qos=qos, retain=retain)
    assert me.publish("fabwafer/faba/mine/prediction/1", qos=qos, retain=retain)
    await fab.bus.flush()
    assert heard == ["fabwafer.faba.mine.img.1", "fabwafer.faba.mine.prediction.1"]
    expected = [f"$MQTT.msgs.{subject}" for subject in heard] if qos else []
    assert await fab.stored() == expected
    assert await fab.devices.revision() == before
    wait_until(
        lambda: fab.dropped("permission") + fab.dropped("unknown_topic") >= len(OTHERS_TOPICS),
        "what was dropped is counted",
    )


async def test_a_will_on_a_foreign_topic_does_not_work(fab: Fab) -> None:
    mine = await fab.add("mine")
    port = fab.server.mqtt_port
    wills = [
        Will(topic, b"x", qos=1, retain=retain)
        for topic in ("fabwafer/faba/theirs/img/will", "$MQTT/msgs/fabwafer/faba/theirs/img/will")
        for retain in (False, True)
    ]
    for number, will in enumerate([*wills, Will("fabwafer/faba/mine/img/will", b"x")]):
        RawMqtt(port, mine.user, mine.password, client_id=f"dying-{number}", will=will).drop()
    wait_until(lambda: fab.dropped("permission") == 2, "wills on another's topic are counted")
    wait_until(lambda: fab.dropped("unknown_topic") == 2, "wills on the server's own subjects are counted")
    for _ in range(200):
        if await fab.stored():
            break
        await asyncio.sleep(0.02)
    assert await fab.stored() == ["$MQTT.msgs.fabwafer.faba.mine.img.will"]
    rmsgs = await fab.bus.jetstream().stream_info("$MQTT_rmsgs")
    assert rmsgs.state.messages == 0


async def test_a_devices_credentials_open_nothing_but_mqtt(shared_fab: Fab) -> None:
    fab = shared_fab
    mine = await fab.add("mine")
    address = f"nats://{mine.user}:{mine.password}@127.0.0.1:{fab.server.client_port}"

    async def quiet(_: Exception) -> None: ...

    with pytest.raises(nats.errors.Error, match="Authorization"):
        await nats.connect(address, allow_reconnect=False, error_cb=quiet)
    wait_until(lambda: fab.dropped("authentication") == 1, "the try is counted")


async def test_no_device_is_let_in_before_the_bridge_has_made_its_streams(nats_server: NatsServer) -> None:
    device_auth = DeviceAuthProcess(nats_server)
    try:
        bus = await nats.connect(nats_server.url)
        credentials = await (await Devices.make(bus, replicas=1)).add("faba", "mine")
        device_auth.start(ready=False)
        wait_until(
            lambda: any("no device is let in" in line["event"] for line in device_auth.logged()),
            "device-auth waits",
        )
        assert not device_auth.ready()
        assert credentials.user not in nats_server.users_file.read_text()
        refused = RawMqtt(nats_server.mqtt_port, credentials.user, credentials.password)
        assert refused.connack == NOT_AUTHORIZED
        assert (await bus.jetstream().streams_info()) != []
        assert "$MQTT_msgs" not in [stream.config.name for stream in await bus.jetstream().streams_info()]

        await make_streams(nats_server.url)
        wait_until(device_auth.ready, "device-auth is ready")
        assert RawMqtt(nats_server.mqtt_port, credentials.user, credentials.password).connack == ACCEPTED
        await bus.close()
    finally:
        device_auth.stop()


async def test_users_left_from_before_are_shut_out_where_the_streams_are_gone(nats_server: NatsServer) -> None:
    await make_streams(nats_server.url)
    with DeviceAuthProcess(nats_server):
        bus = await nats.connect(nats_server.url)
        credentials = await (await Devices.open(bus)).add("faba", "mine")
        await (await Devices.open(bus)).until_applied(30)
    await bus.jetstream().delete_stream("$MQTT_msgs")
    await bus.close()
    device_auth = DeviceAuthProcess(nats_server)
    try:
        device_auth.start(ready=False)
        wait_until(lambda: credentials.user not in nats_server.users_file.read_text(), "the user is gone")
    finally:
        device_auth.stop()


async def test_a_revoked_device_is_cut_and_nobody_else(shared_fab: Fab) -> None:
    fab = shared_fab
    revoked, staying = await fab.add("revoked"), await fab.add("staying")
    leaving, other = fab.connect(revoked), fab.connect(staying)
    assert leaving.publish("fabwafer/faba/revoked/img/1")
    await fab.devices.revoke("faba", "revoked")
    await fab.devices.until_applied(30)
    assert not leaving.alive()
    assert fab.try_to_connect(revoked).connack == NOT_AUTHORIZED
    assert other.publish("fabwafer/faba/staying/img/1")


async def test_a_hundred_reloads_disturb_no_connection_and_lose_no_publish(fab: Fab) -> None:
    device = fab.connect(await fab.add("staying"))
    assert device.subscribe("fabwafer/faba/staying/prediction/+")
    before = fab.device_auth.metric('fabwafer_device_auth_reloads_total{result="ok"}')
    done = False
    published = 0

    def publish() -> None:
        nonlocal published
        while not done:
            assert device.publish(f"fabwafer/faba/staying/img/{published}"), f"cut after {published}"
            published += 1

    publishing = asyncio.create_task(asyncio.to_thread(publish))
    for number in range(100):
        await fab.add(f"camera{number}")
    done = True
    await publishing
    assert fab.device_auth.metric('fabwafer_device_auth_reloads_total{result="ok"}') - before >= 100
    assert published > 100
    assert (await fab.bus.jetstream().stream_info("$MQTT_msgs")).state.messages == published
    await fab.bus.publish("fabwafer.faba.staying.prediction.1", b"still subscribed")
    await fab.bus.flush()
    wait_until(lambda: device.alive() and device.received != [], "the subscription is still there")
    assert device.received == [("fabwafer/faba/staying/prediction/1", b"still subscribed")]


async def test_many_devices_at_once_cost_few_reloads_and_all_come_back_after_a_kill(fab: Fab) -> None:
    before = fab.device_auth.metric('fabwafer_device_auth_reloads_total{result="ok"}')
    credentials = await asyncio.gather(*(fab.devices.add("faba", f"camera{number}") for number in range(200)))
    await fab.devices.until_applied(30)
    assert fab.device_auth.metric('fabwafer_device_auth_reloads_total{result="ok"}') - before < 50
    await asyncio.gather(*(asyncio.to_thread(fab.connect, each) for each in credentials))

    fab.server.kill()
    fab.server.start()
    # Like a real device, each tries again when the server was too busy to let it in.
    await asyncio.gather(*(asyncio.to_thread(_come_back, fab, each) for each in credentials))
    wait_until(fab.device_auth.ready, "device-auth found the server again")


def _come_back(fab: Fab, credentials: Credentials) -> None:
    for _ in range(10):
        if (code := fab.try_to_connect(credentials).connack) == ACCEPTED:
            return
        assert code != NOT_AUTHORIZED
    raise AssertionError(f"{credentials.user} did not come back")


async def test_what_changed_while_device_auth_was_away_is_applied_when_it_comes_back(fab: Fab) -> None:
    revoked = await fab.add("revoked")
    leaving = fab.connect(revoked)
    fab.device_auth.stop()
    await fab.devices.revoke("faba", "revoked")
    added = await fab.devices.add("faba", "added")
    assert leaving.alive()
    fab.device_auth.start()
    assert not leaving.alive()
    fab.connect(added)


async def test_what_changed_while_the_server_restarted_is_applied(fab: Fab) -> None:
    revoked = await fab.add("revoked")
    fab.server.kill()
    fab.server.start()
    bus = await nats.connect(fab.server.url)
    devices = await Devices.open(bus)
    await devices.revoke("faba", "revoked")
    await devices.until_applied(30)
    assert fab.try_to_connect(revoked).connack == NOT_AUTHORIZED
    await bus.close()


async def test_a_reload_that_the_server_refuses_leaves_the_users_and_is_tried_again(fab: Fab) -> None:
    first = await fab.add("first")
    device = fab.connect(first)
    good = fab.server.config.read_text()
    users = fab.server.users_file.read_text()
    fab.server.config.write_text(good + "no_such_setting: 1\n")
    second = await fab.devices.add("faba", "second")
    wait_until(
        lambda: fab.device_auth.metric('fabwafer_device_auth_reloads_total{result="refused"}') >= 1, "it is refused"
    )
    wait_until(lambda: "no_such_setting" in json.dumps(fab.device_auth.logged()), "the server's reason is in the log")
    assert fab.server.users_file.read_text() == users
    assert device.publish("fabwafer/faba/first/img/1")
    assert not fab.device_auth.ready()

    fab.server.config.write_text(good)
    await fab.devices.until_applied(30)
    fab.connect(second)
    assert device.alive()


async def test_an_entry_that_is_no_device_locks_nobody_out(shared_fab: Fab) -> None:
    fab = shared_fab
    bucket = await fab.bus.jetstream().key_value("devices")
    await bucket.put("faba.broken", b'{"fab": "faba", "camera": "broken", "hash": "\\" }] #", "created": 1}')
    fab.connect(await fab.add("mine"))
    assert "broken" not in fab.server.users_file.read_text()
    await bucket.delete("faba.broken")


async def test_in_a_cluster_a_device_may_connect_to_every_server(nats_cluster: NatsCluster, tmp_path: Path) -> None:
    await make_streams(nats_cluster.servers[0].url, replicas=3)
    device_auths = [DeviceAuthProcess(server, replicas=3) for server in nats_cluster.servers]
    data = tmp_path / "data"
    data.mkdir()
    describe_system(data, nats_cluster.servers[0])
    try:
        for device_auth in device_auths:
            device_auth.start(ready=False)
        for device_auth in device_auths:
            wait_until(device_auth.ready, "every device-auth is ready")
        added = await asyncio.to_thread(fabwafer, "device", "add", "faba", "mine", "--json", data=data)
        assert added.returncode == 0, added.stderr
        credentials = Credentials.model_validate_json(added.stdout)
        connections = [
            RawMqtt(server.mqtt_port, credentials.user, credentials.password, client_id=f"at-{server.server_name}")
            for server in nats_cluster.servers
        ]
        assert [each.connack for each in connections] == [ACCEPTED] * 3

        # The device-auth of a server that comes back stays with that server.
        nats_cluster.servers[1].kill()
        nats_cluster.servers[1].start()
        wait_until(device_auths[1].ready, "device-auth found its server again")
        revoked = await asyncio.to_thread(fabwafer, "device", "revoke", "faba", "mine", data=data)
        assert revoked.returncode == 0, revoked.stderr
        assert not any(each.alive() for each in connections)
        for server in nats_cluster.servers:
            assert RawMqtt(server.mqtt_port, credentials.user, credentials.password).connack == NOT_AUTHORIZED
    finally:
        for device_auth in device_auths:
            device_auth.stop()
