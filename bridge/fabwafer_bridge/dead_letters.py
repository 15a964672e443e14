"""Dead letters: messages that can never succeed, stored with the reason, and replayed on request."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from fabwafer.messages.headers import CODE, MESSAGE_ID, MQTT_PUBLISH, ORIGIN, PREFIX, REASON, SIZE, SUBJECT
from fabwafer.messages.topics import DEAD_LETTERS, subject_of_dead_letter
from fabwafer_bridge.publisher import Outgoing
from fabwafer_bridge.streams import DEAD


class Reason(StrEnum):
    """Why a message is refused for ever: the label of its metric, and the header `Fabwafer-Code` of its dead letter."""

    TOPIC = "topic"
    NAME = "name"
    JSON = "json"
    FIELD = "field"
    FIELDS_TOO_LARGE = "fields_too_large"
    MISMATCH = "mismatch"
    BASE64 = "base64"
    UNREADABLE = "unreadable"
    TRUNCATED = "truncated"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_LARGE = "too_large"
    UNEXPECTED = "unexpected"
    MODEL_SERVER_FAILED = "model_server_failed"
    REFUSED_BY_MODEL = "refused_by_model"
    REFUSED_BY_RECORDS = "refused_by_records"


LONGEST_REASON: Final = 500
SILENCE: Final = 5.0
"""Seconds without a letter after which a listing asks whether there are any more."""


def letter(
    consumer: str,
    *,
    subject: str,
    origin: str,
    payload: bytes,
    reason: str,
    code: Reason,
    message_id: str,
    headers: Mapping[str, str],
) -> Outgoing:
    """Make the dead letter of a message.

    Args:
        consumer: The consumer that refuses it.
        subject: The subject that its sender published it on.
        origin: The stream's subject that a replay publishes it on.
        payload: The message as it came.
        reason: A sentence: what was expected and what came.
        code: The kind of refusal.
        message_id: The same for every delivery of the message, so that it is kept once.
        headers: The message's own, carried on for the replay.
    """
    line = " ".join(reason.split())
    return Outgoing(
        subject_of_dead_letter(consumer),
        payload,
        {
            **{key: value for key, value in headers.items() if key.startswith(PREFIX)},
            REASON: line[:LONGEST_REASON].encode("ascii", "backslashreplace").decode(),
            CODE: code.value,
            SUBJECT: subject,
            ORIGIN: origin,
            MESSAGE_ID: f"dead:{message_id}",
        },
    )


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter as it is listed; `time` is when it was refused, `size` its bytes."""

    id: int
    subject: str
    reason: str
    time: str
    size: int


async def listed(js: JetStreamContext) -> AsyncIterator[DeadLetter]:
    """List the dead letters, oldest first, without fetching their payloads.

    Raises:
        TimeoutError: The bus went silent before all were listed.
    """
    try:
        state = (await js.stream_info(DEAD)).state
    except NotFoundError:
        return
    count, reached = state.messages, 0
    if not count:
        return
    config = ConsumerConfig(
        deliver_policy=DeliverPolicy.ALL, ack_policy=AckPolicy.NONE, headers_only=True, inactive_threshold=60
    )
    info = await js.add_consumer(DEAD, config)
    subscription = await js.pull_subscribe_bind(consumer=info.name, stream=DEAD)
    try:
        while count > 0:
            for message in await subscription.fetch(min(count, 256), timeout=SILENCE):
                headers = message.headers or {}
                count -= 1
                reached = message.metadata.sequence.stream
                yield DeadLetter(
                    id=reached,
                    subject=headers.get(SUBJECT, message.subject),
                    reason=headers.get(REASON, ""),
                    time=_iso(message.metadata.timestamp),
                    size=int(headers.get(SIZE, "0")),
                )
    except NatsTimeoutError:
        # Some went by age or replay while they were listed, or the bus fell silent: a list cut short must not pass for
        # the whole.
        if await _any_left(js, reached, state.last_seq):
            raise TimeoutError(f"the bus fell silent with {count} of {state.messages} dead letters unlisted") from None
    finally:
        with contextlib.suppress(NatsError):  # it goes by itself, too
            await js.delete_consumer(DEAD, info.name)


async def _any_left(js: JetStreamContext, reached: int, last: int) -> bool:
    """Return whether the stream holds letters after `reached` up to `last`; one that does not answer may well."""
    try:
        following = await js.get_msg(DEAD, reached + 1, subject=DEAD_LETTERS, next=True)
    except NotFoundError:
        return False
    except NatsTimeoutError:
        return True
    return following.seq is None or following.seq <= last


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")


async def replay(js: JetStreamContext, sequence: int) -> str:
    """Publish a dead letter on its origin again, and delete it once it is stored there.

    Args:
        js: The bus's JetStream.
        sequence: The dead letter's id.

    Returns:
        The subject that it was published on.

    Raises:
        nats.js.errors.NotFoundError: There is no such dead letter.
    """
    message = await js.get_msg(DEAD, sequence)
    headers = dict(message.headers or {})
    origin: str = headers[ORIGIN]
    carried = {key: value for key, value in headers.items() if key not in (REASON, CODE, SUBJECT, ORIGIN, MESSAGE_ID)}
    # An id of its own for this replay: the one it once had may still be in the stream's window of duplicates. A replay
    # that is killed between the two steps is replayed again, under the same id.
    created = (message.time or datetime.now(UTC)).timestamp()
    await js.publish(
        origin, message.data or b"", headers={**carried, MQTT_PUBLISH: "1", MESSAGE_ID: f"replay:{sequence}:{created}"}
    )
    await js.delete_msg(DEAD, sequence)
    return origin
