"""A device that subscribes with QoS 1 and never acknowledges does not fill the stream for all others."""

import asyncio
import contextlib

import pytest
from nats.js import JetStreamContext

from fabwafer_bridge import streams, stuck_sessions
from tests.support.fabs import Fab
from tests.support.raw_mqtt import RawMqtt

IMAGE = b"x" * 200_000


async def take_in(js: JetStreamContext) -> None:
    """Acknowledge what the intake would."""
    intake = await js.pull_subscribe_bind(streams.INTAKE, streams.MQTT)
    while True:
        with contextlib.suppress(TimeoutError):
            for message in await intake.fetch(50, timeout=0.2):
                await message.ack()


async def until_held(js: JetStreamContext, messages: int, reading: RawMqtt) -> None:
    """Wait until so many messages are held, while a device reads what it is sent."""
    async with asyncio.timeout(30):
        while (await js.stream_info(streams.MQTT)).state.messages != messages:
            assert reading.alive()
            await asyncio.sleep(0.05)


async def until_acknowledged(js: JetStreamContext, reading: RawMqtt) -> None:
    """Wait until the sessions have acknowledged all that was sent, while a device reads it."""
    async with asyncio.timeout(30):
        while any(
            one.num_pending or one.num_ack_pending
            for one in await js.consumers_info(streams.MQTT)
            if one.name != streams.INTAKE
        ):
            assert reading.alive()
            await asyncio.sleep(0.05)


async def test_what_a_session_holds_without_acknowledging_is_released(fab: Fab) -> None:
    js = fab.bus.jetstream()
    config = (await js.stream_info(streams.MQTT)).config
    await js.update_stream(config.evolve(max_bytes=4 << 20))
    taking = asyncio.create_task(take_in(js))
    mine, theirs = fab.connect(await fab.add("mine"), acknowledges=False), fab.connect(await fab.add("theirs"))
    assert mine.subscribe("fabwafer/faba/mine/#", qos=1)
    assert theirs.subscribe("fabwafer/faba/theirs/#", qos=1)
    for number in range(12):
        assert mine.publish(f"fabwafer/faba/mine/img/{number}", IMAGE)
        assert theirs.publish(f"fabwafer/faba/theirs/img/{number}", IMAGE)
        await until_held(js, number + 1, theirs)

    assert await stuck_sessions.release(js, patience=3600) == []
    assert await stuck_sessions.release(js, patience=0) == ["$MQTT.msgs.fabwafer.faba.mine.>"]
    await until_held(js, 0, theirs)
    assert mine.publish("fabwafer/faba/mine/img/last", IMAGE)
    assert theirs.publish("fabwafer/faba/theirs/img/last", IMAGE)
    await until_held(js, 0, theirs)
    assert theirs.alive()
    assert ("fabwafer/faba/theirs/img/last", IMAGE) in theirs.received
    taking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await taking


async def test_while_the_stream_has_room_no_session_is_touched(fab: Fab) -> None:
    js = fab.bus.jetstream()
    mine = fab.connect(await fab.add("mine"), acknowledges=False)
    assert mine.subscribe("fabwafer/faba/mine/#", qos=1)
    assert mine.publish("fabwafer/faba/mine/img/1", IMAGE)
    assert await stuck_sessions.release(js, patience=0) == []


@pytest.mark.parametrize("qos", [0, 1])
async def test_a_device_that_acknowledges_is_never_touched(fab: Fab, qos: int) -> None:
    js = fab.bus.jetstream()
    config = (await js.stream_info(streams.MQTT)).config
    await js.update_stream(config.evolve(max_bytes=1 << 20))
    theirs = fab.connect(await fab.add("theirs"))
    assert theirs.subscribe("fabwafer/faba/theirs/#", qos=qos)
    for number in range(4):  # nothing is taken in: the stream is full of what waits for the intake
        assert theirs.publish(f"fabwafer/faba/theirs/img/{number}", IMAGE)
    assert theirs.alive()
    await until_held(js, 4, theirs)
    await until_acknowledged(js, theirs)
    assert await stuck_sessions.release(js, patience=0) == []
