"""A wafer's way through the real parts: MQTT, NATS, bridge, TorchServe, records."""

import base64
import io
import json
import struct
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
import pytest
from PIL import Image as Picture
from PIL import ImageDraw

from fabwafer.maps.synthetic import sample
from fabwafer.maps.wafermap import encode
from fabwafer.models.card import read_card
from fabwafer.models.shipped import default_model
from fabwafer.records import Filter, Records, WaferRecord, migrate
from fabwafer_bridge import dead_letters, streams
from fabwafer_bridge.settings import StreamSettings
from tests.support.devices import Device
from tests.support.nats_servers import NatsServer, add_device
from tests.support.running import Bridge, ModelServer, wait_until

SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "samples"


@dataclass
class Running:
    """A system with one bridge, and a way to look at what it did."""

    nats: NatsServer
    bridge: Bridge
    database_url: str
    cameras: int = 0

    def device(self, fab: str = "faba") -> tuple[Device, str]:
        """A camera of its own for a test, so that tests share nothing."""
        self.cameras += 1
        camera = f"cam{self.cameras}"
        user, password = add_device(self.nats, fab, camera)
        return Device(self.nats.mqtt_url, user, password), camera

    def records(self, camera: str) -> list[WaferRecord]:
        with Records(self.database_url) as records:
            return list(records.wafers(Filter(camera=camera)))

    def letters(self) -> list[dead_letters.DeadLetter]:
        import asyncio

        async def listed() -> list[dead_letters.DeadLetter]:
            client = await nats.connect(self.nats.url)
            try:
                return [letter async for letter in dead_letters.listed(client.jetstream())]
            finally:
                await client.close()

        return asyncio.run(listed())


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, model_server: ModelServer) -> Iterator[Running]:
    directory = tmp_path_factory.mktemp("flow")
    database_url = f"sqlite:///{directory / 'records.db'}"
    migrate(database_url)
    with NatsServer(directory / "nats") as server:
        bridge = Bridge(
            directory,
            nats_url=server.url,
            inference_url=model_server.url,
            database_url=database_url,
            portal_url="https://portal.example",
        )
        try:
            yield Running(server, bridge.start(), database_url)
        finally:
            bridge.stop()


@pytest.fixture
async def bus(running: Running) -> AsyncIterator[Any]:
    client = await nats.connect(running.nats.url)
    yield client
    await client.close()


def wafer_image(number: int = 0) -> bytes:
    return encode(sample(seed=5, n=number + 1)[number][1])


def image_message(camera: str, imgid: str, data: bytes, fab: str = "faba", **more: object) -> str:
    return json.dumps(
        {
            "imgid": imgid,
            "timestamp": 1554134552946,
            "fab": fab,
            "camera": camera,
            "bytes": base64.b64encode(data).decode(),
            **more,
        }
    )


def icon() -> bytes:
    """A picture that is no wafer map: an arrow on a rounded square."""
    picture = Picture.new("RGB", (150, 150), "white")
    draw = ImageDraw.Draw(picture)
    draw.rounded_rectangle((10, 10, 140, 140), 25, fill=(30, 90, 200))
    draw.polygon([(40, 75), (80, 35), (80, 60), (115, 60), (115, 90), (80, 90), (80, 115)], fill="white")
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def predicted(running: Running, camera: str, count: int) -> list[WaferRecord]:
    """Wait until so many wafers of a camera are recorded with image and prediction: two consumers store them."""

    def done() -> bool:
        records = running.records(camera)
        return len(records) >= count and all(record.shots and record.predictions for record in records)

    wait_until(done, running.bridge.last_words)
    return running.records(camera)


def test_an_image_comes_back_as_a_prediction_on_mqtt_and_stands_in_the_records(running: Running) -> None:
    device, camera = running.device()
    with device:
        device.subscribe(f"fabwafer/faba/{camera}/#")
        assert device.publish(f"fabwafer/faba/{camera}/img/w1", image_message(camera, "w1", wafer_image(), lot="L9"))
        (record,) = predicted(running, camera, 1)
        wait_until(lambda: any("/prediction/" in topic for topic, _ in device.received), "the prediction on MQTT")
    answer = next(json.loads(body) for topic, body in device.received if topic.endswith("/prediction/w1"))
    (prediction,) = record.predictions
    assert (prediction.source, prediction.prediction) == ("cluster", answer["prediction"])
    assert prediction.timestamp == record.shots[0].timestamp == 1554134552946
    assert prediction.wafer is True
    assert prediction.map is not None
    assert answer["map"]["failed"] == prediction.map.failed
    assert (answer["lot"], answer["source"], answer["model"]) == ("L9", "cluster", prediction.model)
    with Records(running.database_url) as records:
        assert records.image("faba", camera, "w1") == wafer_image()


@pytest.mark.parametrize("between", ["\n", "\r\n", "\u00a0"], ids=ascii)
def test_an_image_whose_base64_has_white_space_gets_its_prediction(between: str, running: Running) -> None:
    device, camera = running.device()
    message = json.loads(image_message(camera, "w1", wafer_image()))
    letters = message["bytes"]
    message["bytes"] = between.join(letters[i : i + 76] for i in range(0, len(letters), 76))
    assert between in message["bytes"]
    with device:
        device.publish(f"fabwafer/faba/{camera}/img/w1", json.dumps(message, ensure_ascii=False))
        (record,) = predicted(running, camera, 1)
    assert [prediction.wafer for prediction in record.predictions] == [True]
    with Records(running.database_url) as records:
        assert records.image("faba", camera, "w1") == wafer_image()


def test_an_alert_is_published_once_with_its_cause_and_page(running: Running) -> None:
    device, camera = running.device()
    body = {"imgid": "a1", "timestamp": 1, "fab": "faba", "camera": camera, "prediction": "scratch", "probability": 0.8}
    with device:
        device.subscribe(f"fabwafer/faba/{camera}/alert/+")
        device.publish(f"fabwafer/faba/{camera}/prediction/a1", json.dumps(body))
        device.publish(f"fabwafer/faba/{camera}/prediction/a1", json.dumps(body))
        device.publish(f"fabwafer/faba/{camera}/prediction/a2", json.dumps(body | {"imgid": "a2"}))
        wait_until(lambda: len(device.received) >= 2, "both alerts")
    alerts = [json.loads(payload) for _, payload in device.received]
    assert sorted(alert["imgid"] for alert in alerts) == ["a1", "a2"]
    assert {alert["cause"] for alert in alerts} == {"handling"}
    assert alerts[0]["url"] == f"https://portal.example/wafers/faba/{camera}/{alerts[0]['imgid']}"
    assert (alerts[0]["prediction"], alerts[0]["threshold"]) == ("Scratch", 0.5)


def test_the_messages_of_devices_in_the_field_are_taken_as_they_are(running: Running) -> None:
    device, camera = running.device()

    def prediction(imgid: str, label: str, probability: object, timestamp: object) -> str:
        return json.dumps(
            {
                "imgid": imgid,
                "timestamp": timestamp,
                "fab": "faba",
                "camera": camera,
                "prediction": label,
                "probability": probability,
            }
        )

    with device:
        for message in (
            prediction("img1", "none", 0.9, 1554134552944),
            prediction("img2", "loc", 0.4, 1554134552945),
            prediction("img3", "loc", 0.9, 1554134552946),
            prediction("img4", "loc", 50.0, "1554134552"),
        ):
            device.publish(f"fabwafer/faba/{camera}/prediction/img1", message)
        device.publish(f"fabwafer/faba/{camera}/img/img3", image_message(camera, "img3", icon()))
        wait_until(
            lambda: [len(record.predictions) for record in running.records(camera)] == [1, 1, 2, 1],
            running.bridge.last_words,
        )
    by_id = {record.imgid: record for record in running.records(camera)}
    assert {
        imgid: [p.alert for p in record.predictions if p.source == "device"] for imgid, record in by_id.items()
    } == {
        "img1": [False],
        "img2": [False],
        "img3": [True],
        "img4": [True],
    }
    (of_cluster,) = (p for p in by_id["img3"].predictions if p.source == "cluster")
    assert (of_cluster.prediction, of_cluster.wafer, of_cluster.alert) == ("not-a-wafer", False, False)
    assert [p.probability for p in by_id["img4"].predictions] == [0.5]
    assert by_id["img4"].predictions[0].wafer is None


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="needs the workshop's messages in ../shared/samples")
def test_the_workshops_own_messages_are_taken(running: Running) -> None:
    user, password = add_device(running.nats, "faba", "camera1")
    with Device(running.nats.mqtt_url, user, password) as device:
        for number in (1, 2, 3):
            content = (SAMPLES / f"prediction-img{number}.json").read_bytes()
            assert device.publish("fabwafer/faba/camera1/prediction/img1", content)
        device.publish("fabwafer/faba/camera1/img/img3", (SAMPLES / "image-img3.json").read_bytes())
        wait_until(
            lambda: sum(len(r.predictions) for r in running.records("camera1") if r.imgid[:3] == "img") >= 4, "all"
        )
    recorded = {
        (record.imgid, p.source): (p.prediction, p.alert)
        for record in running.records("camera1")
        if record.imgid[:3] == "img"
        for p in record.predictions
    }
    assert recorded == {
        ("img1", "device"): ("none", False),
        ("img2", "device"): ("Loc", False),
        ("img3", "device"): ("Loc", True),
        ("img3", "cluster"): ("not-a-wafer", False),
    }


def _truncated_png() -> bytes:
    return wafer_image()[:-20]


def _png_bomb(side: int) -> bytes:
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    row = zlib.compress(b"\0" * 100_000)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", row) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (lambda camera: b'{"imgid": ', "expected JSON"),
        (lambda camera: b"\x00\xff\x00", "expected JSON"),
        (lambda camera: json.dumps({"imgid": "x", "fab": "faba", "camera": camera}), "missing"),
        (lambda camera: image_message(camera, "x", b"").replace('"bytes": ""', '"bytes": "@@"'), "base64"),
        (lambda camera: image_message(camera, "x", b""), "expected"),
        (lambda camera: image_message(camera, "x", _truncated_png()), "whole PNG"),
        (lambda camera: image_message(camera, "x", _png_bomb(12_000)), "12000"),
        (lambda camera: image_message(camera, "x", _png_bomb(20_000)), "20000"),
        (lambda camera: image_message(camera, "x", bytes(range(256)) * 20_000), "bytes"),
        (lambda camera: image_message(camera, "x", wafer_image(), fab="fabb"), "must agree"),
        (lambda camera: image_message("another", "x", wafer_image()), "must agree"),
        (lambda camera: image_message(camera, "x", wafer_image(), note="x" * 33_000), "besides 'bytes'"),
        (lambda camera: image_message(camera, "x.y", wafer_image()), "imgid"),
        (lambda camera: image_message(camera, "*", wafer_image()), "imgid"),
        (lambda camera: image_message(camera, ">", wafer_image()), "imgid"),
        (lambda camera: image_message(camera, "🙂", wafer_image()), "imgid"),
    ],
    ids=[
        "broken JSON",
        "bytes",
        "missing fields",
        "bad base64",
        "no image",
        "truncated PNG",
        "bomb of 12,000",
        "bomb of 20,000",
        "5 MB of noise",
        "another fab",
        "another camera",
        "33 KB of fields",
        "dot",
        "star",
        "greater",
        "emoji",
    ],
)
def test_what_is_refused_is_a_dead_letter_with_the_reason_and_the_next_image_passes(
    payload: Any, reason: str, running: Running
) -> None:
    device, camera = running.device()
    with device:
        device.publish(f"fabwafer/faba/{camera}/img/bad", payload(camera))
        device.publish(f"fabwafer/faba/{camera}/img/good", image_message(camera, "good", wafer_image()))
        (record,) = predicted(running, camera, 1)
    assert record.imgid == "good"

    def refused() -> list[dead_letters.DeadLetter]:
        return [letter for letter in running.letters() if letter.subject == f"fabwafer.faba.{camera}.img.bad"]

    wait_until(lambda: bool(refused()), "the dead letter")
    (letter,) = refused()
    assert reason in letter.reason


def test_a_refused_message_is_kept_whole_and_can_be_replayed(running: Running) -> None:
    import asyncio

    device, camera = running.device()
    # The topic's fab cannot be spoken for by this body; replayed it is refused again, as a letter of its own.
    with device:
        device.publish(f"fabwafer/faba/{camera}/img/r1", image_message(camera, "r1", wafer_image(), fab="fabb"))

    def mine() -> list[dead_letters.DeadLetter]:
        return [letter for letter in running.letters() if letter.subject == f"fabwafer.faba.{camera}.img.r1"]

    wait_until(lambda: len(mine()) == 1, "the dead letter")
    (first,) = mine()

    async def replayed() -> str:
        client = await nats.connect(running.nats.url)
        try:
            return await dead_letters.replay(client.jetstream(), first.id)
        finally:
            await client.close()

    assert asyncio.run(replayed()) == f"$MQTT.msgs.fabwafer.faba.{camera}.img.r1"
    wait_until(lambda: [letter.id for letter in mine()] not in ([], [first.id]), "its return as a new letter")
    assert len(mine()) == 1


async def test_a_dead_letter_passes_when_it_is_replayed_after_what_was_wrong_is_mended(
    running: Running, bus: Any
) -> None:
    import asyncio

    js = bus.jetstream()
    camera = "mended"
    good = image_message(camera, "m1", wafer_image()).encode()
    letter = dead_letters.letter(
        "intake",
        subject=f"fabwafer.faba.{camera}.img.m1",
        origin=f"$MQTT.msgs.fabwafer.faba.{camera}.img.m1",
        payload=good,
        reason="refused by an older version",
        code=dead_letters.Reason.FIELD,
        message_id="older",
        headers={},
    )
    stored = await js.publish(letter.subject, letter.payload, headers=letter.headers)
    await dead_letters.replay(js, stored.seq)
    await asyncio.to_thread(predicted, running, camera, 1)
    assert [one async for one in dead_letters.listed(js) if one.id == stored.seq] == []


async def test_native_publishers_and_qos_0_are_taken_best_effort(running: Running, bus: Any) -> None:
    import asyncio

    device, camera = running.device()
    with device:
        device.publish(f"fabwafer/faba/{camera}/img/q0", image_message(camera, "q0", wafer_image()), qos=0)
        await bus.publish(
            f"fabwafer.faba.{camera}.img.native", image_message(camera, "native", wafer_image(1)).encode()
        )
        records = await asyncio.to_thread(predicted, running, camera, 2)
    assert sorted(record.imgid for record in records) == ["native", "q0"]
    assert [len(record.predictions) for record in records] == [1, 1]


def test_an_image_sent_twice_is_one_record_with_one_prediction(running: Running) -> None:
    device, camera = running.device()
    with device:
        for _ in range(3):
            device.publish(f"fabwafer/faba/{camera}/img/t1", image_message(camera, "t1", wafer_image()))
        device.publish(f"fabwafer/faba/{camera}/img/t2", image_message(camera, "t2", wafer_image()))
        records = predicted(running, camera, 2)
    assert [(record.imgid, len(record.shots), len(record.predictions)) for record in records] == [
        ("t1", 1, 1),
        ("t2", 1, 1),
    ]


def test_another_image_under_the_same_name_is_a_later_shot(running: Running) -> None:
    device, camera = running.device()
    later = json.loads(image_message(camera, "s1", wafer_image(1))) | {"timestamp": 1554134552000}
    with device:
        device.publish(f"fabwafer/faba/{camera}/img/s1", image_message(camera, "s1", wafer_image()))
        predicted(running, camera, 1)
        device.publish(f"fabwafer/faba/{camera}/img/s1", json.dumps(later))
        wait_until(
            lambda: [(len(one.shots), len(one.predictions)) for one in running.records(camera)] == [(2, 2)],
            "the second shot and its prediction, which two consumers store",
        )
    (record,) = running.records(camera)
    # By order of receipt: this device's clock went backwards.
    assert record.timestamp == 1554134552000


async def test_a_device_that_retains_its_images_cannot_fill_the_disk(running: Running, bus: Any) -> None:
    import asyncio

    device, camera = running.device()

    def retain() -> None:
        with device:
            sent = device.client.publish(
                f"fabwafer/faba/{camera}/img/k", image_message(camera, "k", wafer_image()), 1, True
            )
            sent.wait_for_publish(30)
            assert sent.is_published()
            predicted(running, camera, 1)

    await asyncio.to_thread(retain)
    retained = await bus.jetstream().stream_info(streams.RETAINED)
    assert retained.state.messages == 1
    assert retained.config.max_msgs_per_subject == 1
    assert 0 < retained.config.max_bytes <= StreamSettings().stream_max_bytes // streams.SIDE_SHARE


def test_metrics_and_health_tell_what_happened(running: Running) -> None:
    device, camera = running.device(fab="fabm")
    with device:
        device.publish(f"fabwafer/fabm/{camera}/img/g1", image_message(camera, "g1", wafer_image(), fab="fabm"))
        device.publish(f"fabwafer/fabm/{camera}/img/g2", image_message(camera, "g2", icon(), fab="fabm"))
        predicted(running, camera, 2)
    bridge = running.bridge
    # Record counts predictions, classify the others.
    for name, labels, count in (
        ("fabwafer_predictions_total", {"camera": camera}, 2),
        ("fabwafer_not_a_wafer_total", {"camera": camera}, 1),
        ("fabwafer_end_to_end_seconds_count", {"fab": "fabm"}, 2),
    ):
        wait_until(lambda: bridge.metric(name, **labels) == count, name)  # noqa: B023 - called within the loop
    assert bridge.metric("fabwafer_inference_seconds_count") > 0
    card = read_card(default_model())
    assert bridge.metric("fabwafer_model_info", version=card.version, digest=card.digest) == 1
    assert bridge.metric("fabwafer_model_info") == 1
    assert bridge.metric("fabwafer_messages_total", consumer="intake", result="passed") >= 2
    wait_until(lambda: bridge.metric("fabwafer_consumer_lag", consumer="record-predictions") == 0, "no lag")
    assert 0 <= bridge.metric("fabwafer_stream_fill_ratio", stream="IMAGES") < 0.01
