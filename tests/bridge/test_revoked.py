"""What is measured of a camera goes when the camera is revoked."""

import asyncio
import json
from pathlib import Path

import nats
from nats.aio.client import Client

from fabwafer.messages.topics import Topic
from fabwafer.records import migrate
from fabwafer_bridge import metrics
from fabwafer_bridge.devices import Devices
from tests.support.nats_servers import NatsServer
from tests.support.running import Bridge, wait_until


async def predict(client: Client, camera: str) -> None:
    """Publishes a prediction as a device does."""
    topic = Topic("fab1", camera, "prediction", "w1")
    body = {
        "imgid": "w1",
        "timestamp": 1,
        "fab": "fab1",
        "camera": camera,
        "prediction": "Loc",
        "probability": 0.9,
    }
    await client.publish(topic.subject, json.dumps(body).encode())


def test_the_series_of_one_camera_go_and_those_of_others_stay() -> None:
    for camera in ("old", "other"):
        metrics.PREDICTIONS.labels("forget", camera, "v1", "Loc").inc()
        metrics.NOT_A_WAFER.labels("forget", camera).inc()
    metrics.CLOCK_SKEW_SECONDS.labels("forget").set(3600)
    metrics.forget_camera("forget", "old")
    found = {
        (sample.name, sample.labels.get("camera"))
        for metric in (metrics.PREDICTIONS, metrics.NOT_A_WAFER, metrics.CLOCK_SKEW_SECONDS)
        for family in metric.collect()
        for sample in family.samples
        if sample.labels["fab"] == "forget"
    }
    assert found == {("fabwafer_predictions_total", "other"), ("fabwafer_not_a_wafer_total", "other")}


async def test_a_bridge_forgets_the_series_of_a_camera_that_is_revoked(tmp_path: Path, nats_server: NatsServer) -> None:
    url = f"sqlite:///{tmp_path / 'records.db'}"
    migrate(url)
    bridge = Bridge(tmp_path, nats_url=nats_server.url, inference_url="http://127.0.0.1:9", database_url=url)
    client = await nats.connect(nats_server.url)
    try:
        await asyncio.to_thread(bridge.start)

        def cameras() -> set[str]:
            return {one.labels["camera"] for one in bridge.samples() if one.name == "fabwafer_predictions_total"}

        devices = await Devices.make(client, replicas=1)
        for camera in ("cam1", "cam2"):
            await devices.add("fab1", camera)
            await predict(client, camera)
        await client.flush()
        wait_until(lambda: cameras() == {"cam1", "cam2"}, "the predictions")
        await devices.revoke("fab1", "cam1")
        wait_until(lambda: cameras() == {"cam2"}, "the revoked camera's series to go")
    finally:
        await client.close()
        bridge.stop()
