"""Devices on another broker: what Mosquitto acknowledged to them arrives on the bus, whatever is killed between."""

import asyncio
import json
import os
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import nats
import pytest
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from fabwafer.messages import Image, Prediction
from fabwafer.records import Records, migrate
from fabwafer.synthetic import sample
from fabwafer.wafermap import encode
from fabwafer_bridge import dead, streams
from fabwafer_bridge.foreign import Address
from fabwafer_bridge.gateway import ENVELOPE, GatewaySettings, entering
from fabwafer_bridge.intake import SOURCE
from fabwafer_bridge.publisher import Outgoing
from tests.mosquitto import Mosquitto, Publisher, guides_configuration, mosquitto, needs_mosquitto  # noqa: F401
from tests.nats_servers import NatsServer, free_ports, nats_server  # noqa: F401
from tests.running import Bridge, ModelServer, _Process, answers, model_server, wait_until  # noqa: F401

FILE = encode(sample(0, 1)[0][1])
MAX_PAYLOAD = 8 * 1024 * 1024


class Gateway(_Process):
    """The gateway, with settings as an operator gives them."""

    def __init__(self, directory: Path, broker: Mosquitto, bus: NatsServer, **settings: str) -> None:
        directory.mkdir(parents=True)
        (port,) = free_ports(1)
        env = os.environ | {
            "FABWAFER_FOREIGN_MQTT_URL": broker.url,
            "FABWAFER_NATS_URL": bus.url,
            "FABWAFER_METRICS_PORT": str(port),
            **settings,
        }
        super().__init__([sys.executable, "-m", "fabwafer.cli", "gateway"], env, directory / "gateway.log")
        self.url = f"http://127.0.0.1:{port}"

    def metric(self, result: str) -> float:
        """How many messages had this result."""
        return Bridge.metric(self, "fabwafer_messages_total", consumer="gateway", result=result)  # type: ignore[arg-type]

    def start(self) -> Self:
        """Starts it, and waits until it carries messages."""
        self.spawn()
        wait_until(lambda: answers(f"{self.url}/readyz"), f"the gateway: {self.last_words()}")
        return self


@pytest.fixture
def bus(nats_server: NatsServer, tmp_path: Path) -> Iterator[NatsServer]:  # noqa: F811
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
def gateway(mosquitto: Mosquitto, bus: NatsServer, tmp_path: Path) -> Iterator[Gateway]:  # noqa: F811
    """A gateway between the two."""
    running = Gateway(tmp_path / "gateway", mosquitto, bus)
    try:
        yield running.start()
    finally:
        running.stop()


@pytest.fixture
def camera(mosquitto: Mosquitto) -> Iterator[Publisher]:  # noqa: F811
    """A camera on the other broker."""
    publisher = Publisher(mosquitto)
    yield publisher
    publisher.close()


def image(imgid: str, **more: object) -> bytes:
    return Image.of_file(FILE, imgid=imgid, timestamp=1_700_000_000_000, fab="fab1", camera="cam1", **more).to_json()


def publish_images(camera: Publisher, first: int, count: int) -> None:
    for number in range(first, first + count):
        camera.publish(f"fabwafer/fab1/cam1/img/w{number}", image(f"w{number}"))


def in_stream(bus: NatsServer, stream: str = streams.IMAGES) -> dict[str, int]:
    """How many messages a stream holds, by the last part of their subject."""

    async def ask() -> dict[str, int]:
        client = await nats.connect(bus.url)
        try:
            state = (await client.jetstream().stream_info(stream, subjects_filter=">")).state
        finally:
            await client.close()
        return {subject.rpartition(".")[2]: count for subject, count in (state.subjects or {}).items()}

    return asyncio.run(ask())


def dead_letters(bus: NatsServer) -> list[dead.DeadLetter]:
    async def ask() -> list[dead.DeadLetter]:
        client = await nats.connect(bus.url)
        try:
            return [letter async for letter in dead.listed(client.jetstream())]
        finally:
            await client.close()

    return asyncio.run(ask())


def expected(count: int) -> dict[str, int]:
    return {f"w{number}": 1 for number in range(count)}


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
    mosquitto: Mosquitto,  # noqa: F811
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
    mosquitto: Mosquitto,  # noqa: F811
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
    needs_mosquitto: None,  # noqa: F811
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


def test_the_gateway_waits_for_the_intake_before_it_takes_anything(
    nats_server: NatsServer,  # noqa: F811
    mosquitto: Mosquitto,  # noqa: F811
    camera: Publisher,
    tmp_path: Path,
) -> None:
    gateway = Gateway(tmp_path / "gateway", mosquitto, nats_server)
    try:
        gateway.spawn()
        wait_until(lambda: answers(f"{gateway.url}/healthz"), "the gateway runs")
        camera.publish("fabwafer/fab1/cam1/img/early", image("early"))
        wait_until(lambda: b"intake not there yet" in gateway.log.read_bytes(), "it looks for the intake")
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
    letters = {letter.subject: letter for letter in dead_letters(bus)}
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
    assert gateway.metric("dead") == 9


def test_a_dead_letter_of_the_gateway_is_refused_again_when_it_is_replayed(
    gateway: Gateway, bus: NatsServer, camera: Publisher
) -> None:
    camera.publish("fabwafer/fab1/cam1/img/wafer.1", image("wafer"))
    wait_until(lambda: len(dead_letters(bus)) == 1, "the dead letter")

    async def replay() -> None:
        client = await nats.connect(bus.url)
        await dead.replay(client.jetstream(), dead_letters_before[0].id)
        await client.close()

    dead_letters_before = dead_letters(bus)
    asyncio.run(replay())

    wait_until(lambda: [one.id for one in dead_letters(bus)] != [dead_letters_before[0].id], "it is refused again")
    wait_until(lambda: len(dead_letters(bus)) == 1, "the dead letter")
    assert "imgid in the topic" in dead_letters(bus)[0].reason
    assert in_stream(bus) == {}


class Listener:
    """Somebody on the other broker who looks at all that is said."""

    def __init__(self, broker: Mosquitto) -> None:
        self.heard: list[tuple[str, Any]] = []
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", broker.port)
        self._client.subscribe([("fabwafer/+/+/prediction/+", 1), ("fabwafer/+/+/alert/+", 1)])
        self._client.loop_start()

    def _on_message(self, _: Client, __: object, message: MQTTMessage) -> None:
        self.heard.append((message.topic, json.loads(message.payload)))

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def listener(mosquitto: Mosquitto) -> Iterator[Listener]:  # noqa: F811
    listener = Listener(mosquitto)
    yield listener
    listener.close()


def test_an_image_comes_back_as_a_prediction_and_goes_round_no_more(
    nats_server: NatsServer,  # noqa: F811
    mosquitto: Mosquitto,  # noqa: F811
    model_server: ModelServer,  # noqa: F811
    camera: Publisher,
    listener: Listener,
    tmp_path: Path,
) -> None:
    database = f"sqlite:///{tmp_path / 'records.db'}"
    migrate(database)
    bridge = Bridge(
        tmp_path / "bridge", nats_url=nats_server.url, inference_url=model_server.url, database_url=database
    )
    gateway = Gateway(tmp_path / "gateway", mosquitto, nats_server)
    try:
        bridge.start()
        gateway.start()
        camera.publish("fabwafer/fab1/cam1/img/w1", image("w1", lot="L7"))
        wait_until(lambda: bool(listener.heard), "the prediction comes back")
        # A device's own prediction, in the end: whatever had come round would have been recorded before it.
        own = Prediction(
            imgid="own", timestamp=1, fab="fab1", camera="cam1", prediction="none", probability=1, model="own"
        )
        camera.publish("fabwafer/fab1/cam1/prediction/own", own.to_json())
        with Records(database) as records:
            wait_until(lambda: len(list(records.wafers())) == 2, "both are recorded")
            recorded = {
                (record.imgid, prediction.source, prediction.model)
                for record in records.wafers()
                for prediction in record.predictions
            }
    finally:
        gateway.stop()
        bridge.stop()

    topic, said = next(each for each in listener.heard if each[0].endswith("/w1") and "/prediction/" in each[0])
    assert topic == "fabwafer/fab1/cam1/prediction/w1"
    assert (said["source"], said["lot"], said["timestamp"]) == ("cluster", "L7", 1_700_000_000_000)
    assert recorded == {("w1", "cluster", said["model"]), ("own", "device", "own")}


def announce(bus: NatsServer, kind: str, imgid: str, headers: dict[str, str]) -> None:
    said = Prediction(
        imgid=imgid, timestamp=1, fab="fab1", camera="cam1", prediction="Loc", probability=0.9, source="cluster"
    )

    async def publish() -> None:
        client = await nats.connect(bus.url)
        await client.publish(f"fabwafer.fab1.cam1.{kind}.{imgid}", said.to_json(), headers=headers)
        await client.close()

    asyncio.run(publish())


def test_predictions_and_alerts_of_the_cluster_reach_listeners_on_the_other_broker_and_nothing_else_does(
    gateway: Gateway, bus: NatsServer, listener: Listener, camera: Publisher
) -> None:
    announce(bus, "prediction", "devices", {})
    announce(bus, "prediction", "clusters", {SOURCE: "cluster"})
    announce(bus, "alert", "alarming", {SOURCE: "cluster"})

    wait_until(lambda: len(listener.heard) == 2, "both are heard")
    assert [topic for topic, _ in listener.heard] == [
        "fabwafer/fab1/cam1/prediction/clusters",
        "fabwafer/fab1/cam1/alert/alarming",
    ]
    assert all(said["prediction"] == "Loc" for _, said in listener.heard)


def test_what_another_gateway_sent_out_does_not_come_in(gateway: Gateway, bus: NatsServer, camera: Publisher) -> None:
    said = Prediction(
        imgid="p1", timestamp=1, fab="fab1", camera="cam1", prediction="Loc", probability=0.9, source="cluster"
    )
    camera.publish("fabwafer/fab1/cam1/prediction/p1", said.to_json())
    camera.publish("fabwafer/fab1/cam1/prediction/p2", said.model_copy(update={"source": "device"}).to_json())

    wait_until(lambda: gateway.metric("ignored") == 1 and gateway.metric("passed") == 1, "both are seen")
    assert gateway.metric("ignored") == 1
    # p2 went in on its own topic; its body names the wafer.
    wait_until(lambda: in_stream(bus, streams.PREDICTIONS) == {"p1": 1}, "the device's arrives")


def test_predictions_wait_while_the_broker_is_away(
    gateway: Gateway,
    bus: NatsServer,
    mosquitto: Mosquitto,  # noqa: F811
) -> None:
    mosquitto.stop()
    wait_until(lambda: not answers(f"{gateway.url}/readyz"), "the gateway misses the broker")
    announce(bus, "prediction", "late", {SOURCE: "cluster"})
    wait_until(lambda: gateway.metric("returned") == 1, "the gateway has it")
    mosquitto.start()
    listener = Listener(mosquitto)
    try:
        wait_until(lambda: bool(listener.heard), "it is sent once the broker is back")
    finally:
        listener.close()
    assert [topic for topic, _ in listener.heard] == ["fabwafer/fab1/cam1/prediction/late"]


def test_a_gateway_stops_at_once_while_the_broker_is_away(gateway: Gateway, mosquitto: Mosquitto) -> None:  # noqa: F811
    mosquitto.stop()
    wait_until(lambda: not answers(f"{gateway.url}/readyz"), "the gateway misses the broker")

    assert gateway.stop() == 0


def test_tls_with_an_authority_of_ones_own(bus: NatsServer, tmp_path: Path, needs_mosquitto: None) -> None:  # noqa: F811
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
            FABWAFER_FOREIGN_MQTT_URL=url,
            FABWAFER_FOREIGN_MQTT_CA_FILE=str(certificate),
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
        ("FABWAFER_FOREIGN_MQTT_URL", "broker:1883", "expected mqtt://USER:PASSWORD@HOST:PORT"),
        ("FABWAFER_FOREIGN_MQTT_URL", "mqtt://kim:secret@broker:port", "expected mqtt://USER:PASSWORD@HOST:PORT"),
        ("FABWAFER_GATEWAY_TOPICS", "fabwafer/#", "expected fabwafer/FAB/CAMERA/img/IMGID"),
        ("FABWAFER_GATEWAY_TOPICS", "", "expected fabwafer/FAB/CAMERA/img/IMGID"),
        ("FABWAFER_METRICS_PORT", "many", "FABWAFER_METRICS_PORT: Input should be a valid integer"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_one_sentence_and_no_traceback(variable: str, value: str, said: str) -> None:
    env = os.environ | {"FABWAFER_FOREIGN_MQTT_URL": "mqtt://broker", variable: value}
    done = subprocess.run(
        [sys.executable, "-m", "fabwafer.cli", "gateway"], env=env, capture_output=True, text=True, check=False
    )

    assert done.returncode != 0
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "secret" not in done.stderr


def test_topics_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FABWAFER_FOREIGN_MQTT_URL", "mqtt://broker")
    monkeypatch.setenv("FABWAFER_GATEWAY_TOPICS", "fabwafer/fab1/+/img/+, fabwafer/fab2/cam-1/prediction/+")

    assert GatewaySettings().gateway_topics == ("fabwafer/fab1/+/img/+", "fabwafer/fab2/cam-1/prediction/+")


def test_a_message_enters_as_the_listener_for_devices_stores_it() -> None:
    assert entering("fabwafer/f/c/img/i", b"body", MAX_PAYLOAD) == Outgoing(
        "$MQTT.msgs.fabwafer.f.c.img.i", b"body", {"Nmqtt-Pub": "1"}
    )
