"""Messages on the bus that are not processed yet, read for a backup and published again by a restore."""

import base64
import contextlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from fabwafer.errors import FabwaferError
from fabwafer_bridge.publisher import NeverStoredError, Outgoing, Publisher
from fabwafer_bridge.streams import DEAD, DURABLES, IMAGES, MQTT, PREDICTIONS

STREAMS: Final = (DEAD, MQTT, IMAGES, PREDICTIONS, DEAD)
"""In the order of a message's way, so that one that moves on while the others are read is found further down. Dead
letters are read first, too: a replay takes one back to where it came from."""

_HELD: Final = (IMAGES, PREDICTIONS)
_HELD_SECONDS: Final = 900.0
"""After which the bus lets go by itself, for a process that was killed; a million messages are read in this time."""
_MESSAGES_AT_ONCE: Final = 64
_BYTES_AT_ONCE: Final = 16 * 1024**2


class StreamsMissingError(FabwaferError):
    """The bus does not have the streams, or not their durable consumers. The text says what to do."""


class NotHeldError(FabwaferError):
    """The bus did not hold what is unprocessed until it was read. The text says what to do."""


@dataclass(frozen=True, slots=True)
class StreamMessage:
    """A message as a stream holds it."""

    stream: str
    subject: str
    headers: dict[str, str]
    payload: bytes

    def to_line(self) -> str:
        """Write it as a line of JSON."""
        payload = base64.b64encode(self.payload).decode()
        return json.dumps({"stream": self.stream, "subject": self.subject, "headers": self.headers, "payload": payload})

    @classmethod
    def from_line(cls, line: str) -> Self:
        """Read what `to_line` wrote."""
        fields = json.loads(line)
        return cls(fields["stream"], fields["subject"], fields["headers"], base64.b64decode(fields["payload"]))


@asynccontextmanager
async def held(js: JetStreamContext) -> AsyncIterator[dict[str, int]]:
    """Have the bus keep what is not processed yet, for the body of the `async with`; nobody is held up by it.

    What is stored in the records within the body stays in IMAGES and PREDICTIONS, too. So whoever looks at the records
    within it, and reads the messages after that, finds each message with its effect in one of the two at least.

    Yields:
        By stream, the sequence up to which all was processed at the beginning, for `unprocessed`.

    Raises:
        NotHeldError: The bus let go before the body had ended.
        StreamsMissingError: The streams are not there.
        nats.errors.Error: The bus is away.
        TimeoutError: The bus does not answer.
    """
    config = ConsumerConfig(
        deliver_policy=DeliverPolicy.ALL, ack_policy=AckPolicy.EXPLICIT, inactive_threshold=_HELD_SECONDS
    )
    holders: dict[str, str] = {}
    async with AsyncExitStack() as stack:
        try:
            for stream in _HELD:
                holders[stream] = (await js.add_consumer(stream, config)).name
                stack.push_async_callback(_let_go, js, stream, holders[stream])
            processed = await _processed(js)
        except NotFoundError as error:
            raise StreamsMissingError(
                f"the bus does not have the streams and their consumers ({error.description}): make them with "
                "`fabwafer streams` first"
            ) from None
        yield processed
        for stream, holder in holders.items():
            try:
                await js.consumer_info(stream, holder)
            except NotFoundError:
                raise NotHeldError(
                    f"the bus held {stream} no longer than {_HELD_SECONDS:g} s, and what waits on it took longer to "
                    "read: try again when fewer messages wait"
                ) from None


async def _let_go(js: JetStreamContext, stream: str, consumer: str) -> None:
    with contextlib.suppress(NatsError, TimeoutError):  # it goes by itself, too
        await js.delete_consumer(stream, consumer)


async def _processed(js: JetStreamContext) -> dict[str, int]:
    """Return, by stream, the sequence up to which every durable consumer has acknowledged."""
    found = dict.fromkeys(STREAMS, 0)
    for stream in found:
        floors = [
            (await js.consumer_info(stream, durable.name)).ack_floor
            for durable in DURABLES.values()
            if durable.stream == stream
        ]
        found[stream] = min((int(floor.stream_seq) if floor else 0 for floor in floors), default=0)
    return found


async def unprocessed(js: JetStreamContext, processed: Mapping[str, int]) -> AsyncIterator[StreamMessage]:
    """Yield the messages that wait in the streams, and all dead letters.

    A message may be among them twice, in two streams or after its effect was stored; receiving it again changes
    nothing. They are read without a consumer, which would take them from others.

    Args:
        js: The bus's JetStream.
        processed: See `held`.

    Raises:
        nats.errors.Error: The bus is away.
        TimeoutError: The bus does not answer.
    """
    read = dict(processed)
    for stream in STREAMS:
        info = await js.stream_info(stream)
        first, last = read[stream] + 1, info.state.last_seq
        read[stream] = last
        filters = {subject for durable in DURABLES.values() if durable.stream == stream for subject in durable.filters}
        for subject in sorted(filters or set(info.config.subjects or ())):
            async for message in _messages(js, stream, subject, first, last):
                yield message


async def _messages(
    js: JetStreamContext, stream: str, subject: str, first: int, last: int
) -> AsyncIterator[StreamMessage]:
    sequence = first
    while sequence <= last:
        try:
            found = await js.get_msg(stream, seq=sequence, subject=subject, next=True)
        except NotFoundError:
            return
        assert found.seq is not None  # noqa: S101 - what was read has them
        assert found.subject is not None  # noqa: S101
        if found.seq > last:
            return
        yield StreamMessage(stream, found.subject, found.headers or {}, found.data or b"")
        sequence = found.seq + 1


async def waiting(js: JetStreamContext) -> dict[str, int]:
    """Return how many messages are not processed yet, by stream; streams without any are left out.

    Raises:
        StreamsMissingError: The streams are not there.
    """
    found = {}
    for stream in dict.fromkeys(STREAMS):
        try:
            durables = [durable for durable in DURABLES.values() if durable.stream == stream]
            infos = [await js.consumer_info(stream, durable.name) for durable in durables]
            counts = [(info.num_pending or 0) + (info.num_ack_pending or 0) for info in infos]
            if not durables:
                counts = [(await js.stream_info(stream)).state.messages]
        except NotFoundError:
            raise StreamsMissingError(
                f"the bus has no stream {stream} with its consumers: make them with `fabwafer streams` first"
            ) from None
        if count := max(counts):
            found[stream] = count
    return found


async def publish_again(publisher: Publisher, messages: Iterator[StreamMessage]) -> tuple[int, list[NeverStoredError]]:
    """Publish messages into the streams that they came from, waiting for room in each.

    A message keeps its headers, and so its `Nats-Msg-Id`, if it has one.

    Returns:
        How many were stored, and why the others never can be.
    """
    stored, refused = 0, []
    for batch in _batches(messages):
        results = await publisher.store([Outgoing(one.subject, one.payload, one.headers) for one in batch])
        never = [result for result in results if result is not None]
        refused += never
        stored += len(batch) - len(never)
    return stored, refused


def _batches(messages: Iterator[StreamMessage]) -> Iterator[list[StreamMessage]]:
    batch: list[StreamMessage] = []
    size = 0
    for message in messages:
        batch.append(message)
        size += len(message.payload)
        if len(batch) >= _MESSAGES_AT_ONCE or size >= _BYTES_AT_ONCE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def read_messages(file: Path) -> Iterator[StreamMessage]:
    """Yield the messages of a file, a line each."""
    with file.open(encoding="ascii") as lines:
        for line in lines:
            yield StreamMessage.from_line(line)
