"""What the cluster publishes goes out to the external broker, once, and does not come in again."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nats
import pytest
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from fabwafer.messages.bodies import Prediction
from fabwafer.messages.headers import SOURCE
from fabwafer.records import Records, migrate
from fabwafer_bridge import streams
from tests.support.gateways import Gateway, image, in_stream
from tests.support.mosquitto import Mosquitto, Publisher
from tests.support.nats_servers import NatsServer
from tests.support.running import Bridge, ModelServer, answers, wait_until


class Listener:
    """A listener on the external broker, for all predictions and alerts."""

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
def listener(mosquitto: Mosquitto) -> Iterator[Listener]:
    listener = Listener(mosquitto)
    yield listener
    listener.close()


def test_an_image_comes_back_as_a_prediction_and_goes_round_no_more(
    nats_server: NatsServer,
    mosquitto: Mosquitto,
    model_server: ModelServer,
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

    topic, answer = next(each for each in listener.heard if each[0].endswith("/w1") and "/prediction/" in each[0])
    assert topic == "fabwafer/fab1/cam1/prediction/w1"
    assert (answer["source"], answer["lot"], answer["timestamp"]) == ("cluster", "L7", 1_700_000_000_000)
    assert recorded == {("w1", "cluster", answer["model"]), ("own", "device", "own")}


def announce(bus: NatsServer, kind: str, imgid: str, headers: dict[str, str]) -> None:
    prediction = Prediction(
        imgid=imgid, timestamp=1, fab="fab1", camera="cam1", prediction="Loc", probability=0.9, source="cluster"
    )

    async def publish() -> None:
        client = await nats.connect(bus.url)
        await client.publish(f"fabwafer.fab1.cam1.{kind}.{imgid}", prediction.to_json(), headers=headers)
        await client.close()

    asyncio.run(publish())


def test_predictions_and_alerts_of_the_cluster_reach_listeners_on_the_external_broker_and_nothing_else_does(
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
    assert all(answer["prediction"] == "Loc" for _, answer in listener.heard)


def test_what_another_gateway_sent_out_does_not_come_in(gateway: Gateway, bus: NatsServer, camera: Publisher) -> None:
    prediction = Prediction(
        imgid="p1", timestamp=1, fab="fab1", camera="cam1", prediction="Loc", probability=0.9, source="cluster"
    )
    camera.publish("fabwafer/fab1/cam1/prediction/p1", prediction.to_json())
    camera.publish("fabwafer/fab1/cam1/prediction/p2", prediction.model_copy(update={"source": "device"}).to_json())

    wait_until(lambda: gateway.metric("ignored") == 1 and gateway.metric("passed") == 1, "both are seen")
    assert gateway.metric("ignored") == 1
    # p2 went in on its own topic; its body names the wafer.
    wait_until(lambda: in_stream(bus, streams.PREDICTIONS) == {"p1": 1}, "the device's arrives")


def test_predictions_wait_while_the_broker_is_away(
    gateway: Gateway,
    bus: NatsServer,
    mosquitto: Mosquitto,
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
