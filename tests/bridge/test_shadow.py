"""A candidate on trial gets its share of the images; whatever becomes of it, production does not notice."""

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import nats
import pytest

from fabwafer.maps.synthetic import sample
from fabwafer.maps.wafermap import encode
from fabwafer.messages.bodies import Image, ImageMetadata
from fabwafer.records import PredictionRecord, Records, migrate
from fabwafer_bridge import dead_letters
from fabwafer_bridge.trial import Trial, place_of
from fabwafer_handlers.management import Management
from fabwafer_local import torchserve
from tests.support import tiny_models
from tests.support.devices import Device
from tests.support.model_servers import TorchServe
from tests.support.nats_servers import NatsServer, add_device
from tests.support.proxy import Proxy
from tests.support.running import Bridge, wait_until

IMAGES = [encode(grid) for _, grid in sample(5, 8)]


class Trying:
    """A model server with a champion, a bridge that asks it, and records that name a candidate."""

    def __init__(self, directory: Path, bus: NatsServer, server: TorchServe, candidate_url: str) -> None:
        database_url = f"sqlite:///{directory / 'records.db'}"
        migrate(database_url)
        self.records = Records(database_url)
        self.bridge = Bridge(
            directory,
            nats_url=bus.url,
            inference_url=server.url,
            inference_key_file=server.key_file,
            database_url=database_url,
            candidate_url=candidate_url,
        )
        self._bus = bus
        self._sent = 0

    def __enter__(self) -> Self:
        self.bridge.start()
        self._device = Device(self._bus.mqtt_url, *add_device(self._bus, "faba", "camera1"))
        self._device.__enter__()
        self._device.subscribe("fabwafer/faba/camera1/prediction/#")
        return self

    def __exit__(self, *_: object) -> None:
        self._device.__exit__(None, None, None)
        self.bridge.stop()
        self.records.close()

    def try_out(self, candidate: str | None, share: float = 1.0) -> None:
        """Names the candidate, and returns when the bridge knows it."""
        known = self._trials()
        self.records.set_rollout("tiny-1", candidate=candidate, share=share if candidate else 0.0, author="kim")
        wait_until(lambda: self._trials() > known, self.bridge.last_words)

    def _trials(self) -> int:
        return self.bridge.log.read_text().count('"event": "trial"')

    def send(self) -> None:
        """Sends all images, and waits for what the champion says of them."""
        for number, image in enumerate(IMAGES):
            body = Image.of_file(
                image, imgid=f"w{self._sent}-{number}", timestamp=1_700_000_000_000, fab="faba", camera="camera1"
            ).to_json()
            assert self._device.publish(f"fabwafer/faba/camera1/img/w{self._sent}-{number}", body)
        self._sent += 1
        wait_until(lambda: len(self.said_by("tiny-1")) == self._sent * len(IMAGES), self.bridge.last_words)

    def said_by(self, model: str) -> list[PredictionRecord]:
        return [said for wafer in self.records.wafers() for said in wafer.predictions if said.model == model]

    def heard(self) -> list[bytes]:
        return [body for _, body in self._device.received]

    def dropped(self) -> float:
        return self.bridge.metric("fabwafer_messages_total", consumer="shadow", result="dropped")


@pytest.fixture(scope="module")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TorchServe]:
    """Answers with tiny-1; holds tiny-2 as well."""
    directory = tmp_path_factory.mktemp("trial")
    running = TorchServe(directory / "torchserve", tiny_model)
    try:
        running.start()
        other = torchserve.build_archive(running.directory, tiny_models.make(directory / "tiny-2", "tiny-2", seed=3))
        asyncio.run(Management(running.management, running.key_file).load(other.name))
        yield running
    finally:
        running.stop()


@pytest.fixture
def trying(tmp_path: Path, nats_server: NatsServer, server: TorchServe) -> Iterator[Trying]:
    with Trying(tmp_path, nats_server, server, torchserve.candidate_url(server.url)) as running:
        yield running


def letters(bus: NatsServer) -> int:
    async def count() -> int:
        client = await nats.connect(bus.url)
        try:
            return len([letter async for letter in dead_letters.listed(client.jetstream())])
        finally:
            await client.close()

    return asyncio.run(count())


def test_what_a_candidate_says_is_recorded_and_nobody_hears_it(trying: Trying) -> None:
    trying.try_out("tiny-2")
    trying.send()
    wait_until(lambda: len(trying.said_by("tiny-2")) == len(IMAGES), trying.bridge.last_words)
    assert all(said.shadow and not said.alert for said in trying.said_by("tiny-2"))
    assert {wafer.current.model for wafer in trying.records.wafers() if wafer.current} == {"tiny-1"}
    wait_until(lambda: len(trying.heard()) == len(IMAGES), "the champion's predictions on MQTT")
    assert not any(b"tiny-2" in body for body in trying.heard())
    assert trying.bridge.metric("fabwafer_predictions_total", model="tiny-2") == 0
    wait_until(  # counted after they are stored
        lambda: trying.bridge.metric("fabwafer_shadow_predictions_total", model="tiny-2") == len(IMAGES),
        trying.bridge.last_words,
    )
    assert len(trying.records.compared("tiny-2")) == len(IMAGES)


def test_no_image_goes_to_a_candidate_without_a_trial_or_after_it(trying: Trying) -> None:
    trying.send()
    trying.try_out("tiny-2")
    trying.try_out(None)
    trying.send()
    trying.try_out("tiny-2", share=0.0)
    trying.send()
    trying.try_out(None)
    trying.try_out("tiny-2")
    trying.send()
    # Whatever had been copied before stands before these in the stream.
    wait_until(lambda: len(trying.said_by("tiny-2")) >= len(IMAGES), trying.bridge.last_words)
    assert len(trying.said_by("tiny-2")) == len(IMAGES)
    wait_until(
        lambda: trying.bridge.metric("fabwafer_messages_total", consumer="shadow") == len(IMAGES),
        trying.bridge.last_words,
    )


def test_while_a_candidate_is_not_there_production_goes_on_and_its_images_wait(
    trying: Trying, server: TorchServe, tmp_path: Path
) -> None:
    trying.try_out("tiny-3")
    trying.send()
    trying.send()
    assert trying.said_by("tiny-3") == []
    late = torchserve.build_archive(server.directory, tiny_models.make(tmp_path / "tiny-3", "tiny-3", seed=4))
    asyncio.run(Management(server.management, server.key_file).load(late.name))
    wait_until(lambda: len(trying.said_by("tiny-3")) == 2 * len(IMAGES), trying.bridge.last_words)


def test_images_that_wait_are_dropped_when_the_trial_ends(trying: Trying, nats_server: NatsServer) -> None:
    trying.try_out("never-there")
    trying.send()
    wait_until(
        lambda: trying.bridge.metric("fabwafer_messages_total", consumer="shadow", result="retried") > 0,
        trying.bridge.last_words,
    )
    trying.try_out(None)
    wait_until(lambda: trying.dropped() == len(IMAGES), trying.bridge.last_words)
    assert letters(nats_server) == 0


def test_an_image_that_a_candidate_fails_on_is_dropped_and_its_neighbours_are_answered(
    tmp_path: Path, nats_server: NatsServer, server: TorchServe
) -> None:
    proxy = Proxy(server.url)
    proxy.start()
    proxy.poison.add(base64.b64encode(IMAGES[3]).decode())
    try:
        with Trying(tmp_path, nats_server, server, torchserve.candidate_url(proxy.url)) as trying:
            trying.try_out("tiny-2")
            trying.send()
            wait_until(lambda: trying.dropped() == 1, trying.bridge.last_words)
            wait_until(lambda: len(trying.said_by("tiny-2")) == len(IMAGES) - 1, trying.bridge.last_words)
            assert letters(nats_server) == 0
    finally:
        proxy.stop()


def test_the_answers_of_another_version_are_not_taken_for_the_candidates(
    tmp_path: Path, nats_server: NatsServer, server: TorchServe
) -> None:
    with Trying(tmp_path, nats_server, server, f"{server.url}/v2/models/wafer/infer") as trying:
        trying.try_out("tiny-2")
        trying.send()
        wait_until(lambda: "got those of tiny-1" in trying.bridge.last_words(), trying.bridge.last_words)
        assert trying.said_by("tiny-2") == []
        assert len(trying.said_by("tiny-1")) == len(IMAGES)


def image(imgid: str, timestamp: int = 1) -> ImageMetadata:
    return ImageMetadata(imgid=imgid, timestamp=timestamp, fab="f", camera="c")


def test_a_share_takes_as_many_wafers_and_all_shots_of_each() -> None:
    places = [place_of(image(f"w{number}")) for number in range(4000)]
    assert sum(place < 0.1 for place in places) == pytest.approx(400, abs=60)
    assert sum(place < 0.5 for place in places) == pytest.approx(2000, abs=100)
    assert all(0 <= place < 1 for place in places)
    assert place_of(image("w1", timestamp=2)) == places[1]


def test_records_that_do_not_answer_leave_the_trial_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fabwafer_bridge.trial.LOOK_SECONDS", 0.01)
    file = tmp_path / "records.db"
    migrate(f"sqlite:///{file}")

    async def watched() -> tuple[bool, bool]:
        with Records(f"sqlite:///{file}") as records:
            records.set_rollout("v1", candidate="v2", share=1.0, author="kim")
            trial = Trial(records)
            following = asyncio.create_task(trial.follow())
            await asyncio.to_thread(wait_until, lambda: trial.candidate == "v2", "the trial")
            before = trial.takes(image("w1"))
            records.close()
            file.rename(tmp_path / "gone.db")
            file.mkdir()
            await asyncio.sleep(0.3)
            still = trial.takes(image("w1")) and not following.done()
            following.cancel()
        return before, still

    assert asyncio.run(watched()) == (True, True)
