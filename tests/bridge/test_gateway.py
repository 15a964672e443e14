"""Devices on an external broker: what Mosquitto acknowledged arrives on the bus, whatever is killed between."""

import asyncio
import os
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nats
import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from fabwafer.messages.refusals import MessageRefusedError
from fabwafer.messages.topics import Topic
from fabwafer_bridge import dead_letters
from fabwafer_bridge.external_broker import Address
from fabwafer_bridge.gateway import ENVELOPE, GatewaySettings, entering
from fabwafer_bridge.publisher import Outgoing
from tests.support.gateways import MAX_PAYLOAD, Gateway, expected, image, in_stream, listed_dead_letters, publish_images
from tests.support.mosquitto import Mosquitto, Publisher, guides_configuration
from tests.support.nats_servers import BRIDGE_PASSWORD, BRIDGE_USER, NatsServer
from tests.support.running import answers, wait_until


def kill_gateway(gateway: Gateway, bus: NatsServer, broker: Mosquitto) -> None:
    gateway.kill()
    gateway.start()


def stop_gateway(gateway: Gateway, bus: NatsServer, broker: Mosquitto) -> None:
    assert gateway.stop() == 0
    gateway.start()


def kill_bus(gateway: Gateway, bus: NatsServer, broker: Mosquitto) -> None:
    bus.kill()
    bus.start()


def restart_broker(gateway: Gateway, bus: NatsServer, broker: Mosquitto) -> None:
    broker.stop()
    broker.start()


@pytest.mark.parametrize("harm", [kill_gateway, stop_gateway, kill_bus, restart_broker])
def test_each_image_arrives_once_although(
    harm: Callable[[Gateway, NatsServer, Mosquitto], None],
    gateway: Gateway,
    bus: NatsServer,
    mosquitto: Mosquitto,
    camera: Publisher,
) -> None:
    for round_ in range(2):
        publish_images(camera, 500 * round_, 500)
        wait_until(lambda had=500 * round_: len(in_stream(bus)) > had + 20, "images flow")  # type: ignore[misc]
        harm(gateway, bus, mosquitto)

    wait_until(lambda: camera.acknowledged == 1000, "the broker takes all of them")
    wait_until(lambda: len(in_stream(bus)) == 1000, "all of them arrive")
    assert in_stream(bus) == expected(1000)


def test_what_comes_while_the_gateway_is_away_waits_for_it_even_over_a_restart_of_the_broker(
    gateway: Gateway,
    bus: NatsServer,
    mosquitto: Mosquitto,
    camera: Publisher,
) -> None:
    gateway.stop()
    publish_images(camera, 0, 3000)
    wait_until(lambda: camera.acknowledged == 3000, "the broker takes all of them")
    mosquitto.stop()
    mosquitto.start()

    gateway.start()

    wait_until(lambda: len(in_stream(bus)) == 3000, "all of them arrive")
    assert in_stream(bus) == expected(3000)


def test_with_its_default_queue_mosquitto_loses_what_it_acknowledged_as_the_guide_warns(
    bus: NatsServer,
    tmp_path: Path,
    needs_mosquitto: None,
) -> None:
    with Mosquitto(tmp_path / "default", "persistence true") as broker:
        gateway = Gateway(tmp_path / "gateway", broker, bus)
        camera = Publisher(broker)
        try:
            gateway.start().stop()
            publish_images(camera, 0, 3000)
            wait_until(lambda: camera.acknowledged == 3000, "the broker takes all of them")
            gateway.start()
            # What is published now comes after all that the broker kept.
            camera.publish("fabwafer/fab1/cam1/img/last", image("last"))
            wait_until(lambda: "last" in in_stream(bus), "the last one arrives")
        finally:
            gateway.stop()
            camera.close()

    assert 1000 <= len(in_stream(bus)) <= 1100
    assert "Outgoing messages are being dropped for client fabwafer-gateway" in broker.log.read_text()


@pytest.mark.parametrize("end", [Gateway.stop, Gateway.kill])
def test_a_gateway_that_ends_while_the_bus_is_away_leaves_the_images_with_their_broker(
    end: Callable[[Gateway], int | None], gateway: Gateway, bus: NatsServer, camera: Publisher
) -> None:
    bus.kill()
    publish_images(camera, 0, 200)
    wait_until(lambda: camera.acknowledged == 200, "the broker takes all of them")
    assert not answers(f"{gateway.url}/readyz")
    assert answers(f"{gateway.url}/healthz")
    assert not end(gateway)
    bus.start()

    gateway.start()

    wait_until(lambda: len(in_stream(bus)) == 200, "all of them arrive")
    assert in_stream(bus) == expected(200)


def test_the_gateway_waits_for_the_streams_before_it_takes_anything(
    nats_server: NatsServer,
    mosquitto: Mosquitto,
    camera: Publisher,
    tmp_path: Path,
) -> None:
    gateway = Gateway(tmp_path / "gateway", mosquitto, nats_server)
    try:
        gateway.spawn()
        wait_until(lambda: answers(f"{gateway.url}/healthz"), "the gateway runs")
        camera.publish("fabwafer/fab1/cam1/img/early", image("early"))
        wait_until(lambda: b"waiting for `fabwafer streams`" in gateway.log.read_bytes(), "it looks for the streams")
        assert not answers(f"{gateway.url}/readyz")
        assert "fabwafer-gateway" not in mosquitto.log.read_text()
    finally:
        assert gateway.stop() == 0


def test_what_does_not_fit_the_bus_becomes_a_dead_letter_and_holds_up_nothing(
    gateway: Gateway, bus: NatsServer, camera: Publisher
) -> None:
    almost = b" " * (MAX_PAYLOAD - 100)
    for imgid, payload in (
        ("wafer.1", b"a dot"),
        ("wafer 1", b"a space"),
        ("*", b"a wildcard"),
        (">", b"another"),
        ("wäfer\N{WATER WAVE}", b"an emoji"),
        ("x" * 3000, b"long"),
        ("", b"nothing"),
        ("large", b" " * (MAX_PAYLOAD + 1)),
        ("almost", almost),
    ):
        camera.publish(f"fabwafer/fab1/cam1/img/{imgid}", payload)
    camera.publish("fabwafer/fab1/cam1/img/w0", image("w0"))

    wait_until(lambda: in_stream(bus) == expected(1), "the good one arrives")
    wait_until(lambda: gateway.metric("dead") == 9, "the dead letters")
    letters = {letter.subject: letter for letter in listed_dead_letters(bus)}
    prefix = "fabwafer/fab1/cam1/img/"
    assert set(letters) == {
        *(prefix + name for name in ("wafer.1", "wafer 1", "*", ">", r"w\xe4fer\U0001f30a", "", "large", "almost")),
        (prefix + "x" * 3000)[:200],
    }
    assert letters[prefix + "wafer.1"].reason == (
        "expected a topic with names of 1 to 64 letters, digits, '_' or '-', got 'fabwafer/fab1/cam1/img/wafer.1'"
    )
    assert letters[prefix + "wafer.1"].size == len(b"a dot")
    assert letters[prefix + "almost"].reason == (
        f"expected at most {MAX_PAYLOAD - ENVELOPE} bytes; the {len(almost)} bytes that came are not kept"
    )
    assert letters[prefix + "almost"].size == 0


def test_a_dead_letter_of_the_gateway_is_refused_again_when_it_is_replayed(
    gateway: Gateway, bus: NatsServer, camera: Publisher
) -> None:
    camera.publish("fabwafer/fab1/cam1/img/wafer.1", image("wafer"))
    wait_until(lambda: len(listed_dead_letters(bus)) == 1, "the dead letter")

    async def replay() -> None:
        client = await nats.connect(bus.url)
        await dead_letters.replay(client.jetstream(), dead_letters_before[0].id)
        await client.close()

    dead_letters_before = listed_dead_letters(bus)
    asyncio.run(replay())

    wait_until(
        lambda: [one.id for one in listed_dead_letters(bus)] != [dead_letters_before[0].id], "it is refused again"
    )
    wait_until(lambda: len(listed_dead_letters(bus)) == 1, "the dead letter")
    assert "imgid in the topic" in listed_dead_letters(bus)[0].reason
    assert in_stream(bus) == {}


def test_a_gateway_stops_at_once_while_the_broker_is_away(gateway: Gateway, mosquitto: Mosquitto) -> None:
    mosquitto.stop()
    wait_until(lambda: not answers(f"{gateway.url}/readyz"), "the gateway misses the broker")

    assert gateway.stop() == 0


def test_tls_with_an_authority_of_ones_own(bus: NatsServer, tmp_path: Path, needs_mosquitto: None) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    make += ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=127.0.0.1"]
    subprocess.run([*make, "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    tls = f"certfile {certificate}\nkeyfile {key}"
    with Mosquitto(tmp_path / "mosquitto", guides_configuration(), tls) as broker:
        url = f"mqtts://127.0.0.1:{broker.port}"
        gateway = Gateway(
            tmp_path / "gateway",
            broker,
            bus,
            FABWAFER_EXTERNAL_BROKER_URL=url,
            FABWAFER_EXTERNAL_BROKER_CA_FILE=str(certificate),
        )
        camera = Client(CallbackAPIVersion.VERSION2)
        camera.tls_set_context(ssl.create_default_context(cafile=certificate))
        try:
            gateway.start()
            camera.connect("127.0.0.1", broker.port)
            camera.loop_start()
            camera.publish("fabwafer/fab1/cam1/img/w0", image("w0"), qos=1)
            wait_until(lambda: in_stream(bus) == expected(1), "the image arrives")
        finally:
            camera.disconnect()
            camera.loop_stop()
            gateway.stop()


def test_credentials_are_given_apart_from_the_urls(bus: NatsServer, tmp_path: Path, needs_mosquitto: None) -> None:
    for name, content in (("broker", "p@ss:w/rd"), ("bus", BRIDGE_PASSWORD)):
        (tmp_path / name).write_text(f"{content}\n")
    users = tmp_path / "users"
    subprocess.run(["mosquitto_passwd", "-b", "-c", users, "kim", "p@ss:w/rd"], check=True, capture_output=True)
    users.chmod(0o600)
    only_kim = f"allow_anonymous false\npassword_file {users}"
    with Mosquitto(tmp_path / "mosquitto", guides_configuration(), only_kim) as broker:
        gateway = Gateway(
            tmp_path / "gateway",
            broker,
            bus,
            FABWAFER_EXTERNAL_BROKER_USER="kim",
            FABWAFER_EXTERNAL_BROKER_PASSWORD_FILE=str(tmp_path / "broker"),
            FABWAFER_NATS_URL=bus.plain_url,
            FABWAFER_NATS_USER=BRIDGE_USER,
            FABWAFER_NATS_PASSWORD_FILE=str(tmp_path / "bus"),
        )
        try:
            gateway.start()
        finally:
            assert gateway.stop() == 0


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("mqtt://broker", Address("broker", 1883, False, None, None)),
        ("mqtts://broker", Address("broker", 8883, True, None, None)),
        ("mqtt://kim:p%40ss@broker:1", Address("broker", 1, False, "kim", "p@ss")),
    ],
)
def test_a_brokers_address(url: str, address: Address) -> None:
    assert Address.of(url) == address


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("FABWAFER_EXTERNAL_BROKER_URL", "broker:1883", "expected mqtt://USER:PASSWORD@HOST:PORT"),
        ("FABWAFER_EXTERNAL_BROKER_URL", "mqtt://kim:secret@broker:port", "expected mqtt://USER:PASSWORD@HOST:PORT"),
        ("FABWAFER_GATEWAY_TOPICS", "fabwafer/#", "expected fabwafer/FAB/CAMERA/img/IMGID"),
        ("FABWAFER_GATEWAY_TOPICS", "", "expected fabwafer/FAB/CAMERA/img/IMGID"),
        ("FABWAFER_METRICS_PORT", "many", "FABWAFER_METRICS_PORT: expected a valid integer"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_one_sentence_and_no_traceback(variable: str, value: str, said: str) -> None:
    env = os.environ | {"FABWAFER_EXTERNAL_BROKER_URL": "mqtt://broker", variable: value}
    done = subprocess.run(
        [sys.executable, "-m", "fabwafer.cli", "gateway"], env=env, capture_output=True, text=True, check=False
    )

    assert done.returncode != 0
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "secret" not in done.stderr


def test_topics_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FABWAFER_EXTERNAL_BROKER_URL", "mqtt://broker")
    monkeypatch.setenv("FABWAFER_GATEWAY_TOPICS", "fabwafer/fab1/+/img/+, fabwafer/fab2/cam-1/prediction/+")

    assert GatewaySettings().gateway_topics == ("fabwafer/fab1/+/img/+", "fabwafer/fab2/cam-1/prediction/+")


def test_a_fab_that_is_called_like_the_smoke_tests_is_refused_also_when_replayed() -> None:
    letter = entering("fabwafer/helm-test/c/img/i", b"body", MAX_PAYLOAD)
    assert letter is not None
    assert letter.subject == "fabwafer-dead.gateway"
    assert letter.payload == b"body"
    assert letter.headers["Fabwafer-Reason"] == (
        "expected a fab with another name than helm-test, which is the smoke test's, got 'fabwafer/helm-test/c/img/i'"
    )
    with pytest.raises(MessageRefusedError):
        Topic.from_subject(letter.headers["Fabwafer-Origin"].removeprefix("$MQTT.msgs."))


def test_a_message_enters_as_the_listener_for_devices_stores_it() -> None:
    assert entering("fabwafer/f/c/img/i", b"body", MAX_PAYLOAD) == Outgoing(
        "$MQTT.msgs.fabwafer.f.c.img.i", b"body", {"Nmqtt-Pub": "1"}
    )
