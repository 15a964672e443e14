"""What is stated about a drawing's colours reaches the model server: by message, camera or fab; and what is doubted."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from fabwafer.maps.stated_colours import StatedColours
from fabwafer.maps.synthetic import make
from fabwafer.messages.bodies import ImageMetadata, read_image
from fabwafer.messages.refusals import MessageRefusedError
from fabwafer.messages.topics import Topic
from fabwafer.records import Drawing, Filter, PredictionRecord, Records, migrate
from fabwafer_bridge.drawings import Drawings
from tests.support.devices import Device
from tests.support.drawings import file, scheme
from tests.support.nats_servers import NatsServer, add_device
from tests.support.running import Bridge, ModelServer, wait_until

BLUE = StatedColours(passed=("#0000ff",), failed=("#ffff00",))
YELLOW = StatedColours(passed=("#ffff00",))
GRID = make(np.random.default_rng(4), "Edge-Ring", 40, 44)
IMAGE = file(scheme(GRID, "white, blue, yellow"))


def metadata(fab: str, camera: str, colours: StatedColours | None = None) -> ImageMetadata:
    return ImageMetadata(imgid="i", timestamp=1, fab=fab, camera=camera, colours=colours)


async def test_the_message_is_before_the_camera_and_the_camera_before_the_fab(records: Records) -> None:
    records.set_drawing(Drawing("f", None, BLUE))
    records.set_drawing(Drawing("f", "c", YELLOW))
    drawings = Drawings(records)
    await drawings.look()
    own = StatedColours(failed=("#123456",))
    assert drawings.stated(metadata("f", "c", own)) == own
    assert drawings.stated(metadata("f", "c")) == YELLOW
    assert drawings.stated(metadata("f", "d")) == BLUE
    assert drawings.stated(metadata("g", "c")) is None


def message(**more: object) -> bytes:
    fields = {"imgid": "i", "timestamp": 1, "fab": "f", "camera": "c", "bytes": base64.b64encode(IMAGE).decode()}
    return json.dumps(fields | more).encode()


def test_a_messages_colours_are_carried_on_and_wrong_ones_refused_with_the_field() -> None:
    topic = Topic("f", "c", "img", "i")
    read = read_image(topic, message(colours={"passed": "#00F", "failed": ["#ff0"]})).metadata
    assert read.colours == BLUE
    assert ImageMetadata.from_header(read.to_header()).colours == BLUE
    with pytest.raises(MessageRefusedError, match=r"field 'colours\.passed\.0': expected a colour as '#rrggbb'"):
        read_image(topic, message(colours={"passed": "blue"}))


def test_a_drawing_in_unknown_colours_goes_to_review_without_an_alert_until_they_are_stated(
    tmp_path: Path, nats_server: NatsServer, model_server: ModelServer
) -> None:
    database_url = f"sqlite:///{tmp_path / 'records.db'}"
    migrate(database_url)
    with Records(database_url) as records:
        records.set_drawing(Drawing("f", "stated", BLUE))
        bridge = Bridge(
            tmp_path, nats_url=nats_server.url, inference_url=model_server.url, database_url=database_url
        ).start()
        try:
            sent: dict[str, dict[str, object]] = {"stated": {}, "unknown": {}, "own": {"colours": {"passed": "#00f"}}}
            for camera, more in sent.items():
                user, password = add_device(nats_server, "f", camera)
                with Device(nats_server.mqtt_url, user, password) as device:
                    device.publish(f"fabwafer/f/{camera}/img/i", message(camera=camera, **more))
            wait_until(lambda: sum(len(record.predictions) for record in records.wafers()) == 3, bridge.last_words)
            found = {camera: _prediction(records, camera) for camera in ("stated", "unknown", "own")}
        finally:
            bridge.stop()
    assert (found["unknown"].review, found["unknown"].review_reason) == (True, "colours")
    assert "#0000ff was read as passed" in (found["unknown"].review_detail or "")
    assert not found["unknown"].alert
    for camera in ("stated", "own"):
        assert found[camera].review_reason != "colours"
        assert found[camera].map is not None
        assert found[camera].map == found["unknown"].map


def _prediction(records: Records, camera: str) -> PredictionRecord:
    (record,) = records.wafers(Filter(camera=camera))
    return record.predictions[0]
