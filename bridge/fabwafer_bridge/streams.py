"""The streams on the bus and their durable consumers: where a message waits until its effect is stored."""

from typing import Final

from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError

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
"""What the candidate says of them; nobody but the records hears it."""

MQTT_PREFIX: Final = "$MQTT.msgs."

INTAKE: Final = "intake"
CLASSIFY: Final = "classify"
RECORD: Final = "record"
SHADOW: Final = "shadow"

ACK_WAIT: Final = 30.0
"""Seconds until a message that was not acknowledged is delivered again. Longer than one call of the model server."""

RETAINED_MAX_BYTES: Final = 256 * 1024**2
"""The server keeps retained messages without a limit: a device that retains its images would fill the disk."""
DEAD_LETTERS_KEPT: Final = 90 * 24 * 3600.0
"""Seconds that a dead letter is kept."""
SHADOW_MAX_BYTES: Final = 256 * 1024**2
"""What each stream of the candidate holds: some hours of a tenth of a fab's images. The oldest go first."""
SHADOW_KEPT: Final = 24 * 3600.0
"""Seconds that an image waits for a candidate that does not answer."""


def subject_of_image(fab: str, camera: str, imgid: str) -> str:
    """The subject of an image in IMAGES."""
    return f"fabwafer-images.{fab}.{camera}.{imgid}"


def subject_of_prediction(source: str, fab: str, camera: str, imgid: str) -> str:
    """The subject of a prediction in PREDICTIONS."""
    return f"fabwafer-predictions.{source}.{fab}.{camera}.{imgid}"


def subject_of_shadow_image(fab: str, camera: str, imgid: str) -> str:
    """The subject of a copy for the candidate in SHADOW_IMAGES."""
    return f"fabwafer-shadow.img.{fab}.{camera}.{imgid}"


def subject_of_shadow_prediction(fab: str, camera: str, imgid: str) -> str:
    """The subject of what the candidate says in SHADOW_PREDICTIONS."""
    return f"fabwafer-shadow.prediction.{fab}.{camera}.{imgid}"


def subject_of_dead_letter(consumer: str) -> str:
    """The subject in DEAD of what a consumer refused."""
    return f"fabwafer-dead.{consumer}"


def _stream_configs(replicas: int, mqtt_max_bytes: int, max_bytes: int) -> list[StreamConfig]:
    # discard new on the way of an image: a full stream refuses, which is felt upstream as a missing acknowledgement, up
    # to the device, which keeps the message. Neither rubbish in DEAD nor a candidate that is slow may hold production
    # up, so their streams discard old.
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
            max_bytes=RETAINED_MAX_BYTES,
            num_replicas=replicas,
        ),
        StreamConfig(
            name=MQTT,
            subjects=["$MQTT.msgs.>"],
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
                max_bytes=SHADOW_MAX_BYTES,
                max_age=SHADOW_KEPT,
                num_replicas=replicas,
                duplicate_window=120,
            )
            for name, subject in (
                (SHADOW_IMAGES, "fabwafer-shadow.img.>"),
                (SHADOW_PREDICTIONS, "fabwafer-shadow.prediction.>"),
            )
        ),
        of_ours(IMAGES, "fabwafer-images.>"),
        of_ours(PREDICTIONS, "fabwafer-predictions.>"),
        StreamConfig(
            name=DEAD,
            subjects=["fabwafer-dead.>"],
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            discard=DiscardPolicy.OLD,
            max_bytes=max_bytes,
            max_age=DEAD_LETTERS_KEPT,
            num_replicas=replicas,
            duplicate_window=120,
        ),
    ]


def _consumer_configs() -> list[tuple[str, ConsumerConfig]]:
    def durable(name: str, *filters: str) -> ConsumerConfig:
        return ConsumerConfig(
            durable_name=name,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT,
            max_deliver=-1,  # what may succeed later is retried for as long as it takes
            max_ack_pending=4096,
            filter_subjects=list(filters) or None,
        )

    return [
        (IMAGES, durable(CLASSIFY)),
        (IMAGES, durable(RECORD)),
        (PREDICTIONS, durable(RECORD)),
        (SHADOW_IMAGES, durable(SHADOW)),
        (SHADOW_PREDICTIONS, durable(RECORD)),
        # Last: from here on images may come, and everything behind must stand.
        (MQTT, durable(INTAKE, "$MQTT.msgs.fabwafer.*.*.img.*", "$MQTT.msgs.fabwafer.*.*.prediction.*")),
    ]


async def ensure_streams(js: JetStreamContext, *, replicas: int, mqtt_max_bytes: int, max_bytes: int) -> None:
    """Makes the streams and their durable consumers, or brings those there are up to these settings.

    Must be done before any device has credentials: interest retention keeps only what a consumer waits for.

    Raises:
        nats.errors.Error: The bus is not ready, or refuses; to be tried again.
    """
    for config in _stream_configs(replicas, mqtt_max_bytes, max_bytes):
        assert config.name is not None  # noqa: S101 - named right above
        try:
            await js.stream_info(config.name)
        except NotFoundError:
            await js.add_stream(config)
        else:
            await js.update_stream(config)
    for stream, consumer in _consumer_configs():
        await js.add_consumer(stream, consumer)
