"""The loop that every consumer of a stream runs: take a batch, read, refuse, handle, acknowledge."""

import asyncio
import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

import aiohttp
import structlog
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from fabwafer.maps.image_file import BadImageError
from fabwafer.messages.refusals import MessageRefusedError
from fabwafer.messages.topics import MQTT_PREFIX, sender_subject
from fabwafer.records import RecordsUnavailableError
from fabwafer.service.backoff import Backoff
from fabwafer.service.logs import RateLimitedLog
from fabwafer_bridge import dead_letters, metrics
from fabwafer_bridge.dead_letters import Reason
from fabwafer_bridge.inference import ModelServerError
from fabwafer_bridge.metrics import Result
from fabwafer_bridge.publisher import Outgoing, Publisher
from fabwafer_bridge.puller import MAX_BYTES, Puller
from fabwafer_bridge.streams import ConsumerName

LINES: Final = 10
"""Lines a second about what was refused, and one more for the rest: the dead letters hold each reason."""
OUTAGES: Final = (NatsError, OSError, TimeoutError, aiohttp.ClientError, RecordsUnavailableError, ModelServerError)
"""What says nothing about a message: it is tried again for as long as it takes."""
LONGEST_PAUSE: Final = 5.0
TRIES_ALONE: Final = 5
"""After so many failures alone a message is a dead letter, if another one succeeded since the first of them."""
RETRY_AFTER: Final = 1.0
"""Seconds until a message that failed alone is delivered again; others are worked on meanwhile."""
FAILING: Final = 8192
"""Messages whose failures are remembered, twice what may be unacknowledged at once; the oldest are forgotten first."""

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


@dataclass(slots=True)
class Failures:
    """How often a message failed alone, and since when (of the monotonic clock)."""

    since: float
    alone: int = 0


class Consumer(ABC, Generic[T]):
    """A consumer of a stream. A subclass says how to read a message and what to do with a batch of them.

    What `read` raises makes a dead letter of its message. What `handle` raises never ends the process. An outage (see
    `OUTAGES`) is waited for. Anything else counts against one message, and only while others succeed: a batch that
    fails is tried again message by message, and a message that fails alone is given back to the stream and tried again.
    Where no message succeeds, the fault is taken for the consumer's own: it pauses, is unready, and keeps them all.

    Args:
        name: Its label in the metrics.
        puller: The stream's messages.
        publisher: Stores dead letters.
        most: Messages of one batch.
        most_bytes: Bytes of one batch, or one message that has more.
        pause: Seconds after each batch in which the next one gathers.

    Attributes:
        unready: Why no message succeeds at present, or None.
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
        self.unready: str | None = None
        self._failing: dict[str, Failures] = {}
        self._succeeded = float("-inf")
        self._backoff = Backoff(longest=LONGEST_PAUSE)
        metrics.start_at_zero(name)

    @abstractmethod
    def read(self, message: Msg) -> T:
        """Make of a message what `handle` works on; whatever it raises is the message's fault."""

    @abstractmethod
    async def handle(self, items: Sequence[T]) -> None:
        """Return when the effect of the messages is stored; what is tried again may be stored already."""

    async def ready(self) -> None:
        """Return when the next batch may be taken."""

    async def run(self) -> None:
        """Work on messages as they come; each is acknowledged after its effect is stored. Does not return."""
        while True:
            failed = False
            try:
                await self.ready()
                # Where all fail, one at a time shows when they succeed again.
                batch = await self._puller.batch(1 if self.unready else self._most, self._most_bytes)
                async with self._puller.held(batch):
                    await self.process(batch)
            except Exception as error:  # what is not acknowledged is delivered again
                failed = True
                log.exception("consumer failed", consumer=self._name)
                if not isinstance(error, OUTAGES):
                    self._stall(error)
            if failed or self.unready:
                await self._backoff.wait()
            elif self._pause:
                await asyncio.sleep(self._pause)

    async def process(self, messages: Sequence[Msg]) -> None:
        """Work on messages, without acknowledging them; those to be tried again are given back."""
        items: list[tuple[Msg, T]] = []
        refused: list[Refused] = []
        for message in messages:
            try:
                if from_stream(message) and (message.metadata.num_delivered or 1) > 1:
                    metrics.REDELIVERIES.labels(self._name).inc()
                items.append((message, self.read(message)))
            except Exception as error:
                # What a message brings about once it brings about with each delivery: were it not caught, the process
                # would end again and again, and nothing else would come through.
                refused.append(refusal(message, error))
        if items:
            refused += await self._effect(items)
        if refused:
            await self.refuse(refused)

    def blame(self, message: Msg, error: Exception) -> Refused:
        """Return why a message is refused that fails while others succeed."""
        sentence = f"failed {TRIES_ALONE} times while others succeeded: {type(error).__name__}: {error}"
        return Refused(message, sentence, Reason.UNEXPECTED)

    async def _effect(self, items: Sequence[tuple[Msg, T]]) -> list[Refused]:
        """Handle messages, together or each alone; give back those to be tried again, and return those to refuse."""
        began = time.monotonic()
        if len(items) > 1 and await self._failure([item for _, item in items]) is None:
            self._forget([message for message, _ in items])
            return []
        refused: list[Refused] = []
        failed: list[tuple[Msg, Exception]] = []
        for message, item in items:
            error = await self._failure([item])
            if error is None:
                self._forget([message])
            elif from_stream(message):
                failed.append((message, error))
            else:  # it is delivered once
                sentence = f"failed, and came without a stream: {type(error).__name__}: {error}"
                refused.append(Refused(message, sentence, Reason.UNEXPECTED))
        for message, error in failed:
            key = _identity(message)
            failures = self._failing.setdefault(key, Failures(began))
            failures.alone += 1
            if self._succeeded < failures.since:
                self._stall(error)
            if failures.alone >= TRIES_ALONE and not self.unready:
                del self._failing[key]
                refused.append(self.blame(message, error))
            else:
                self.count(Result.RETRIED)
                await message.nak(RETRY_AFTER)
        while len(self._failing) > FAILING:
            del self._failing[next(iter(self._failing))]
        return refused

    async def _failure(self, items: Sequence[T]) -> Exception | None:
        """Handle messages, however long there is an outage; return what was raised else, or None."""
        backoff = Backoff(longest=LONGEST_PAUSE)
        while True:
            try:
                await self.handle(items)
            except OUTAGES as error:
                log.warning("not done yet", consumer=self._name, messages=len(items), reason=str(error)[:300])
                self.count(Result.RETRIED, len(items))
                await backoff.wait()
            except Exception as error:
                log.warning("failed", consumer=self._name, messages=len(items), reason=repr(error)[:300])
                return error
            else:
                self._succeeded, self.unready = time.monotonic(), None
                self._backoff.reset()
                return None

    def _forget(self, messages: Sequence[Msg]) -> None:
        if self._failing:
            for message in messages:
                self._failing.pop(_identity(message), None)

    def _stall(self, error: Exception) -> None:
        self.unready = f"{self._name}: no message succeeds, {type(error).__name__}: {str(error)[:300]}"

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
