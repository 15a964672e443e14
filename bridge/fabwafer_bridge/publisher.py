"""Publishing into streams: a message counts as sent when the stream says that it is stored."""

import asyncio
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import ConnectionReconnectingError, MaxPayloadError
from nats.errors import Error as NatsError
from nats.js.errors import APIError, NoStreamResponseError

from fabwafer.errors import FabwaferError
from fabwafer.service.backoff import Backoff

PUBACK_TIMEOUT: Final = 5.0
FIRST_PAUSE: Final = 0.05

TOO_LARGE_FOR_STREAM: Final = 10054

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message on its way into a stream. Its `Nats-Msg-Id` makes storing it twice the same as once."""

    subject: str
    payload: bytes
    headers: dict[str, str] = field(default_factory=dict)


class NeverStoredError(FabwaferError):
    """The bus can never store this message: it is too large."""


class Publisher:
    """Stores messages in streams, trying for as long as it takes.

    nats-py's own `publish_async` is not used (2.16): an error that the stream answers with leaves its future open, so
    that it looks like silence, and each publish that fails takes one of 4,000 places away for good.

    Args:
        client: The connection to the bus.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._inbox: str = client.new_inbox()
        self._numbers = itertools.count()
        self._open: dict[str, asyncio.Future[BaseException | None]] = {}
        self._listening: asyncio.Task[Any] | None = None

    async def store(self, messages: Sequence[Outgoing]) -> list[NeverStoredError | None]:
        """Store messages; return when each is stored, or known to be one that never can be.

        Args:
            messages: Stored side by side, each under its own `Nats-Msg-Id`.

        Returns:
            For each message None, or why it can never be stored.
        """
        results: list[NeverStoredError | None] = [None] * len(messages)
        open_ones = list(range(len(messages)))
        # Jittered, so that the consumers of several bridges do not try in step.
        backoff = Backoff(FIRST_PAUSE, jitter=True)
        while open_ones:
            outcomes = await self._attempt([messages[index] for index in open_ones])
            failed = []
            reason: BaseException | None = None
            for index, outcome in zip(open_ones, outcomes, strict=True):
                if isinstance(outcome, NeverStoredError):
                    results[index] = outcome
                elif outcome is not None:
                    failed.append(index)
                    reason = outcome
            open_ones = failed
            if open_ones:
                log.warning("not stored yet", messages=len(open_ones), reason=repr(reason), pause=backoff.pause)
                await backoff.wait()
        return results

    async def _attempt(self, messages: Sequence[Outgoing]) -> list[BaseException | None]:
        """Try each message once; return for each None when it is stored, or why it is not."""
        await self._listen()
        # A client that is not connected would keep them, and publish them once for each try when it is again.
        if not self._client.is_connected:
            return [ConnectionReconnectingError()] * len(messages)
        futures: dict[str, asyncio.Future[BaseException | None]] = {}
        try:
            for message in messages:
                reply = f"{self._inbox}.{next(self._numbers)}"
                future = self._open[reply] = futures[reply] = asyncio.get_running_loop().create_future()
                if (size := _size(message)) > self._client.max_payload:
                    # nats-py looks at the payload alone; the server would close the connection, again with each try.
                    future.set_result(NeverStoredError(f"larger than the bus takes: {size} bytes with its headers"))
                    continue
                try:
                    await self._client.publish(
                        message.subject, message.payload, reply=reply, headers=dict(message.headers)
                    )
                except (NatsError, OSError) as error:
                    future.set_result(_verdict(error))
            await asyncio.wait(futures.values(), timeout=PUBACK_TIMEOUT)
        finally:
            for reply in futures:
                del self._open[reply]
        return [
            future.result() if future.done() else TimeoutError(f"no answer within {PUBACK_TIMEOUT:g} s")
            for future in futures.values()
        ]

    async def _listen(self) -> None:
        if self._listening is None:
            # One task for all who come at once: none may publish before the answers are subscribed to.
            self._listening = asyncio.create_task(
                self._client.subscribe(
                    f"{self._inbox}.*", cb=self._answered, pending_msgs_limit=-1, pending_bytes_limit=-1
                )
            )
        await asyncio.shield(self._listening)

    async def _answered(self, message: Msg) -> None:
        future = self._open.get(message.subject)
        if future is not None and not future.done():  # else the answer came too late, and the message was sent again
            future.set_result(_refusal(message))

    async def announce(self, subject: str, payload: bytes, headers: dict[str, str]) -> None:
        """Publish to those who listen now. The prediction is stored already, so a lost announcement loses nothing."""
        try:
            await self._client.publish(subject, payload, headers=headers)
        except (NatsError, OSError) as error:
            log.warning("not announced", subject=subject, reason=repr(error))


def _size(message: Outgoing) -> int:
    """Return the bytes that the server counts: the payload, and the headers as they are written."""
    headers = sum(len(name.encode()) + len(value.encode()) + len(": \r\n") for name, value in message.headers.items())
    return len(message.payload) + headers + len("NATS/1.0\r\n\r\n")


def _refusal(message: Msg) -> BaseException | None:
    if not message.data:  # the server itself states in a header that nobody listens on the subject
        return NoStreamResponseError()
    error = json.loads(message.data).get("error")
    if error is None:
        return None
    return _verdict(APIError(error.get("code"), error.get("description"), error.get("err_code")))


def _verdict(error: BaseException) -> BaseException:
    if isinstance(error, MaxPayloadError) or (isinstance(error, APIError) and error.err_code == TOO_LARGE_FOR_STREAM):
        return NeverStoredError(f"larger than the bus takes: {error}")
    return error
