"""The intake takes an image message apart once: its file and its fields go on, each in one place."""

import base64
import json

import pytest

from fabwafer.maps.synthetic import sample
from fabwafer.maps.wafermap import encode
from fabwafer.messages.bodies import ImageMetadata
from fabwafer.messages.headers import MESSAGE, MESSAGE_ID, PIXELS, Receipt
from fabwafer_bridge.intake import checked
from fabwafer_bridge.publisher import Outgoing

FILE = encode(sample(1, 1)[0][1])
EARLY = Receipt(1, 1)


def taken(file: bytes = FILE, receipt: Receipt = EARLY, replay: str = "", **more: object) -> Outgoing:
    fields = {"imgid": "w", "timestamp": 5, "fab": "f", "camera": "c", "bytes": base64.b64encode(file).decode(), **more}
    return checked("fabwafer.f.c.img.w", json.dumps(fields).encode(), receipt, replay)


def test_an_image_goes_on_as_its_file_with_its_fields_in_a_header() -> None:
    outgoing = taken(receipt=Receipt(7, 8), lot="Los Größe", note={"deep": [1]})
    assert (outgoing.subject, outgoing.payload) == ("fabwafer-images.f.c.w", FILE)
    assert Receipt.from_headers(outgoing.headers, otherwise=0) == Receipt(7, 8)
    assert int(outgoing.headers[PIXELS]) > 0
    fields = json.loads(outgoing.headers[MESSAGE])
    assert fields == {
        "imgid": "w", "timestamp": 5000, "fab": "f", "camera": "c", "lot": "Los Größe", "note": {"deep": [1]}
    }  # fmt: skip
    read = ImageMetadata.from_header(outgoing.headers[MESSAGE])
    assert (read.timestamp, read.lot, read.model_extra) == (5000, "Los Größe", {"note": {"deep": [1]}})


def test_what_a_device_sends_again_has_the_same_id_and_anything_else_another() -> None:
    first = taken().headers[MESSAGE_ID]
    assert taken(receipt=Receipt(2, 2)).headers[MESSAGE_ID] == first
    others = [taken(timestamp=6), taken(lot="L"), taken(encode(sample(2, 1)[0][1])), taken(replay="replay:1:")]
    assert len({first, *(one.headers[MESSAGE_ID] for one in others)}) == 5


@pytest.mark.parametrize("name", ["source", "wafer", "map"])
def test_a_device_prediction_goes_on_as_the_devices_own(name: str) -> None:
    fields = {"imgid": "w", "timestamp": 5, "fab": "f", "camera": "c", "prediction": "loc", "probability": 0.9}
    payload = json.dumps(fields | {name: {"source": "cluster", "wafer": False, "map": None}[name]}).encode()
    outgoing = checked("fabwafer.f.c.prediction.w", payload, Receipt(1, 1))
    assert outgoing.subject == "fabwafer-predictions.device.f.c.w"
    assert json.loads(outgoing.payload)["source"] == "device"
    assert MESSAGE not in outgoing.headers
