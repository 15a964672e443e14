"""How far the consumers are behind, and how full the streams are."""

import time

from nats.errors import Error as NatsError
from nats.js import JetStreamContext

from fabwafer_bridge import metrics, streams

CONSUMERS = (
    (streams.MQTT, streams.INTAKE, "intake"),
    (streams.IMAGES, streams.CLASSIFY, "classify"),
    (streams.IMAGES, streams.RECORD, "record-images"),
    (streams.PREDICTIONS, streams.RECORD, "record-predictions"),
    (streams.SHADOW_IMAGES, streams.SHADOW, "shadow"),
    (streams.SHADOW_PREDICTIONS, streams.RECORD, "record-shadow"),
)


async def measure(js: JetStreamContext) -> None:
    """Sets the gauges of lag, age and fill from what the bus says; one it does not answer for keeps its value."""
    for stream in (streams.MQTT, streams.IMAGES, streams.PREDICTIONS, streams.DEAD):
        try:
            info = await js.stream_info(stream)
        except (NatsError, TimeoutError):
            continue
        limit = info.config.max_bytes or 0
        if limit > 0:
            metrics.STREAM_FILL.labels(stream).set(info.state.bytes / limit)
    for stream, durable, label in CONSUMERS:
        try:
            consumer = await js.consumer_info(stream, durable)
            waiting = (consumer.num_pending or 0) + (consumer.num_ack_pending or 0)
            metrics.CONSUMER_LAG.labels(label).set(waiting)
            age = 0.0
            floor = consumer.ack_floor.stream_seq if consumer.ack_floor else 0
            if waiting:
                age = await _age(js, stream, floor + 1)
        except (NatsError, TimeoutError):
            continue
        metrics.OLDEST_UNACKNOWLEDGED.labels(label).set(age)


async def waiting_images(js: JetStreamContext) -> int:
    """Tells how many images wait for a classify that is at work; 0 when none is, or the bus does not say."""
    try:
        consumer = await js.consumer_info(streams.IMAGES, streams.CLASSIFY)
    except (NatsError, TimeoutError):
        return 0
    return (consumer.num_pending or 0) if consumer.num_ack_pending else 0


async def _age(js: JetStreamContext, stream: str, sequence: int) -> float:
    """Age in seconds of the first message from a sequence on."""
    message = await js.get_msg(stream, sequence, next=True, subject=">")
    return max(0.0, time.time() - message.time.timestamp()) if message.time else 0.0
