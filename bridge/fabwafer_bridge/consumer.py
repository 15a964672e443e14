"""The loop that every consumer of a stream runs: take a batch, read, refuse, handle, acknowledge."""

import asyncio
import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

import structlog
from nats.aio.msg import Msg

from fabwafer.maps.image_file import BadImageError
from fabwafer.messages.refusals import MessageRefusedError
from fabwafer.messages.topics import MQTT_PREFIX, sender_subject
from fabwafer.service.logs import RateLimitedLog
from fabwafer_bridge import dead_letters, metrics
from fabwafer_bridge.dead_letters import Reason
from fabwafer_bridge.metrics import Result
from fabwafer_bridge.publisher import Outgoing, Publisher
from fabwafer_bridge.puller import MAX_BYTES, Puller
from fabwafer_bridge.streams import ConsumerName

LINES: Final = 10
"""Lines a second about what was refused, and one more for the rest: the dead letters hold each reason."""

T = TypeVar("T")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Refused:
    """A message that can never succeed.

    Attributes:
        message: As it came.
        reason: A sentence: what was expected and what came.
        code: The kind of refusal.
        whole: Whether the dead letter holds the payload; one that fits into no stream is left out.
    """

    message: Msg
    reason: str
    code: Reason
    whole: bool = True


class Consumer(ABC, Generic[T]):
    """A consumer of a stream. A subclass says how to read a message and what to do with a batch of them.

    What `read` raises makes a dead letter of its message; what `handle` raises ends the process, so it has an answer
    to all that may happen.

    Args:
        name: Its label in the metrics.
        puller: The stream's messages.
        publisher: Stores dead letters.
        most: Messages of one batch.
        most_bytes: Bytes of one batch, or one message that has more.
        pause: Seconds after each batch in which the next one gathers.
    """

    def __init__(
        self,
        name: ConsumerName,
        puller: Puller,
        publisher: Publisher,
        *,
        most: int,
        most_bytes: int = MAX_BYTES,
        pause: float = 0.0,
    ) -> None:
        self._name = name
        self._puller = puller
        self._publisher = publisher
        self._most, self._most_bytes, self._pause = most, most_bytes, pause
        self._refusals = RateLimitedLog(log, "refused", LINES)
        metrics.start_at_zero(name)

    @abstractmethod
    def read(self, message: Msg) -> T:
        """Make of a message what `handle` works on; whatever it raises is the message's fault."""

    @abstractmethod
    async def handle(self, items: Sequence[T]) -> None:
        """Return when the effect of the messages is stored."""

    async def ready(self) -> None:
        """Return when the next batch may be taken."""

    async def run(self) -> None:
        """Work on messages as they come; each is acknowledged after its effect is stored. Does not return."""
        while True:
            await self.ready()
            batch = await self._puller.batch(self._most, self._most_bytes)
            async with self._puller.held(batch):
                await self.process(batch)
            if self._pause:
                await asyncio.sleep(self._pause)

    async def process(self, messages: Sequence[Msg]) -> None:
        """Work on messages, without acknowledging them."""
        items: list[T] = []
        refused: list[Refused] = []
        for message in messages:
            try:
                if from_stream(message) and (message.metadata.num_delivered or 1) > 1:
                    metrics.REDELIVERIES.labels(self._name).inc()
                items.append(self.read(message))
            except Exception as error:
                # What a message brings about once it brings about with each delivery: were it not caught, the process
                # would end again and again, and nothing else would come through.
                refused.append(refusal(message, error))
        if items:
            await self.handle(items)
        if refused:
            await self.refuse(refused)

    async def refuse(self, refused: Sequence[Refused]) -> None:
        """Store messages as dead letters, count and log them."""
        results = await self._publisher.store([self._letter(one) for one in refused])
        too_large = []
        for one, never in zip(refused, results, strict=True):
            if never is not None:
                reason = f"{never} ({len(one.message.data)} bytes)"
                too_large.append(replace(one, reason=reason, code=Reason.TOO_LARGE, whole=False))
                continue
            metrics.DEAD_LETTERS.labels(one.code).inc()
            self.count(Result.DEAD)
            self._refusals.say(subject=sender_subject(one.message.subject), reason=one.reason[:300])
        if too_large:
            await self.refuse(too_large)

    def count(self, result: Result, messages: int = 1) -> None:
        """Count messages by what became of them."""
        metrics.MESSAGES.labels(self._name, result).inc(messages)

    def _letter(self, refused: Refused) -> Outgoing:
        message = refused.message
        subject = sender_subject(message.subject)
        return dead_letters.letter(
            self._name,
            subject=subject,
            # What came without a stream is replayed as if a device had sent it.
            origin=message.subject if from_stream(message) else MQTT_PREFIX + subject,
            payload=message.data if refused.whole else b"",
            reason=refused.reason,
            code=refused.code,
            message_id=f"{self._name}:{_identity(message)}",
            # Those of a native publisher are its own affair.
            headers=(message.headers or {}) if refused.whole and from_stream(message) else {},
        )


def refusal(message: Msg, error: Exception) -> Refused:
    """Return why a message is refused that could not be read."""
    if isinstance(error, (MessageRefusedError, BadImageError)):
        return Refused(message, str(error), Reason(error.code))
    return Refused(message, f"cannot be read: {type(error).__name__}: {error}", Reason.UNEXPECTED)


def from_stream(message: Msg) -> bool:
    """Return whether a stream delivered a message, and not its publisher."""
    return bool(message.reply.startswith("$JS.ACK."))


def _identity(message: Msg) -> str:
    """Return an id that is the same for every delivery of a message."""
    if not from_stream(message):
        return f"{time.time_ns()}:{hashlib.blake2b(message.data, digest_size=16).hexdigest()}"
    metadata = message.metadata
    # With the time, since a stream that is made anew begins to count anew.
    return f"{metadata.stream}:{metadata.sequence.stream}:{metadata.timestamp.timestamp()}"
