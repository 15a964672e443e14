"""What the bridge counts and logs stays bounded, whatever a device sends, and says what happened."""

import asyncio
import base64
import io
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import get_args

import nats
import pytest
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from PIL import Image as Picture
from prometheus_client import REGISTRY

from fabwafer.maps.image_file import MAX_BYTES, BadImageError
from fabwafer.maps.synthetic import sample
from fabwafer.maps.wafermap import encode
from fabwafer.messages.headers import Receipt
from fabwafer.messages.refusals import MessageRefusedError, RefusalCode
from fabwafer.records import Records, migrate
from fabwafer.service.logs import RateLimitedLog
from fabwafer_bridge import dead_letters, metrics, record, retention, streams
from fabwafer_bridge.consumer import refusal
from fabwafer_bridge.dead_letters import Reason
from fabwafer_bridge.intake import checked
from tests.support.nats_servers import NatsServer
from tests.support.records import predicted, shot
from tests.support.running import Bridge, wait_until

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    """The URL of a database with tables and nothing in them."""
    url = f"sqlite:///{tmp_path / 'records.db'}"
    migrate(url)
    return url


def counted(name: str, **labels: str) -> dict[tuple[str, str], float]:
    """The samples of this process that bear these labels, by model (where there is one) and class."""
    return {
        (sample.labels.get("model", ""), sample.labels["class"]): sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    }


def test_the_free_text_of_a_device_makes_no_time_series_of_its_own(sqlite: str) -> None:
    with Records(sqlite) as records:
        store = record.store_predictions(records, lambda: None)
        store(
            [
                predicted(f"idea {n}", fab="free", source="device", model=f"mood {n}", imgid=f"i{n}", timestamp=n)
                for n in range(30)
            ]
        )
        store([predicted("Loc", fab="free", source="device", model="mood", imgid="loc")])
    assert counted("fabwafer_predictions_total", fab="free") == {("device", "other"): 30, ("device", "Loc"): 1}
    assert counted("fabwafer_alerts_total", fab="free") == {("", "other"): 30, ("", "Loc"): 1}
    assert not [one for one in counted("fabwafer_prediction_probability_count") if "mood" in one[0] or "idea" in one[1]]


def test_a_class_that_a_cluster_model_answered_with_is_counted_under_its_name(sqlite: str) -> None:
    with Records(sqlite) as records:
        store = record.store_predictions(records, lambda: None)
        store([predicted("Spiral", fab="own", source="device", model="edge", imgid="before")])
        store([predicted("Spiral", fab="own", model="v7")])
        store([predicted("Spiral", fab="own", source="device", model="edge", imgid="after")])
    assert counted("fabwafer_predictions_total", fab="own") == {
        ("device", "other"): 1,
        ("v7", "Spiral"): 1,
        ("device", "Spiral"): 1,
    }


def test_what_is_delivered_again_is_not_counted_again(sqlite: str) -> None:
    with Records(sqlite) as records:
        store = record.store_predictions(records, lambda: None)
        store(
            [predicted("Loc", fab="again", model="v-again"), predicted("Loc", fab="again", model="v-again", sequence=2)]
        )
        store(
            [
                predicted("Loc", fab="again", model="v-again"),
                predicted("Donut", fab="again", model="v-again", imgid="new"),
            ]
        )
    assert counted("fabwafer_predictions_total", fab="again") == {("v-again", "Loc"): 1, ("v-again", "Donut"): 1}
    observed = counted("fabwafer_prediction_probability_count", model="v-again")
    assert observed == {("v-again", "Loc"): 1, ("v-again", "Donut"): 1}


def test_all_pending_alerts_are_in_the_gauge_not_only_those_sent_at_once(
    nats_server: NatsServer,
    sqlite: str,
    tmp_path: Path,
) -> None:
    with Records(sqlite) as records:
        records.store_predictions([predicted(imgid=f"i{n}") for n in range(250)])
    worker = Bridge(
        tmp_path / "bridge",
        nats_url=nats_server.url,
        inference_url=NOWHERE,
        database_url=sqlite,
        only="alert",
        webhook_url=f"{NOWHERE}/nobody",
    )
    try:
        worker.start()
        wait_until(lambda: worker.metric("fabwafer_consumer_lag", consumer="alert") == 250, worker.last_words)
    finally:
        worker.stop()


async def test_retention_waits_for_a_database_that_is_away(
    tmp_path: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "RETRY", 0.05)
    with Records(sqlite) as before:
        before.store_shots([shot(received=1)])
    away = tmp_path / "away"
    with Records(f"sqlite:///{away / 'records.db'}") as records:
        task = asyncio.create_task(retention.forget("images", records.forget_images, 1, asyncio.Lock()))
        done, _ = await asyncio.wait([task], timeout=0.5)
        assert not done, "it ended while the database was away"
        (tmp_path / "here").mkdir()
        (tmp_path / "records.db").rename(tmp_path / "here" / "records.db")
        (tmp_path / "here").rename(away)
        await asyncio.to_thread(wait_until, lambda: records.image("fab1", "cam1", "img1") is None, "it is forgotten")
        task.cancel()


def body(imgid: str = "w", camera: str = "c", encoded: str | None = None, **more: object) -> bytes:
    """An image message, sound unless something else is named."""
    sound = base64.b64encode(encode(sample(1, 1)[0][1])).decode()
    fields = {"imgid": imgid, "timestamp": 1, "fab": "f", "camera": camera, "bytes": encoded or sound, **more}
    return json.dumps(fields).encode()


def of_file(data: bytes) -> bytes:
    return body(encoded=base64.b64encode(data).decode())


def large_picture() -> bytes:
    file = io.BytesIO()
    Picture.new("1", (5000, 5000)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("subject", "payload", "code"),
    [
        ("fabwafer.f.c.img", body(), "topic"),
        ("fabwafer.f.c.img.a*b", body(), "name"),
        ("fabwafer.f.c.img.w", b"{", "json"),
        ("fabwafer.f.c.img.w", b"[]", "json"),
        ("fabwafer.f.c.img.w", body(timestamp="soon"), "field"),
        ("fabwafer.f.c.img.w", body(camera="d"), "mismatch"),
        ("fabwafer.f.c.img.w", body(note="x" * 33_000), "fields_too_large"),
        ("fabwafer.f.c.img.w", body(encoded="@@"), "base64"),
        ("fabwafer.f.c.img.w", of_file(b"GIF89a and more"), "unreadable"),
        ("fabwafer.f.c.img.w", of_file(encode(sample(1, 1)[0][1])[:-20]), "truncated"),
        ("fabwafer.f.c.img.w", of_file(large_picture()), "too_many_pixels"),
        ("fabwafer.f.c.img.w", of_file(bytes(MAX_BYTES + 1)), "too_large"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_dead_letter_names_the_kind_of_its_refusal(subject: str, payload: bytes, code: str) -> None:
    with pytest.raises((MessageRefusedError, BadImageError)) as refused:
        checked(subject, payload, Receipt(1, 1))
    assert refusal(Msg(None), refused.value).code == code  # type: ignore[arg-type]


async def test_a_flood_of_invalid_messages_is_counted_by_kind_and_logged_in_few_lines(
    nats_server: NatsServer,
    sqlite: str,
    tmp_path: Path,
) -> None:
    bridge = Bridge(
        tmp_path / "bridge", nats_url=nats_server.url, inference_url=NOWHERE, database_url=sqlite, only="intake"
    )

    def refusals() -> tuple[int, int]:
        """Lines about one refused message each, and how many messages the other lines sum up."""
        lines = [json.loads(line) for line in bridge.log.read_text().splitlines() if line.startswith("{")]
        single = [line for line in lines if line["event"] == "refused"]
        return len(single), sum(line["lines"] for line in lines if line["event"] == "more refused")

    bus = await nats.connect(nats_server.url)
    try:
        await asyncio.to_thread(bridge.start)
        for number in range(300):
            await bus.publish(f"fabwafer.f.c.img.w{number}", b"invalid messages")
        await bus.publish("fabwafer.f.c.img.w", body(camera="d"))
        await bus.flush()
        await asyncio.to_thread(wait_until, lambda: sum(refusals()) == 301, bridge.last_words)
        assert bridge.metric("fabwafer_dead_letters_total", reason="json") == 300
        assert bridge.metric("fabwafer_dead_letters_total", reason="mismatch") == 1
    finally:
        await bus.close()
        bridge.stop()


async def test_of_many_lines_at_once_a_few_are_written_and_the_rest_summed_up() -> None:
    written = io.StringIO()
    log = structlog.wrap_logger(structlog.PrintLogger(written), processors=[structlog.processors.JSONRenderer()])
    limited = RateLimitedLog(log, "refused", 10)
    for number in range(200):  # in one turn of the loop, so within one second for it
        limited.say(number=number)

    def lines() -> list[dict[str, object]]:
        return [json.loads(line) for line in written.getvalue().splitlines()]

    assert lines() == [{"event": "refused", "number": number} for number in range(10)]
    await asyncio.to_thread(wait_until, lambda: len(lines()) > 10, "the sum")
    assert lines()[10:] == [{"event": "more refused", "lines": 190}]
    limited.say(number=200)
    assert lines()[11:] == [{"event": "refused", "number": 200}]


def test_every_consumer_reason_and_result_is_there_from_the_start_under_one_name(
    nats_server: NatsServer, sqlite: str, tmp_path: Path
) -> None:
    bridge = Bridge(
        tmp_path / "bridge",
        nats_url=nats_server.url,
        inference_url=NOWHERE,
        candidate_url=NOWHERE,
        database_url=sqlite,
    )
    try:
        bridge.start()
        gauges = ("fabwafer_consumer_lag", "fabwafer_oldest_unacknowledged_seconds")
        of_streams = {name.value for name in streams.DURABLES}
        wait_until(lambda: all(of_streams <= labels(bridge, name, "consumer") for name in gauges), "all measured")
        assert labels(bridge, "fabwafer_consumer_lag", "consumer") == of_streams | {"alert"}
        assert labels(bridge, "fabwafer_redeliveries_total", "consumer") == of_streams
        assert labels(bridge, "fabwafer_messages_total", "consumer") == of_streams | {"alert"}
        for consumer in (*streams.DURABLES, streams.ConsumerName.ALERT):
            results = labels(bridge, "fabwafer_messages_total", "result", consumer=consumer)
            assert results == {result.value for result in metrics.RESULTS[consumer]}
        assert labels(bridge, "fabwafer_dead_letters_total", "reason") == {reason.value for reason in Reason}
        assert bridge.metric("fabwafer_messages_total") == bridge.metric("fabwafer_dead_letters_total") == 0
    finally:
        bridge.stop()


def labels(bridge: Bridge, name: str, label: str, **others: str) -> set[str]:
    """The values of a label in the series of a metric."""
    return {
        sample.labels[label]
        for sample in bridge.samples()
        if sample.name == name and others.items() <= sample.labels.items()
    }


def test_every_reason_that_a_reader_refuses_for_is_one_of_the_metrics() -> None:
    assert {Reason(code) for code in get_args(RefusalCode)} < set(Reason)


def test_the_model_has_one_series_that_of_the_version_which_serves() -> None:
    serving = metrics.ServingModel()
    for version in ("1.0", "1.1", "1.0", "1.0"):
        serving.answered(version, f"digest of {version}")
    [family] = [one for one in REGISTRY.collect() if one.name == "fabwafer_model_info"]
    [series] = family.samples
    assert (series.labels, series.value) == ({"version": "1.0", "digest": "digest of 1.0"}, 1)


@pytest.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[Client]:
    """A connection to a bus that holds 400 dead letters: more than a listing fetches at once."""
    client = await nats.connect(nats_server.url)
    js = client.jetstream()
    await streams.ensure_streams(js, replicas=1, mqtt_max_bytes=1 << 26, max_bytes=1 << 26)
    letters = (
        dead_letters.letter(
            "intake",
            subject="s",
            origin="o",
            payload=b"",
            reason="r",
            code=dead_letters.Reason.JSON,
            message_id=str(number),
            headers={},
        )
        for number in range(400)
    )
    await asyncio.gather(*(js.publish(one.subject, one.payload, headers=one.headers) for one in letters))
    yield client
    await client.close()


async def test_all_dead_letters_are_listed(bus: Client) -> None:
    assert len([letter async for letter in dead_letters.listed(bus.jetstream())]) == 400


async def test_a_list_of_dead_letters_that_a_silent_bus_cuts_short_is_an_error(
    bus: Client,
    nats_server: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dead_letters, "SILENCE", 0.5)
    listing = dead_letters.listed(bus.jetstream(timeout=1))
    await anext(listing)
    os.kill(nats_server.pid, signal.SIGSTOP)
    try:
        with pytest.raises(TimeoutError, match=r"fell silent with .* of 400 dead letters unlisted"):
            async for _ in listing:
                pass
    finally:
        os.kill(nats_server.pid, signal.SIGCONT)


async def test_a_list_of_dead_letters_ends_where_the_rest_went_while_it_was_read(
    bus: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "SILENCE", 0.5)
    listing = dead_letters.listed(bus.jetstream())
    first = await anext(listing)
    await bus.jetstream().purge_stream(streams.DEAD)
    rest = [letter async for letter in listing]
    assert 0 < 1 + len(rest) < 400
    assert rest[0].id == first.id + 1
