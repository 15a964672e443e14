"""Messages on the bus that are not processed yet, read for a backup and published again by a restore."""

import base64
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from fabwafer.errors import FabwaferError
from fabwafer_bridge.publisher import NeverStoredError, Outgoing, Publisher
from fabwafer_bridge.streams import DEAD, DURABLES, IMAGES, MQTT, PREDICTIONS

STREAMS: Final = (DEAD, MQTT, IMAGES, PREDICTIONS, DEAD)
"""In the order of a message's way, so that one that moves on while the others are read is found further down. Dead
letters are read first, too: a replay takes one back to where it came from."""

_MESSAGES_AT_ONCE: Final = 64
_BYTES_AT_ONCE: Final = 16 * 1024**2


class StreamsMissingError(FabwaferError):
    """The bus does not have the streams, or not their durable consumers. The text says what to do."""


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


async def unprocessed(js: JetStreamContext) -> AsyncIterator[StreamMessage]:
    """Yield every message of the streams that some consumer has not acknowledged, and all dead letters.

    What was stored before the first is yielded is among them, or was processed: its effect is in the records. A message
    may be among them twice, in two streams or after its effect was stored; receiving it again changes nothing. The
    messages are read without a consumer, which would change what the streams hold.

    Raises:
        StreamsMissingError: The streams are not there.
        nats.errors.Error: The bus is away.
        TimeoutError: The bus does not answer.
    """
    read: dict[str, int] = {}
    for stream in STREAMS:
        try:
            info = await js.stream_info(stream)
            durables = [durable for durable in DURABLES.values() if durable.stream == stream]
            consumers = [await js.consumer_info(stream, durable.name) for durable in durables]
        except NotFoundError:
            raise _missing(stream) from None
        # Before the consumer that is furthest behind, everything is acknowledged.
        behind = [int(consumer.ack_floor.stream_seq) if consumer.ack_floor else 0 for consumer in consumers]
        first = max(read.get(stream, 0), min(behind, default=0)) + 1
        read[stream] = info.state.last_seq
        filters = {subject for durable in durables for subject in durable.filters} or set(info.config.subjects or ())
        for subject in sorted(filters):
            async for message in _messages(js, stream, subject, first, info.state.last_seq):
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
            raise _missing(stream) from None
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


def _missing(stream: str) -> StreamsMissingError:
    return StreamsMissingError(
        f"the bus has no stream {stream} with its consumers: make them with `fabwafer streams` first"
    )
