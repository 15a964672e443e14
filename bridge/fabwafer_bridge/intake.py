"""The intake: checks each message once, and passes it on to the stream of its kind or to the dead letters."""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from fabwafer.maps.image_file import BadImageError, probe
from fabwafer.messages.bodies import MessageRefusedError, Topic, read_device_prediction, read_image
from fabwafer.service.logs import RateLimitedLog
from fabwafer_bridge import dead_letters, metrics, streams
from fabwafer_bridge.publisher import NeverStoredError, Outgoing, Publisher
from fabwafer_bridge.puller import Puller

RECEIVED: Final = "Fabwafer-Received"
SEQUENCE: Final = "Fabwafer-Sequence"
SOURCE: Final = "Fabwafer-Source"
PIXELS: Final = "Fabwafer-Pixels"
MESSAGE_ID: Final = "Nats-Msg-Id"

BATCH: Final = 256
ENOUGH: Final = 1000
"""Images that wait for classify above which no more are passed on for now; seconds of work for one model server."""
LOOK_EVERY: Final = 0.25
CORE_SUBJECTS: Final = ("fabwafer.*.*.img.*", "fabwafer.*.*.prediction.*")

TOO_LARGE: Final = "too_large"
LINES: Final = 10
"""Lines a second about what was refused, and one more for the rest: the dead letters hold each reason."""

log = structlog.get_logger()


def checked(subject: str, payload: bytes, *, received: int, sequence: int, headers: dict[str, str]) -> Outgoing:
    """Checks a message as a device sent it, and says where it goes.

    Args:
        subject: `fabwafer.<fab>.<camera>.img|prediction.<imgid>`.
        payload: The message's body.
        received: When it was stored, in milliseconds by the stream's clock.
        sequence: Its place in that stream; orders what was received in the same millisecond.
        headers: The message's own headers.

    Returns:
        The message for IMAGES or PREDICTIONS, or its dead letter with the reason.
    """
    try:
        target, body, more = _read(subject, payload)
    except Exception as refusal:
        reason = str(refusal)
        if isinstance(refusal, (MessageRefusedError, BadImageError)):
            code = refusal.code
        else:
            # Whatever else a device's bytes bring about, they bring about again: were it not caught, each delivery
            # would end the bridge, and nothing else would come through.
            reason = f"cannot be read: {type(refusal).__name__}: {refusal}"
            code = "unexpected"
        return dead_letters.letter(
            streams.INTAKE,
            subject=subject,
            origin=streams.MQTT_PREFIX + subject,
            payload=payload,
            reason=reason,
            code=code,
            message_id=f"{received}:{sequence}:{_digest(payload)}",
            headers=headers,
        )
    return Outgoing(
        target,
        body,
        {
            # By content: whatever a device sends again because it saw no PUBACK is the same message, not a later shot.
            # A replay comes with an id of its own in front, and is not taken for what was seen before.
            MESSAGE_ID: headers.get(MESSAGE_ID, "") + _digest(body),
            RECEIVED: str(received),
            SEQUENCE: str(sequence),
            **more,
        },
    )


def _read(subject: str, payload: bytes) -> tuple[str, bytes, dict[str, str]]:
    """Reads a message as a device sent it; returns its subject further on, its body as we write it, and headers."""
    topic = Topic.from_subject(subject)
    if topic.kind == "img":
        image = read_image(topic, payload)
        info = probe(image.file())
        pixels = {PIXELS: str(info.width * info.height)}
        return streams.subject_of_image(image.fab, image.camera, image.imgid), image.to_json(), pixels
    said = read_device_prediction(topic, payload)
    return streams.subject_of_prediction("device", said.fab, said.camera, said.imgid), said.to_json(), {}


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


class Intake:
    """Takes what devices published: from `$MQTT_msgs` with acknowledgement, and best effort from the core.

    Args:
        client: The connection to the bus.
        puller: Messages of `$MQTT_msgs`.
        publisher: Stores what passes, and dead letters.
        behind: Tells how many images wait for a classify that is at work.
    """

    def __init__(
        self, client: Client, puller: Puller, publisher: Publisher, behind: Callable[[], Awaitable[int]]
    ) -> None:
        self._client = client
        self._puller = puller
        self._publisher = publisher
        self._behind = behind
        self._looked = 0.0
        self._refused = RateLimitedLog(log, "refused", LINES)

    async def run(self) -> None:
        """Passes on what QoS 1 publishers were given a PUBACK for; acknowledged when it is stored further on."""
        while True:
            await self._until_room()
            batch = await self._puller.batch(BATCH)
            async with self._puller.kept(batch):
                await self._pass_on([_checked_mqtt(message) for message in batch])

    async def _until_room(self) -> None:
        """Waits while the consumers behind have enough to do: under flood they need the processor more.

        What waits does so in `$MQTT_msgs`, which says so to the devices when it is full.
        """
        if time.monotonic() - self._looked < LOOK_EVERY:
            return
        while await self._behind() > ENOUGH:  # noqa: ASYNC110 - the bus tells only who asks
            await asyncio.sleep(LOOK_EVERY)
        self._looked = time.monotonic()

    async def listen(self) -> None:
        """Begins to take what native publishers and those with QoS 0 send, as far as it arrives."""
        for subject in CORE_SUBJECTS:
            await self._client.subscribe(subject, queue="fabwafer-intake", cb=self._take)

    async def _take(self, message: Msg) -> None:
        headers = message.headers or {}
        if headers.get("Nmqtt-Pub") == "1" or SOURCE in headers:
            return  # the durable has it; or the bridge itself announced it
        own = {key: value for key, value in headers.items() if key == MESSAGE_ID}
        received = time.time_ns() // 1_000_000
        await self._pass_on([checked(message.subject, message.data, received=received, sequence=0, headers=own)])

    async def _pass_on(self, outgoing: list[Outgoing]) -> None:
        results = await self._publisher.store(outgoing)
        for message, never in zip(outgoing, results, strict=True):
            if never is not None:
                # The payload itself does not fit: the letter tells of it, without the payload.
                metrics.DEAD_LETTERS.labels(TOO_LARGE).inc()
                self._refused.say(subject=message.subject, reason=str(never))
                await self._publisher.store([_without_payload(message, never)])
            elif dead_letters.REASON in message.headers:
                metrics.DEAD_LETTERS.labels(message.headers[dead_letters.CODE]).inc()
                metrics.MESSAGES.labels(streams.INTAKE, "dead").inc()
                self._refused.say(
                    subject=message.headers[dead_letters.SUBJECT], reason=message.headers[dead_letters.REASON]
                )
            else:
                metrics.MESSAGES.labels(streams.INTAKE, "passed").inc()


def _checked_mqtt(message: Msg) -> Outgoing:
    metadata = message.metadata
    if metadata.num_delivered and metadata.num_delivered > 1:
        metrics.REDELIVERIES.labels(streams.INTAKE).inc()
    headers = message.headers or {}
    return checked(
        message.subject.removeprefix(streams.MQTT_PREFIX),
        message.data,
        received=int(metadata.timestamp.timestamp() * 1000),
        sequence=metadata.sequence.stream,
        headers={key: value for key, value in headers.items() if key == MESSAGE_ID},
    )


def _without_payload(message: Outgoing, never: NeverStoredError) -> Outgoing:
    return dead_letters.letter(
        streams.INTAKE,
        subject=message.subject,
        origin=message.subject,
        payload=b"",
        reason=f"{never} ({len(message.payload)} bytes)",
        code=TOO_LARGE,
        message_id=message.headers[MESSAGE_ID],
        headers={},
    )
