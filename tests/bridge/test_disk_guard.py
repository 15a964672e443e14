"""The disk guard: while space is short, `$MQTT_msgs` refuses messages and keeps those that it has."""

from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext

from fabwafer.messages.topics import MQTT_PREFIX
from fabwafer.service.disk import Space
from fabwafer_bridge import lag, metrics, streams
from fabwafer_bridge.disk_guard import DiskGuard
from fabwafer_bridge.publisher import Outgoing, Publisher
from fabwafer_bridge.streams import LARGEST_MESSAGE, MQTT, ensure_streams
from tests.support.nats_servers import NatsServer

GIB = 1024**3
AMPLE, BETWEEN, SHORT = (Space(1000 * GIB, free) for free in (100 * GIB, 300 * 1024**2, 1024**2))
LIMIT = 1 << 24


@pytest.fixture
async def client(nats_server: NatsServer) -> AsyncIterator[Client]:
    connected = await nats.connect(nats_server.url)
    await make(connected.jetstream())
    yield connected
    await connected.close()


async def make(js: JetStreamContext, max_bytes: int = LIMIT) -> None:
    await ensure_streams(js, replicas=1, mqtt_max_bytes=LIMIT, max_bytes=max_bytes)


async def takes(js: JetStreamContext) -> bool:
    try:
        await js.publish(f"{MQTT_PREFIX}fabwafer.f.c.img.w", b"x", timeout=5)
    except NatsError:
        return False
    return True


async def test_messages_are_refused_while_space_is_short_and_those_there_are_stay(
    client: Client, tmp_path: Path
) -> None:
    js, guard = client.jetstream(), DiskGuard(client.jetstream(), tmp_path)
    await guard.look(AMPLE)
    assert await takes(js)
    await guard.look(SHORT)
    assert not await takes(js)
    assert guard.stopped is not None
    assert "is full: expected 256.0 MiB free, got 1.0 MiB" in guard.stopped
    assert metrics.INTAKE_STOPPED._value.get() == 1
    assert (await js.stream_info(MQTT)).state.messages == 1
    await lag.measure(js)
    assert metrics.STREAM_FILL.labels(MQTT)._value.get() < 0.01  # of its usual limit
    await guard.look(Space(1000 * GIB, 260 * 1024**2))  # a little more than short does not alternate
    assert not await takes(js)
    await guard.look(AMPLE)
    assert await takes(js)
    assert guard.stopped is None
    assert metrics.INTAKE_STOPPED._value.get() == 0
    assert (await js.stream_info(MQTT)).config.max_bytes == LIMIT


async def test_the_next_guard_opens_what_a_killed_one_closed(client: Client, tmp_path: Path) -> None:
    js = client.jetstream()
    await DiskGuard(js, tmp_path).look(SHORT)
    await DiskGuard(js, tmp_path).look(BETWEEN)
    assert await takes(js)


async def test_streams_that_are_made_anew_are_closed_again(client: Client, tmp_path: Path) -> None:
    js, guard = client.jetstream(), DiskGuard(client.jetstream(), tmp_path)
    await guard.look(SHORT)
    await make(js)
    await guard.look(SHORT)
    assert not await takes(js)


async def test_a_dead_letter_of_any_size_is_stored_beside_the_others(client: Client) -> None:
    js = client.jetstream()
    await make(js, 1 << 20)
    letters = [Outgoing("fabwafer-dead.test", bytes(size), {"Nats-Msg-Id": str(size)}) for size in (10, 5 << 20)]
    assert await Publisher(client).store(letters) == [None, None]
    assert (await js.stream_info(streams.DEAD)).state.messages == 2


async def test_a_lower_limit_deletes_no_dead_letters(client: Client) -> None:
    js = client.jetstream()
    for number in range(12):
        await js.publish("fabwafer-dead.test", bytes(1 << 20), headers={"Nats-Msg-Id": str(number)})
    await make(js, LARGEST_MESSAGE)
    assert (await js.stream_info(streams.DEAD)).state.messages == 12
