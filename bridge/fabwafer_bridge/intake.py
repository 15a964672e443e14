"""The intake: checks each message once, and passes it on to the stream of its kind or to the dead letters."""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg

from fabwafer.maps.image_file import probe
from fabwafer.messages.bodies import read_device_prediction, read_image
from fabwafer.messages.headers import MESSAGE, MESSAGE_ID, MQTT_PUBLISH, PIXELS, SOURCE, Receipt
from fabwafer.messages.topics import (
    IMAGE_TOPICS,
    PREDICTION_TOPICS,
    Topic,
    sender_subject,
    subject_of_image,
    subject_of_prediction,
)
from fabwafer_bridge.consumer import Consumer, Refused, from_stream
from fabwafer_bridge.dead_letters import Reason
from fabwafer_bridge.metrics import Result
from fabwafer_bridge.publisher import Outgoing, Publisher
from fabwafer_bridge.puller import Puller
from fabwafer_bridge.streams import ConsumerName

BATCH: Final = 256
ENOUGH: Final = 1000
"""Images that wait for classify above which no more are passed on for now; seconds of work for one model server."""
LOOK_EVERY: Final = 0.25


def checked(subject: str, payload: bytes, receipt: Receipt, replay: str = "") -> Outgoing:
    """Check a message as a device sent it, and return it as its stream holds it.

    Args:
        subject: `fabwafer.<fab>.<camera>.img|prediction.<imgid>`.
        payload: The message's body.
        receipt: When it was received.
        replay: The id of a replay, which is not taken for what was seen before.

    Raises:
        MessageRefusedError: It is no message; the text says why.
        BadImageError: Its image is none.
    """
    topic = Topic.from_subject(subject)
    if topic.kind == "img":
        image = read_image(topic, payload)
        info = probe(image.data)
        metadata = image.metadata
        line = metadata.to_header()
        target = subject_of_image(metadata.fab, metadata.camera, metadata.imgid)
        body, more = image.data, {MESSAGE: line, PIXELS: str(info.width * info.height)}
        digest = _digest(line.encode(), body)
    else:
        prediction = read_device_prediction(topic, payload)
        target = subject_of_prediction("device", prediction.fab, prediction.camera, prediction.imgid)
        body, more = prediction.to_json(), {}
        digest = _digest(body)
    # An id by content: what a device sends again because it saw no PUBACK is the same message, not a later shot.
    return Outgoing(target, body, {MESSAGE_ID: replay + digest, **receipt.headers, **more})


def _digest(*parts: bytes) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Passed:
    """A message that passed the check, as it came and as it goes on."""

    message: Msg
    outgoing: Outgoing


class Intake(Consumer[Passed]):
    """Takes what devices published: from `$MQTT_msgs` with acknowledgement, and best effort from the core.

    Args:
        client: The connection to the bus.
        puller: Messages of `$MQTT_msgs`.
        publisher: Stores what passes, and dead letters.
        behind: Returns how many images wait for a classify that is at work.
        stopped: Returns whether nothing may be taken in, since the disk is full.
    """

    def __init__(
        self,
        client: Client,
        puller: Puller,
        publisher: Publisher,
        behind: Callable[[], Awaitable[int]],
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(ConsumerName.INTAKE, puller, publisher, most=BATCH)
        self._client = client
        self._behind = behind
        self._stopped = stopped
        self._looked = 0.0

    async def ready(self) -> None:
        """Wait while the disk is full, or the consumers behind have enough to do: they need the processor more.

        Meanwhile messages stay in `$MQTT_msgs`; when it is full, devices get no PUBACK.
        """
        while self._stopped():  # noqa: ASYNC110 - nobody tells when the disk has room
            await asyncio.sleep(LOOK_EVERY)
        if time.monotonic() - self._looked < LOOK_EVERY:
            return
        while await self._behind() > ENOUGH:  # noqa: ASYNC110 - the bus has to be asked
            await asyncio.sleep(LOOK_EVERY)
        self._looked = time.monotonic()

    async def listen(self) -> None:
        """Start to take what native publishers and those with QoS 0 send, as far as it arrives."""
        for subject in (IMAGE_TOPICS, PREDICTION_TOPICS):
            await self._client.subscribe(subject, queue="fabwafer-intake", cb=self._take)

    async def _take(self, message: Msg) -> None:
        headers = message.headers or {}
        if headers.get(MQTT_PUBLISH) == "1" or SOURCE in headers:
            return  # the durable has it; or the bridge itself announced it
        if self._stopped():
            self.count(Result.DROPPED)
            return
        await self.process([message])

    def read(self, message: Msg) -> Passed:
        """Check a message."""
        if from_stream(message):
            metadata = message.metadata
            receipt = Receipt(int(metadata.timestamp.timestamp() * 1000), metadata.sequence.stream)
        else:
            receipt = Receipt(time.time_ns() // 1_000_000, 0)
        replay = (message.headers or {}).get(MESSAGE_ID, "")
        return Passed(message, checked(sender_subject(message.subject), message.data, receipt, replay))

    async def handle(self, items: Sequence[Passed]) -> None:
        """Store messages in the streams of their kind."""
        results = await self._publisher.store([one.outgoing for one in items])
        # What fits into no stream is a dead letter without its payload.
        refused = [
            Refused(one.message, f"{never} ({len(one.message.data)} bytes)", Reason.TOO_LARGE, whole=False)
            for one, never in zip(items, results, strict=True)
            if never is not None
        ]
        self.count(Result.PASSED, len(items) - len(refused))
        if refused:
            await self.refuse(refused)
