"""Publishing into streams: a message counts as sent when the stream says that it is stored."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError
from nats.js import JetStreamContext
from nats.js.api import PubAck
from nats.js.errors import APIError

PUBACK_TIMEOUT: Final = 5.0
FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 2.0

TOO_LARGE_FOR_STREAM: Final = 10054

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message on its way into a stream. Its `Nats-Msg-Id` makes storing it twice the same as once."""

    subject: str
    payload: bytes
    headers: dict[str, str] = field(default_factory=dict)


class NeverStoredError(RuntimeError):
    """The bus can never store this message: it is too large."""


class Publisher:
    """Stores messages in streams, trying for as long as it takes."""

    def __init__(self, client: Client, js: JetStreamContext) -> None:
        self._client = client
        self._js = js

    async def store(self, messages: Sequence[Outgoing]) -> list[NeverStoredError | None]:
        """Returns when each message is stored, or known to be one that never can be.

        Args:
            messages: Stored side by side, each under its own `Nats-Msg-Id`.

        Returns:
            For each message None, or why it can never be stored.
        """
        results: list[NeverStoredError | None] = [None] * len(messages)
        open_ones = list(range(len(messages)))
        pause = FIRST_PAUSE
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
                log.warning("not stored yet", messages=len(open_ones), reason=repr(reason), pause=pause)
                # Jittered, so that the consumers of several bridges do not knock in step.
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
                pause = min(2 * pause, LONGEST_PAUSE)
        return results

    async def _attempt(self, messages: Sequence[Outgoing]) -> list[BaseException | None]:
        futures: list[asyncio.Future[PubAck] | BaseException] = []
        for message in messages:
            try:
                futures.append(
                    await self._js.publish_async(
                        message.subject, message.payload, wait_stall=PUBACK_TIMEOUT, headers=dict(message.headers)
                    )
                )
            except (NatsError, TimeoutError, OSError) as error:
                futures.append(_verdict(error))
        pending = [future for future in futures if isinstance(future, asyncio.Future)]
        if pending:
            await asyncio.wait(pending, timeout=PUBACK_TIMEOUT)
        outcomes: list[BaseException | None] = []
        for future in futures:
            if not isinstance(future, asyncio.Future):
                outcomes.append(future)
            elif not future.done():
                future.cancel()
                outcomes.append(TimeoutError(f"no answer within {PUBACK_TIMEOUT:g} s"))
            else:
                failure = future.exception()
                outcomes.append(None if failure is None else _verdict(failure))
        return outcomes

    async def announce(self, subject: str, payload: bytes, headers: dict[str, str]) -> None:
        """Publishes to whoever listens now. Its record is stored already, so a lost one is no lost prediction."""
        try:
            await self._client.publish(subject, payload, headers=headers)
        except (NatsError, OSError) as error:
            log.warning("not announced", subject=subject, reason=repr(error))


def _verdict(error: BaseException) -> BaseException:
    if isinstance(error, MaxPayloadError) or (isinstance(error, APIError) and error.err_code == TOO_LARGE_FOR_STREAM):
        return NeverStoredError(f"larger than the bus takes: {error}")
    return error
