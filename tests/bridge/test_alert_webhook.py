"""Alerts reach the bus, MQTT listeners and a webhook, whose receiver may fail, lie down, or never take one of them."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
import pytest
from aiohttp import web
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from fabwafer.records import Records
from tests.support.nats_servers import NatsServer, add_device
from tests.support.records import predicted
from tests.support.running import PATIENCE, Bridge

SECRET = "told to the receiver once"


@dataclass(frozen=True)
class Request:
    """What the receiver got."""

    headers: dict[str, str]
    body: bytes

    @property
    def alert(self) -> Any:
        return json.loads(self.body)

    @property
    def signed(self) -> bool:
        """Checks the signature as a receiver would, from what the documentation says of it."""
        text = self.headers["X-Fabwafer-Timestamp"].encode() + b"." + self.body
        right = "sha256=" + hmac.new(SECRET.encode(), text, hashlib.sha256).hexdigest()
        return hmac.compare_digest(self.headers["X-Fabwafer-Signature"], right)


@dataclass
class Receiver:
    """A webhook's receiver; `answer` decides on a status, from the alert and how often that one was sent before."""

    answer: Callable[[Any, int], int] = lambda _, __: 200
    requests: list[Request] = field(default_factory=list)
    redirected: int = 0
    url: str = ""

    async def take(self, request: web.Request) -> web.Response:
        came = Request(dict(request.headers), await request.read())
        before = len(self.of(came.alert["imgid"]))
        self.requests.append(came)
        status = self.answer(came.alert, before)
        return web.Response(status=status, headers={"Location": "/elsewhere"} if status == 302 else None)

    async def elsewhere(self, _: web.Request) -> web.Response:
        self.redirected += 1
        return web.Response(text="please sign in")

    def of(self, imgid: str) -> list[Request]:
        return [each for each in self.requests if each.alert["imgid"] == imgid]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/alerts", receiver.take)
    app.router.add_get("/elsewhere", receiver.elsewhere)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/alerts"
    yield receiver
    await runner.cleanup()


@pytest.fixture
def database(migrated_sqlite: Path, tmp_path: Path) -> str:
    file = tmp_path / "records.db"
    file.write_bytes(migrated_sqlite.read_bytes())
    return f"sqlite:///{file}"


@pytest.fixture
def records(database: str) -> Iterator[Records]:
    with Records(database) as opened:
        yield opened


@pytest.fixture
def worker(nats_server: NatsServer, receiver: Receiver, database: str, tmp_path: Path) -> Iterator[Bridge]:
    """The alert worker, not started yet."""
    bridge = Bridge(
        tmp_path / "bridge",
        nats_url=nats_server.url,
        inference_url="http://127.0.0.1:9",
        database_url=database,
        only="alert",
        webhook_url=receiver.url,
        webhook_secret=SECRET,
        portal_url="https://portal.fab.example/",
    )
    yield bridge
    bridge.stop()


async def until(done: Callable[[], bool], what: str) -> None:
    """Waits for progress, while the receiver answers."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE
    while not done():
        assert loop.time() < deadline, f"waited in vain: {what}"
        await asyncio.sleep(0.05)


async def test_a_receiver_that_fails_first_gets_the_alert_again_and_everybody_else_gets_it_once(
    worker: Bridge,
    receiver: Receiver,
    records: Records,
    nats_server: NatsServer,
) -> None:
    receiver.answer = lambda _, before: 503 if before == 0 else 204
    await asyncio.to_thread(worker.start)
    user, password = await asyncio.to_thread(add_device, nats_server, "fab1", "cam1")
    by_mqtt: list[tuple[str, bytes]] = []
    subscribed = asyncio.Event()
    listener = _mqtt_listener(nats_server, user, password, by_mqtt, subscribed)
    bus = await nats.connect(nats_server.url)
    try:
        by_nats = await bus.subscribe("fabwafer.*.*.alert.*")
        await bus.flush()
        await asyncio.wait_for(subscribed.wait(), PATIENCE)

        records.store_predictions([predicted("Scratch", 0.8)])

        await until(lambda: not records.pending_alerts(), "the alert is taken")
        [first, second] = receiver.requests
        # Whatever else was published before this would be here before it.
        await bus.publish("fabwafer.fab1.cam1.alert.end", b"end")
        heard = [await by_nats.next_msg(timeout=PATIENCE) for _ in range(2)]
        await until(lambda: len(by_mqtt) == 2, "the MQTT listener has both")
    finally:
        await bus.close()
        listener.disconnect()
        listener.loop_stop()

    assert [message.data for message in heard] == [first.body, b"end"]
    assert heard[0].subject == "fabwafer.fab1.cam1.alert.img1"
    assert heard[0].headers is not None
    assert heard[0].headers["Fabwafer-Source"] == "cluster"
    assert by_mqtt == [("fabwafer/fab1/cam1/alert/img1", first.body), ("fabwafer/fab1/cam1/alert/end", b"end")]
    assert first.body == second.body
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"] == first.alert["id"]
    assert first.signed
    assert second.signed
    assert first.alert["prediction"] == "Scratch"
    assert first.alert["cause"] == "handling"
    assert first.alert["url"] == "https://portal.fab.example/wafers/fab1/cam1/img1"


def _mqtt_listener(
    server: NatsServer, user: str, password: str, heard: list[tuple[str, bytes]], subscribed: asyncio.Event
) -> Client:
    loop = asyncio.get_running_loop()

    def on_connect(client: Client, *_: object) -> None:
        client.subscribe("fabwafer/fab1/cam1/alert/+")

    def on_subscribe(*_: object) -> None:
        loop.call_soon_threadsafe(subscribed.set)

    def on_message(_: Client, __: object, message: MQTTMessage) -> None:
        heard.append((message.topic, bytes(message.payload)))

    client = Client(CallbackAPIVersion.VERSION2)
    client.username_pw_set(user, password)
    client.on_message = on_message
    client.on_connect = on_connect
    client.on_subscribe = on_subscribe
    client.connect("127.0.0.1", server.mqtt_port)
    client.loop_start()
    return client


async def test_an_alert_that_is_never_taken_blocks_no_other(
    worker: Bridge, receiver: Receiver, records: Records
) -> None:
    receiver.answer = lambda alert, _: 400 if alert["imgid"] == "unloved" else 200
    records.store_predictions([predicted(imgid="unloved", received=1), predicted(imgid="a", received=2)])
    await asyncio.to_thread(worker.start)
    await until(lambda: len(receiver.of("a")) == 1 and len(receiver.of("unloved")) == 2, "the first ones")

    records.store_predictions([predicted(imgid=f"b{number}", received=3) for number in range(300)])

    await until(lambda: len(records.pending_alerts()) == 1, "all but one are taken")
    [stuck] = records.pending_alerts()
    assert stuck.alert.imgid == "unloved"
    assert stuck.attempts >= 2
    assert all(len(receiver.of(f"b{number}")) == 1 for number in range(300))
    assert len({each.headers["Idempotency-Key"] for each in receiver.of("unloved")}) == 1


async def test_what_a_killed_worker_had_pending_is_sent_by_the_next_under_the_same_key(
    worker: Bridge, receiver: Receiver, records: Records
) -> None:
    receiver.answer = lambda _, __: 500
    records.store_predictions([predicted(imgid=imgid) for imgid in ("a", "b", "c")])
    await asyncio.to_thread(worker.start)
    await until(lambda: all(one.attempts for one in records.pending_alerts()), "each was tried")
    worker.kill()
    assert len(records.pending_alerts()) == 3
    tried = {each.headers["Idempotency-Key"] for each in receiver.requests}

    receiver.answer = lambda _, __: 200
    await asyncio.to_thread(worker.start)

    await until(lambda: not records.pending_alerts(), "all are taken")
    assert {each.headers["Idempotency-Key"] for each in receiver.requests} == tried
    assert len(tried) == 3


async def test_a_receiver_that_sends_us_elsewhere_has_not_taken_the_alert(
    worker: Bridge, receiver: Receiver, records: Records
) -> None:
    receiver.answer = lambda _, before: 302 if before == 0 else 200
    records.store_predictions([predicted()])
    await asyncio.to_thread(worker.start)

    await until(lambda: not records.pending_alerts(), "the alert is taken")

    assert len(receiver.requests) == 2
    assert receiver.redirected == 0


async def test_a_receiver_without_a_secret_gets_no_signature(
    nats_server: NatsServer,
    receiver: Receiver,
    records: Records,
    database: str,
    tmp_path: Path,
) -> None:
    worker = Bridge(
        tmp_path / "unsigned",
        nats_url=nats_server.url,
        inference_url="http://127.0.0.1:9",
        database_url=database,
        only="alert",
        webhook_url=receiver.url,
    )
    try:
        records.store_predictions([predicted()])
        await asyncio.to_thread(worker.start)
        await until(lambda: not records.pending_alerts(), "the alert is taken")
    finally:
        worker.stop()

    [request] = receiver.requests
    assert not {name for name in request.headers if name.startswith("X-Fabwafer")}
    assert "url" not in request.alert


async def test_a_signature_holds_for_one_body_and_one_moment_only(
    worker: Bridge, receiver: Receiver, records: Records
) -> None:
    records.store_predictions([predicted()])
    await asyncio.to_thread(worker.start)
    await until(lambda: len(receiver.requests) == 1, "the alert is sent")

    [request] = receiver.requests
    assert request.signed
    assert not Request(request.headers, request.body.replace(b"Loc", b"none")).signed
    assert not Request({**request.headers, "X-Fabwafer-Timestamp": "1"}, request.body).signed
