"""Releases what MQTT sessions hold in the stream of all devices' messages without acknowledging it.

A device that subscribes with QoS 1 has a consumer on `$MQTT_msgs`. One that is connected and never acknowledges would
hold every message it subscribed to, its own images among them, until the stream is full for all devices.
"""

import asyncio
import time
from typing import Final

import structlog
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import ConsumerInfo
from nats.js.errors import NotFoundError

from fabwafer_bridge import metrics, streams

EVERY: Final = 10.0
"""Seconds between looks."""
FILL: Final = 0.5
"""How full the stream must be: with less, nobody suffers."""
PATIENCE: Final = 120.0
"""Seconds that a message may wait for the acknowledgement of a session; the server delivers it anew each 30."""

log = structlog.get_logger()


async def follow(js: JetStreamContext) -> None:
    """Release again and again; does not return."""
    while True:
        try:
            await release(js, PATIENCE)
        except (NatsError, TimeoutError) as error:
            log.warning("stuck sessions", reason=repr(error)[:300])
        await asyncio.sleep(EVERY)


async def release(js: JetStreamContext, patience: float) -> list[str]:
    """Delete the consumers of sessions that hold old messages, if the stream is half full.

    The device stays connected; it gets messages with QoS 1 again when it subscribes again.

    Args:
        js: The bus's JetStream.
        patience: Seconds that a message may wait.

    Returns:
        The subjects that were subscribed to.

    Raises:
        nats.errors.Error: The bus refuses; to be tried again.
        TimeoutError: The bus does not answer; to be tried again.
    """
    info = await js.stream_info(streams.MQTT)
    limit = streams.limit(info.config)
    if not limit or info.state.bytes < FILL * limit:
        return []
    ours = {durable.name for durable in streams.DURABLES.values() if durable.stream == streams.MQTT}
    released = []
    for consumer in await _consumers(js):
        if consumer.name in ours or not (age := await _age_of_oldest(js, consumer)) or age < patience:
            continue
        await js.delete_consumer(streams.MQTT, consumer.name)
        subject = consumer.config.filter_subject or ""
        metrics.SESSIONS_RELEASED.inc()
        log.warning(
            "a session that does not acknowledge",
            subscribed=subject,
            waiting=(consumer.num_pending or 0) + (consumer.num_ack_pending or 0),
            seconds=round(age),
        )
        released.append(subject)
    return released


async def _consumers(js: JetStreamContext) -> list[ConsumerInfo]:
    """Return all consumers of the stream; the server lists some at a time."""
    found: list[ConsumerInfo] = []
    while page := await js.consumers_info(streams.MQTT, offset=len(found)):
        found += page
    return found


async def _age_of_oldest(js: JetStreamContext, consumer: ConsumerInfo) -> float | None:
    """Return the age in seconds of the oldest message that a consumer holds, or None where it holds none."""
    if not consumer.num_ack_pending and not consumer.num_pending:
        return None
    floor = consumer.ack_floor.stream_seq if consumer.ack_floor else 0
    try:
        message = await js.get_msg(streams.MQTT, floor + 1, next=True, subject=consumer.config.filter_subject or ">")
    except NotFoundError:
        return None
    return time.time() - message.time.timestamp() if message.time else None
