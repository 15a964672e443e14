"""Messages that are not processed yet are read without disturbing anybody, and published again elsewhere."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from fabwafer.messages.headers import MESSAGE_ID, MQTT_PUBLISH
from fabwafer_bridge.publisher import Publisher
from fabwafer_bridge.streams import CLASSIFY, DEAD, DURABLES, IMAGES, INTAKE, MQTT, PREDICTIONS, RECORD
from fabwafer_bridge.unprocessed import (
    NotHeldError,
    StreamMessage,
    StreamsMissingError,
    held,
    publish_again,
    read_messages,
    unprocessed,
    waiting,
)
from tests.support.nats_servers import NatsCluster, NatsServer
from tests.support.streams import PATIENCE, make_streams

DEVICE_IMAGE = "$MQTT.msgs.fabwafer.f.c.img.w"
DEVICE_PREDICTION = "$MQTT.msgs.fabwafer.f.c.prediction.w"
IMAGE = "fabwafer-images.f.c.w"
PREDICTION = "fabwafer-predictions.cluster.f.c.w"
LETTER = "fabwafer-dead.intake"


@asynccontextmanager
async def connected(server: NatsServer) -> AsyncIterator[Client]:
    await make_streams(server.url)
    client = await nats.connect(server.url)
    yield client
    await client.close()


@pytest_asyncio.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[Client]:
    async with connected(nats_server) as client:
        yield client


@pytest.fixture
def another_server(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path / "another") as server:
        yield server


async def take(js: JetStreamContext, stream: str, durable: str, count: int = 1) -> list[Msg]:
    """Fetch messages as a consumer does."""
    subscription = await js.pull_subscribe_bind(durable, stream=stream)
    found: list[Msg] = []
    while len(found) < count:  # a fetch returns what is there
        found += await subscription.fetch(count - len(found), timeout=5)
    return found


async def acknowledge(js: JetStreamContext, stream: str, durable: str, count: int = 1) -> None:
    for message in await take(js, stream, durable, count):
        await message.ack_sync()


async def read(js: JetStreamContext) -> list[tuple[str, bytes]]:
    return [(one.stream, one.payload) for one in await messages_of(js)]


async def messages_of(js: JetStreamContext) -> list[StreamMessage]:
    async with held(js) as processed:
        return [one async for one in unprocessed(js, processed)]


async def test_what_every_consumer_acknowledged_is_left_out(bus: Client) -> None:
    js = bus.jetstream()
    for subject in (DEVICE_IMAGE, IMAGE, PREDICTION):
        for payload in (b"done", b"waits"):
            await js.publish(subject, payload)
    await js.publish(LETTER, b"dead")
    await js.publish(DEVICE_PREDICTION, b"of a device")
    await js.publish("$MQTT.msgs.fabwafer.f.c.alert.w", b"not ours")
    await acknowledge(js, MQTT, INTAKE)
    await acknowledge(js, PREDICTIONS, RECORD)
    # By one of its two consumers alone.
    await acknowledge(js, IMAGES, RECORD, 2)
    await acknowledge(js, IMAGES, CLASSIFY)

    assert await read(js) == [
        (DEAD, b"dead"),
        (MQTT, b"waits"),
        (MQTT, b"of a device"),
        (IMAGES, b"waits"),
        (PREDICTIONS, b"waits"),
    ]
    assert await waiting(js) == {DEAD: 1, MQTT: 2, IMAGES: 1, PREDICTIONS: 1}


async def test_what_a_consumer_has_in_hand_is_read_too_and_stays_in_its_hands(bus: Client) -> None:
    js = bus.jetstream()
    await js.publish(IMAGE, b"in hand")
    [held] = await take(js, IMAGES, CLASSIFY)
    before = [await js.consumer_info(one.stream, one.name) for one in DURABLES.values()]

    assert await read(js) == [(IMAGES, b"in hand")]

    after = [await js.consumer_info(one.stream, one.name) for one in DURABLES.values()]
    assert [(one.num_pending, one.num_ack_pending, one.delivered) for one in after] == [
        (one.num_pending, one.num_ack_pending, one.delivered) for one in before
    ]
    await held.ack_sync()


@pytest_asyncio.fixture(params=["one server", "three servers"])
async def any_bus(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Client]:
    """A bus of one server, and one whose streams have three copies."""
    if request.param == "one server":
        with NatsServer(tmp_path / "nats") as server:
            async with connected(server) as client:
                yield client
    else:
        with NatsCluster(tmp_path / "nats") as cluster:
            urls = ",".join(cluster.urls)
            await make_streams(urls, replicas=3)
            client = await nats.connect(urls.split(","))
            yield client
            await client.close()


async def until_empty(js: JetStreamContext, stream: str) -> None:
    """Wait until a stream holds nothing: three servers agree a moment later."""
    async with asyncio.timeout(PATIENCE):
        while (await js.stream_info(stream)).state.messages:  # noqa: ASYNC110 - the bus has to be asked
            await asyncio.sleep(0.05)


async def test_what_is_processed_while_it_is_held_is_read_all_the_same_and_goes_then(any_bus: Client) -> None:
    js = any_bus.jetstream()
    await js.publish(IMAGE, b"long done")
    await acknowledge(js, IMAGES, CLASSIFY)
    await acknowledge(js, IMAGES, RECORD)
    await until_empty(js, IMAGES)
    await js.publish(IMAGE, b"before")
    async with held(js) as processed:
        # Somebody looks at the records now: of these images there is nothing in them, or not all.
        await js.publish(IMAGE, b"meanwhile")
        await acknowledge(js, IMAGES, RECORD, 2)
        await js.publish(PREDICTION, b"prediction")
        await acknowledge(js, IMAGES, CLASSIFY, 2)
        await acknowledge(js, PREDICTIONS, RECORD)
        found = [(one.stream, one.payload) async for one in unprocessed(js, processed)]
    assert found == [(IMAGES, b"before"), (IMAGES, b"meanwhile"), (PREDICTIONS, b"prediction")]
    for stream in (IMAGES, PREDICTIONS):
        await until_empty(js, stream)
        assert {info.name for info in await js.consumers_info(stream)} == {
            durable.name for durable in DURABLES.values() if durable.stream == stream
        }


async def test_what_the_bus_did_not_hold_to_the_end_is_not_taken_for_all(bus: Client) -> None:
    js = bus.jetstream()

    async def let_go_too_early() -> None:
        ours = {durable.name for durable in DURABLES.values()}
        async with held(js):
            [holder] = [info.name for info in await js.consumers_info(IMAGES) if info.name not in ours]
            await js.delete_consumer(IMAGES, holder)

    with pytest.raises(NotHeldError, match="held IMAGES no longer than 900 s"):
        await let_go_too_early()


@pytest.mark.parametrize("moment", [DEAD, MQTT, IMAGES, PREDICTIONS])
async def test_a_message_that_moves_on_while_others_are_read_is_found_further_down(bus: Client, moment: str) -> None:
    js = bus.jetstream()
    for subject in (LETTER, DEVICE_IMAGE, IMAGE, PREDICTION):
        await js.publish(subject, b"first")
    await js.publish(DEVICE_IMAGE, b"moves")

    found = []
    async with held(js) as processed:
        async for message in unprocessed(js, processed):
            found.append((message.stream, message.payload))
            if message.payload == b"first" and message.stream == moment:
                # All the way in one moment, as the intake and classify do it: stored behind, then acknowledged before.
                await js.publish(IMAGE, b"moves")
                await acknowledge(js, MQTT, INTAKE, 2)
                await js.publish(PREDICTION, b"moves")
                await acknowledge(js, IMAGES, CLASSIFY, 2)
                await acknowledge(js, IMAGES, RECORD, 2)

    assert b"moves" in {payload for _, payload in found}


async def test_a_dead_letter_that_is_replayed_while_others_are_read_is_not_missed(bus: Client) -> None:
    js = bus.jetstream()
    await js.publish(LETTER, b"letter")
    await js.publish(PREDICTION, b"another")
    found = []
    async with held(js) as processed:
        async for message in unprocessed(js, processed):
            found.append((message.stream, message.payload))
            if message.stream == PREDICTIONS:
                await js.publish(DEVICE_IMAGE, b"letter")
                await js.delete_msg(DEAD, 1)
                await js.publish(LETTER, b"a new one")
    assert found == [(DEAD, b"letter"), (PREDICTIONS, b"another"), (DEAD, b"a new one")]


async def test_messages_are_published_again_on_another_bus_as_they_were(
    bus: Client, another_server: NatsServer, tmp_path: Path
) -> None:
    js = bus.jetstream()
    await js.publish(DEVICE_IMAGE, b"\x00\xff", headers={MQTT_PUBLISH: "1"})
    await js.publish(IMAGE, b"image", headers={MESSAGE_ID: "abc", "Fabwafer-Message": '{"lot":"a: b"}'})
    await js.publish(PREDICTION, b"{}", headers={MESSAGE_ID: "def"})
    await js.publish(LETTER, b"x" * (7 << 20), headers={MESSAGE_ID: "dead:1", "Fabwafer-Reason": "too large"})
    messages = await messages_of(js)
    file = tmp_path / "messages.ndjson"
    file.write_text("".join(one.to_line() + "\n" for one in messages))
    assert list(read_messages(file)) == messages

    async with connected(another_server) as there:
        for _ in range(2):
            assert await publish_again(Publisher(there), read_messages(file)) == (4, [])
        again = await messages_of(there.jetstream())

    # Without an id one that is published twice is there twice: it changes nothing, since it has one content.
    assert [one for one in again if one.stream != MQTT] == [one for one in messages if one.stream != MQTT]
    assert [one for one in again if one.stream == MQTT] == [one for one in messages if one.stream == MQTT] * 2


async def test_more_messages_than_are_published_at_once_come_in_their_order(
    bus: Client, another_server: NatsServer
) -> None:
    messages = [StreamMessage(MQTT, DEVICE_IMAGE, {}, str(number).encode()) for number in range(300)]
    async with connected(another_server) as there:
        assert await publish_again(Publisher(there), iter(messages)) == (300, [])
        assert await messages_of(there.jetstream()) == messages


async def test_a_message_that_no_bus_can_store_is_named_and_holds_up_no_other(bus: Client) -> None:
    messages = [StreamMessage(MQTT, DEVICE_IMAGE, {}, data) for data in (b"1", b"x" * (9 << 20), b"2")]
    stored, refused = await publish_again(Publisher(bus), iter(messages))
    assert stored == 2
    assert ["larger than the bus takes" in str(one) for one in refused] == [True]
    assert await read(bus.jetstream()) == [(MQTT, b"1"), (MQTT, b"2")]


async def test_missing_streams_are_named(nats_server: NatsServer) -> None:
    client = await nats.connect(nats_server.url)
    for ask in (read, waiting):
        with pytest.raises(StreamsMissingError, match="`fabwafer streams` first"):
            await ask(client.jetstream())
    await client.close()
