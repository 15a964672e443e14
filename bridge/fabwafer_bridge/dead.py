"""Dead letters: what can never succeed, kept with the reason until somebody looks, and replayed on request."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from nats.aio.client import Client
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from fabwafer_bridge.publisher import Outgoing
from fabwafer_bridge.streams import DEAD, subject_of_dead_letter

REASON: Final = "Fabwafer-Reason"
SUBJECT: Final = "Fabwafer-Subject"
ORIGIN: Final = "Fabwafer-Origin"
SIZE: Final = "Nats-Msg-Size"

LONGEST_REASON: Final = 500


def letter(
    consumer: str, *, subject: str, origin: str, payload: bytes, reason: str, message_id: str, headers: dict[str, str]
) -> Outgoing:
    """Makes the dead letter of a message.

    Args:
        consumer: Who refuses it.
        subject: What it was published on, as its sender would say it.
        origin: The stream's subject that a replay publishes it on.
        payload: The message as it came.
        reason: What was expected and what came.
        message_id: The same for every delivery of the message, so that it is kept once.
        headers: The message's own, carried on for the replay.
    """
    line = " ".join(reason.split())
    return Outgoing(
        subject_of_dead_letter(consumer),
        payload,
        {
            **{key: value for key, value in headers.items() if key.startswith("Fabwafer-")},
            REASON: line[:LONGEST_REASON].encode("ascii", "backslashreplace").decode(),
            SUBJECT: subject,
            ORIGIN: origin,
            "Nats-Msg-Id": f"dead:{message_id}",
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
    """Lists the dead letters, oldest first, without fetching their payloads."""
    try:
        count = (await js.stream_info(DEAD)).state.messages
    except NotFoundError:
        return
    if not count:
        return
    config = ConsumerConfig(
        deliver_policy=DeliverPolicy.ALL, ack_policy=AckPolicy.NONE, headers_only=True, inactive_threshold=60
    )
    info = await js.add_consumer(DEAD, config)
    subscription = await js.pull_subscribe_bind(consumer=info.name, stream=DEAD)
    try:
        while count > 0:
            for message in await subscription.fetch(min(count, 256), timeout=5):
                headers = message.headers or {}
                count -= 1
                yield DeadLetter(
                    id=message.metadata.sequence.stream,
                    subject=headers.get(SUBJECT, message.subject),
                    reason=headers.get(REASON, ""),
                    time=_iso(message.metadata.timestamp),
                    size=int(headers.get(SIZE, "0")),
                )
    except NatsTimeoutError:  # some went by age or replay while they were listed
        return
    finally:
        with contextlib.suppress(NotFoundError):
            await js.delete_consumer(DEAD, info.name)


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")


async def replay(client: Client, js: JetStreamContext, sequence: int) -> str:
    """Sends a dead letter on its way again, and takes it off the list once it is stored there.

    Args:
        client: The connection to the bus.
        js: Its JetStream.
        sequence: The dead letter's id.

    Returns:
        The subject that it was published on.

    Raises:
        nats.js.errors.NotFoundError: There is no such dead letter.
    """
    message = await js.get_msg(DEAD, sequence)
    headers = dict(message.headers or {})
    origin: str = headers[ORIGIN]
    kept = {key: value for key, value in headers.items() if key not in (REASON, SUBJECT, ORIGIN, "Nats-Msg-Id")}
    # An id of its own for this replay: the one it once had may still be in the stream's window of duplicates. A replay
    # that is killed between the two steps is replayed again, under the same id.
    created = (message.time or datetime.now(UTC)).timestamp()
    await js.publish(
        origin, message.data or b"", headers={**kept, "Nmqtt-Pub": "1", "Nats-Msg-Id": f"replay:{sequence}:{created}"}
    )
    await js.delete_msg(DEAD, sequence)
    return origin
