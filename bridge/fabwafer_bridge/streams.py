"""The streams on the bus and their durable consumers: where a message waits until its effect is stored."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import structlog
from nats.errors import ConnectionClosedError
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import APIError, NotFoundError

from fabwafer.errors import FabwaferError
from fabwafer.messages import topics
from fabwafer.service.backoff import Backoff

NO_ROOM: Final = 10047
"""The server's code for: insufficient storage resources available."""

MQTT: Final = "$MQTT_msgs"
"""NATS's own stream for its MQTT listener. A PUBACK means: stored here, and nowhere else."""
RETAINED: Final = "$MQTT_rmsgs"
"""NATS's own stream for retained messages: the last one on each topic."""
IMAGES: Final = "IMAGES"
PREDICTIONS: Final = "PREDICTIONS"
DEAD: Final = "DEAD"
SHADOW_IMAGES: Final = "SHADOW_IMAGES"
"""Copies of the images that go to the candidate on trial as well."""
SHADOW_PREDICTIONS: Final = "SHADOW_PREDICTIONS"
"""The candidate's predictions; only the records take them."""

INTAKE: Final = "intake"
CLASSIFY: Final = "classify"
RECORD: Final = "record"
SHADOW: Final = "shadow"

ACK_WAIT: Final = 30.0
"""Seconds until a message that was not acknowledged is delivered again. Longer than one call of the model server."""

LARGEST_MESSAGE: Final = 9 * 1024**2
"""A message of the server's `max_payload`, with its headers."""
LARGEST_IMAGE: Final = 3 * 1024**2
"""The largest image that the intake passes on, with its headers."""
DEAD_LETTERS_KEPT: Final = 90 * 24 * 3600.0
"""Seconds that a dead letter is kept."""
SIDE_SHARE: Final = 16
"""Streams that are best effort hold this part of the others' limit: by default 256 MiB, hours of a tenth of a fab."""
SMALLEST_SIDE: Final = 1024**2
SHADOW_KEPT: Final = 24 * 3600.0
"""Seconds that an image waits for a candidate that does not answer."""

_LIMIT: Final = "fabwafer-limit"
"""Metadata of a stream that refuses messages at present: the limit in bytes that it has otherwise."""

log = structlog.get_logger()


class ConsumerName(StrEnum):
    """Everything that takes messages; the values of the label `consumer`, the same in every metric."""

    INTAKE = "intake"
    CLASSIFY = "classify"
    SHADOW = "shadow"
    RECORD_IMAGES = "record-images"
    RECORD_PREDICTIONS = "record-predictions"
    RECORD_SHADOW = "record-shadow"
    ALERT = "alert"
    GATEWAY = "gateway"


@dataclass(frozen=True, slots=True)
class Durable:
    """A durable consumer of a stream.

    Attributes:
        consumer: Who works on it.
        stream: The stream's name.
        name: Its own name, unique in the stream.
        filters: The subjects it takes; all where there are none.
    """

    consumer: ConsumerName
    stream: str
    name: str
    filters: tuple[str, ...] = ()


DURABLES: Final = {
    durable.consumer: durable
    for durable in (
        Durable(ConsumerName.CLASSIFY, IMAGES, CLASSIFY),
        Durable(ConsumerName.RECORD_IMAGES, IMAGES, RECORD),
        Durable(ConsumerName.RECORD_PREDICTIONS, PREDICTIONS, RECORD),
        Durable(ConsumerName.SHADOW, SHADOW_IMAGES, SHADOW),
        Durable(ConsumerName.RECORD_SHADOW, SHADOW_PREDICTIONS, RECORD),
        # Last: once it is made images may come, and everything behind it must be there.
        Durable(
            ConsumerName.INTAKE,
            MQTT,
            INTAKE,
            (topics.MQTT_PREFIX + topics.IMAGE_TOPICS, topics.MQTT_PREFIX + topics.PREDICTION_TOPICS),
        ),
    )
}
"""The durable consumers, in the order in which they are made."""


class StreamsRefusedError(FabwaferError):
    """The bus refuses the streams for good. The text says why, and what to change."""


def _stream_configs(replicas: int, mqtt_max_bytes: int, max_bytes: int) -> list[StreamConfig]:
    # discard new on the way of an image: a full stream refuses, which is felt upstream as a missing acknowledgement, up
    # to the device, which keeps the message. Neither dead letters nor a slow candidate may hold production up, so
    # their streams discard old.
    # The server keeps retained messages without a limit: a device that retains its images would fill the disk.
    side = max(SMALLEST_SIDE, max_bytes // SIDE_SHARE)

    def of_ours(name: str, subject: str) -> StreamConfig:
        return StreamConfig(
            name=name,
            subjects=[subject],
            retention=RetentionPolicy.INTEREST,
            storage=StorageType.FILE,
            discard=DiscardPolicy.NEW,
            max_bytes=max_bytes,
            num_replicas=replicas,
            duplicate_window=120,
        )

    return [
        StreamConfig(
            name=RETAINED,
            subjects=["$MQTT.rmsgs.>"],
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            discard=DiscardPolicy.OLD,
            max_msgs_per_subject=1,
            max_bytes=side,
            num_replicas=replicas,
        ),
        StreamConfig(
            name=MQTT,
            subjects=[f"{topics.MQTT_PREFIX}>"],
            retention=RetentionPolicy.INTEREST,
            storage=StorageType.FILE,
            discard=DiscardPolicy.NEW,
            max_bytes=mqtt_max_bytes,
            num_replicas=replicas,
        ),
        *(
            StreamConfig(
                name=name,
                subjects=[subject],
                retention=RetentionPolicy.LIMITS,
                storage=StorageType.FILE,
                discard=DiscardPolicy.OLD,
                max_bytes=side,
                max_age=SHADOW_KEPT,
                num_replicas=replicas,
                duplicate_window=120,
            )
            for name, subject in (
                (SHADOW_IMAGES, topics.SHADOW_IMAGES),
                (SHADOW_PREDICTIONS, topics.SHADOW_PREDICTIONS),
            )
        ),
        of_ours(IMAGES, topics.IMAGES),
        of_ours(PREDICTIONS, topics.PREDICTIONS),
        StreamConfig(
            name=DEAD,
            subjects=[topics.DEAD_LETTERS],
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            discard=DiscardPolicy.OLD,
            # A larger message would get its PubAck, and be deleted at once with all others (nats-server 2.15.1).
            max_bytes=max(LARGEST_MESSAGE, max_bytes),
            max_age=DEAD_LETTERS_KEPT,
            num_replicas=replicas,
            duplicate_window=120,
        ),
    ]


def _consumer_config(durable: Durable) -> ConsumerConfig:
    return ConsumerConfig(
        durable_name=durable.name,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ACK_WAIT,
        max_deliver=-1,  # what may succeed later is retried for as long as it takes
        max_ack_pending=4096,
        filter_subjects=list(durable.filters) or None,
    )


async def ensure_streams(js: JetStreamContext, *, replicas: int, mqtt_max_bytes: int, max_bytes: int) -> None:
    """Make the streams and their durable consumers, or bring those there are up to these settings.

    Must be done before any device has credentials: interest retention keeps only what a consumer waits for.

    Args:
        js: The bus's JetStream.
        replicas: Copies of each stream.
        mqtt_max_bytes: The limit of `$MQTT_msgs`.
        max_bytes: The limit of each of IMAGES, PREDICTIONS and DEAD; DEAD holds one message of any size at least.

    Raises:
        nats.errors.Error: The bus is not ready, or refuses; to be tried again.
        TimeoutError: The bus does not answer; to be tried again.
    """
    for config in _stream_configs(replicas, mqtt_max_bytes, max_bytes):
        assert config.name is not None  # noqa: S101 - named right above
        try:
            info = await js.stream_info(config.name)
        except NotFoundError:
            await js.add_stream(config)
        else:
            if config.discard is DiscardPolicy.OLD:  # a lower limit deletes no dead letters
                config = config.evolve(max_bytes=max(config.max_bytes or 0, info.state.bytes))  # noqa: PLW2901
            await js.update_stream(config)
    for durable in DURABLES.values():
        await js.add_consumer(durable.stream, _consumer_config(durable))


def sum_of_limits(mqtt_max_bytes: int, max_bytes: int) -> int:
    """Return what all streams together may hold, in bytes, by the limits of `ensure_streams`."""
    configs = _stream_configs(1, mqtt_max_bytes, max_bytes)
    return sum(config.max_bytes or 0 for config in configs)


async def make_streams(js: JetStreamContext, *, replicas: int, mqtt_max_bytes: int, max_bytes: int) -> None:
    """Make or update the streams as `ensure_streams` does, waiting for a bus that still elects its leaders.

    Raises:
        StreamsRefusedError: The bus has no room for them.
    """
    backoff = Backoff()
    while True:
        try:
            await ensure_streams(js, replicas=replicas, mqtt_max_bytes=mqtt_max_bytes, max_bytes=max_bytes)
        except (NatsError, TimeoutError) as error:
            if isinstance(error, APIError) and error.err_code == NO_ROOM:
                total = sum_of_limits(mqtt_max_bytes, max_bytes)
                raise StreamsRefusedError(
                    f"the bus has no room for the streams: expected {total // 2**20} MiB, "
                    "the sum of their limits; lower FABWAFER_MQTT_MAX_BYTES and FABWAFER_STREAM_MAX_BYTES, or give it "
                    f"more storage ({error.description})"
                ) from None
            log.info("streams not made yet", error=repr(error), pause=backoff.pause)
            await backoff.wait()
        else:
            return


def limit(config: StreamConfig) -> int:
    """Return what a stream may hold, in bytes, whether or not it refuses messages at present; 0 for no limit."""
    return int((config.metadata or {}).get(_LIMIT, 0)) or max(0, config.max_bytes or 0)


async def refuse_messages(js: JetStreamContext, stream: str, *, refuse: bool) -> None:
    """Let a stream that discards new messages refuse them, or take them again up to its limit; it keeps what it holds.

    Raises:
        nats.errors.Error: The bus refuses; to be tried again.
        TimeoutError: The bus does not answer; to be tried again.
    """
    config = (await js.stream_info(stream)).config
    metadata = dict(config.metadata or {})
    if refuse == (_LIMIT in metadata):
        return
    usual = limit(config)
    if refuse:
        metadata[_LIMIT] = str(usual)
    else:
        del metadata[_LIMIT]
    await js.update_stream(config.evolve(max_bytes=1 if refuse else usual, metadata=metadata))


async def wait_for_streams(js: JetStreamContext) -> None:
    """Return when every durable consumer, and so every stream, is there: `fabwafer streams` makes them."""
    backoff = Backoff()
    for durable in DURABLES.values():
        while True:
            try:
                await js.consumer_info(durable.stream, durable.name)
            except ConnectionClosedError:  # for good
                raise
            except (NatsError, TimeoutError) as error:
                log.info("waiting for `fabwafer streams`", stream=durable.stream, error=repr(error))
                await backoff.wait()
            else:
                break
