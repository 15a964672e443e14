"""How far the consumers are behind, and how full the streams are."""

import asyncio
import time
from typing import Final

from nats.errors import Error as NatsError
from nats.js import JetStreamContext

from fabwafer_bridge import metrics, streams

EVERY: Final = 2.0
"""Seconds between measurements."""
MEASURED_STREAMS: Final = (streams.MQTT, streams.IMAGES, streams.PREDICTIONS, streams.DEAD)


async def follow(js: JetStreamContext) -> None:
    """Measure again and again; does not return."""
    while True:
        await measure(js)
        await asyncio.sleep(EVERY)


async def measure(js: JetStreamContext) -> None:
    """Set the gauges of lag, age and fill; one that the bus gives no answer for keeps its value."""
    for stream in MEASURED_STREAMS:
        try:
            info = await js.stream_info(stream)
        except (NatsError, TimeoutError):
            continue
        if limit := streams.limit(info.config):
            metrics.STREAM_FILL.labels(stream).set(info.state.bytes / limit)
    for durable in streams.DURABLES.values():
        try:
            consumer = await js.consumer_info(durable.stream, durable.name)
            waiting = (consumer.num_pending or 0) + (consumer.num_ack_pending or 0)
            metrics.CONSUMER_LAG.labels(durable.consumer).set(waiting)
            age = 0.0
            floor = consumer.ack_floor.stream_seq if consumer.ack_floor else 0
            if waiting:
                age = await _age(js, durable.stream, floor + 1)
        except (NatsError, TimeoutError):
            continue
        metrics.OLDEST_UNACKNOWLEDGED.labels(durable.consumer).set(age)


async def waiting_images(js: JetStreamContext) -> int:
    """Return how many images wait for a classify that is at work; 0 when none is, or the bus does not answer."""
    try:
        consumer = await js.consumer_info(streams.IMAGES, streams.CLASSIFY)
    except (NatsError, TimeoutError):
        return 0
    return (consumer.num_pending or 0) if consumer.num_ack_pending else 0


async def _age(js: JetStreamContext, stream: str, sequence: int) -> float:
    """Return the age in seconds of the first message from a sequence on."""
    message = await js.get_msg(stream, sequence, next=True, subject=">")
    return max(0.0, time.time() - message.time.timestamp()) if message.time else 0.0
