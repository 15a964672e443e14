"""Classify: one image that the model server fails on never holds up the others, nor is it lost."""

import asyncio
import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import nats
import pytest

from fabwafer.maps.synthetic import sample
from fabwafer.maps.wafermap import encode
from fabwafer.messages.bodies import Image, ImageMetadata, read_stored_prediction
from fabwafer.messages.headers import Receipt
from fabwafer.records import Filter, Records, migrate
from fabwafer_bridge import dead_letters
from fabwafer_bridge.inference import AnswerError, read_answers
from fabwafer_bridge.jobs import BATCH_PIXELS, Job, in_pixels, predicted
from tests.support.devices import Device
from tests.support.nats_servers import NatsServer, add_device
from tests.support.proxy import Proxy
from tests.support.running import Bridge, ModelServer, wait_until


@pytest.fixture
def proxy(model_server: ModelServer) -> Iterator[Proxy]:
    running = Proxy(model_server.url)
    running.start()
    yield running
    running.stop()


def message(imgid: str, image: bytes, **more: object) -> bytes:
    return Image.of_file(image, imgid=imgid, timestamp=1700000000000, fab="faba", camera="camera1", **more).to_json()


@dataclass
class Running:
    """A bridge in front of whose model server there is a proxy, and a camera."""

    nats: NatsServer
    proxy: Proxy
    bridge: Bridge
    database_url: str

    def send(self, images: Sequence[bytes], **more: object) -> None:
        user, password = add_device(self.nats, "faba", "camera1")
        with Device(self.nats.mqtt_url, user, password) as device:
            for number, image in enumerate(images):
                device.publish(f"fabwafer/faba/camera1/img/w{number}", message(f"w{number}", image, **more))

    def predicted(self) -> list[str]:
        with Records(self.database_url) as records:
            return [wafer.imgid for wafer in records.wafers() if wafer.predictions]

    def letters(self, *, replay: bool = False) -> list[dead_letters.DeadLetter]:
        async def listed() -> list[dead_letters.DeadLetter]:
            client = await nats.connect(self.nats.url)
            try:
                js = client.jetstream()
                found = [letter async for letter in dead_letters.listed(js)]
                for letter in found if replay else []:
                    await dead_letters.replay(js, letter.id)
                return found
            finally:
                await client.close()

        return asyncio.run(listed())


@pytest.fixture
def running(tmp_path: Path, nats_server: NatsServer, proxy: Proxy) -> Iterator[Running]:
    database_url = f"sqlite:///{tmp_path / 'records.db'}"
    migrate(database_url)
    bridge = Bridge(tmp_path, nats_url=nats_server.url, inference_url=proxy.url, database_url=database_url)
    try:
        yield Running(nats_server, proxy, bridge.start(), database_url)
    finally:
        bridge.stop()


IMAGES = [encode(grid) for _, grid in sample(2, 6)]
OTHERS = ["w0", "w1", "w2", "w4", "w5"]


def test_an_image_that_kills_the_model_server_is_a_dead_letter_and_passes_when_replayed_to_a_mended_one(
    running: Running,
) -> None:
    running.proxy.poison.add(base64.b64encode(IMAGES[3]).decode())
    running.send(IMAGES)
    wait_until(lambda: running.predicted() == OTHERS, running.bridge.last_words)
    wait_until(lambda: len(running.letters()) == 1, running.bridge.last_words)
    (letter,) = running.letters()
    assert letter.subject == "fabwafer.faba.camera1.img.w3"
    assert "failed on it 5 times while it answered others" in letter.reason
    assert running.bridge.metric("fabwafer_dead_letters_total", reason="model_server_failed") == 1
    running.proxy.poison.clear()
    running.letters(replay=True)
    wait_until(lambda: len(running.predicted()) == 6, running.bridge.last_words)
    assert running.letters() == []


def test_an_image_that_the_model_refuses_passes_when_replayed_to_one_that_reads_it(running: Running) -> None:
    running.proxy.unreadable.add(base64.b64encode(IMAGES[3]).decode())
    note = "ü" * 5000  # escaped to ASCII, nearly as much as the header of an image may have
    running.send(IMAGES, note=note)
    wait_until(lambda: running.predicted() == OTHERS, running.bridge.last_words)
    wait_until(lambda: len(running.letters()) == 1, running.bridge.last_words)
    (letter,) = running.letters()
    assert letter.subject == "fabwafer.faba.camera1.img.w3"
    assert letter.reason == "expected an image that this version can read"
    bridge = running.bridge
    assert bridge.metric("fabwafer_dead_letters_total", reason="refused_by_model") == 1
    # Each message is counted once, by what became of it.
    wait_until(lambda: bridge.metric("fabwafer_messages_total", consumer="classify", result="passed") == 5, "counted")
    assert bridge.metric("fabwafer_messages_total", consumer="classify", result="dead") == 1
    running.proxy.unreadable.clear()
    running.letters(replay=True)
    wait_until(lambda: len(running.predicted()) == 6, running.bridge.last_words)
    assert running.letters() == []
    with Records(running.database_url) as records:
        assert records.image("faba", "camera1", "w3") == IMAGES[3]
        (wafer,) = records.wafers(Filter(imgid="w3"))
    assert {one.timestamp for one in wafer.predictions} == {1700000000000}
    assert {shot.extra["note"] for shot in wafer.shots} == {note}


def test_while_the_model_server_is_down_images_wait_and_none_is_blamed(
    tmp_path: Path, nats_server: NatsServer, model_server: ModelServer
) -> None:
    from fabwafer_local.ports import free_ports

    database_url = f"sqlite:///{tmp_path / 'records.db'}"
    migrate(database_url)
    (port,) = free_ports(1)
    bridge = Bridge(
        tmp_path, nats_url=nats_server.url, inference_url=f"http://127.0.0.1:{port}", database_url=database_url
    )
    later = Bridge(tmp_path, nats_url=nats_server.url, inference_url=model_server.url, database_url=database_url)

    def records() -> list[int]:
        with Records(database_url) as found:
            return [len(wafer.predictions) for wafer in found.wafers()]

    try:
        bridge.start()
        user, password = add_device(nats_server, "faba", "camera1")
        with Device(nats_server.mqtt_url, user, password) as device:
            for number, (_, grid) in enumerate(sample(2, 3)):
                device.publish(f"fabwafer/faba/camera1/img/w{number}", message(f"w{number}", encode(grid)))
        wait_until(lambda: records() == [0, 0, 0], bridge.last_words)
        wait_until(
            lambda: bridge.metric("fabwafer_messages_total", consumer="classify", result="retried") > 0,
            bridge.last_words,
        )
        assert bridge.metric("fabwafer_dead_letters_total") == 0
        assert bridge.stop() == 0
        later.start()
        wait_until(lambda: records() == [1, 1, 1], later.last_words)
    finally:
        bridge.stop()
        later.stop()


def job(pixels: int) -> Job:
    image = ImageMetadata(imgid="i", timestamp=1, fab="f", camera="c")
    return Job(image, None, Receipt(0, 0), message_id="m", pixels=pixels)  # type: ignore[arg-type]


def test_a_call_has_a_bounded_number_of_pixels_and_at_least_one_image() -> None:
    half = BATCH_PIXELS // 2
    calls = [[one.pixels for one in call] for call in in_pixels([job(half), job(half), job(1), job(2 * BATCH_PIXELS)])]
    assert calls == [[half, half], [1], [2 * BATCH_PIXELS]]
    assert list(in_pixels([])) == []


def response(**changed: object) -> bytes:
    """A V2 response about one image, some outputs changed."""
    counts = {"rows": 2, "columns": 2, "passed": 3, "failed": 1, "regions": 1, "largest": 1}
    data = {
        "label": ["Loc"],
        "probability": [0.9],
        "probabilities": [0.9, 0.1],
        "defect": [True],
        "wafer": [True],
        "review": [True],
        "review_reason": ["colours"],
        "error": ["got blue and yellow"],
        "embedding": [0.5, 0.25, 0.125],
        "map": [json.dumps(counts)],
        "model_version": ["1.0"],
        "model_digest": ["sha256:0"],
        "classes": ["Loc", "none"],
    }
    return json.dumps({"outputs": [{"name": name, "data": value} for name, value in (data | changed).items()]}).encode()


def test_an_answer_is_read_by_the_table_flat_or_nested() -> None:
    (flat,) = read_answers(response(), 1)
    assert (flat.label, flat.probabilities, flat.embedding) == ("Loc", {"Loc": 0.9, "none": 0.1}, [0.5, 0.25, 0.125])
    assert flat.map is not None
    assert flat.map.failed == 1
    assert read_answers(response(probabilities=[[0.9, 0.1]], embedding=[[0.5, 0.25, 0.125]]), 1) == [flat]
    assert read_answers(response(map=["null"]), 1)[0].map is None


def test_a_prediction_says_why_a_person_should_look() -> None:
    (answer,) = read_answers(response(), 1)
    prediction = predicted(job(1).image, answer)
    assert (prediction.review, prediction.review_reason) == (True, "colours")
    assert prediction.review_detail == "got blue and yellow"
    (sure,) = read_answers(response(review=[False], review_reason=[""], error=[""]), 1)
    assert predicted(job(1).image, sure).review_reason is None
    assert b"review_reason" not in predicted(job(1).image, sure).to_json()


def test_an_answer_of_a_model_server_that_gives_no_reason_is_read() -> None:
    outputs = [output for output in json.loads(response())["outputs"] if output["name"] != "review_reason"]
    (answer,) = read_answers(json.dumps({"outputs": outputs}).encode(), 1)
    assert (answer.review, answer.review_reason) == (True, None)
    assert predicted(job(1).image, answer).review_reason is None


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"label": ["ok"], "defect": [False]}, ("ok", False)),
        ({"label": ["None"], "defect": [False]}, ("none", False)),
        ({"label": ["not-a-wafer"], "wafer": [False], "defect": [True]}, ("not-a-wafer", False)),
        ({"label": ["streak"], "defect": [True]}, ("streak", True)),
    ],
)
def test_the_model_says_whether_its_class_is_a_defect(changed: dict[str, object], expected: tuple[str, bool]) -> None:
    image = ImageMetadata(imgid="img1", timestamp=1, fab="faba", camera="camera1")
    prediction = predicted(image, read_answers(response(**changed), 1)[0])
    assert (prediction.prediction, prediction.names_defect) == expected
    assert read_stored_prediction(prediction.to_json()).names_defect == expected[1]


@pytest.mark.parametrize(("label", "defect"), [("Loc", True), ("none", False)])
def test_a_model_server_of_an_earlier_release_leaves_it_to_the_name(label: str, defect: bool) -> None:
    body = json.loads(response(label=[label]))
    body["outputs"] = [output for output in body["outputs"] if output["name"] != "defect"]
    (answer,) = read_answers(json.dumps(body).encode(), 1)
    image = ImageMetadata(imgid="img1", timestamp=1, fab="faba", camera="camera1")
    assert predicted(image, answer).names_defect is defect


@pytest.mark.parametrize(
    "changed", [{"map": ['{"rows": 2}']}, {"map": ["{"]}, {"classes": ["Loc"]}, {"model_digest": []}, {"wafer": []}]
)
def test_an_answer_that_does_not_fit_together_is_none(changed: dict[str, object]) -> None:
    with pytest.raises(AnswerError, match="expected a V2 response"):
        read_answers(response(**changed), 1)


@pytest.mark.parametrize("raw", [b"", b"{}", b'{"outputs": []}', b'{"outputs": [{"name": "label", "data": ["Loc"]}]}'])
def test_an_answer_that_is_no_v2_response_says_what_was_expected(raw: bytes) -> None:
    with pytest.raises(AnswerError, match="expected a V2 response"):
        read_answers(raw, 1)
