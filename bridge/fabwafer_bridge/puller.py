"""Pulling a durable's messages ahead, so that the next batch is here when the last one is done."""

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from fabwafer_bridge.streams import ACK_WAIT

EXPIRES: Final = 30.0
HEARTBEAT: Final = 5.0
STOP_SECONDS: Final = 2.0
"""What stop() waits for the bus, which may be away."""
MAX_BYTES: Final = 16 * 1024 * 1024
"""What may wait here at once; twice the largest message, so that none is larger than what was asked for."""


class Puller:
    """One durable consumer's messages, in batches of what is there.

    nats-py's own `fetch` waits for a full batch or its timeout; here a lone message comes at once, and under load the
    next messages are on their way while a batch is worked on.

    Args:
        client: The connection to the bus.
        stream: The stream's name.
        durable: The consumer's name.
        window: How many messages may wait here.
    """

    def __init__(self, client: Client, stream: str, durable: str, *, window: int = 512) -> None:
        self._client = client
        self._request_subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"
        self._window = window
        self._waiting: deque[tuple[float, Msg]] = deque()
        self._asked = 0
        self._arrived = asyncio.Event()
        self._heard = 0.0
        self._subscription: Any = None
        self._inbox = ""
        self._stopped = False
        self._at_work = 0

    async def start(self) -> None:
        """Start to pull."""
        self._inbox = self._client.new_inbox()
        self._subscription = await self._client.subscribe(
            self._inbox, cb=self._receive, pending_msgs_limit=-1, pending_bytes_limit=-1
        )
        await self._ask()

    async def stop(self) -> None:
        """Stop pulling, and give what waits here back for others at once."""
        self._stopped = True
        # To the end: what the server has sent already would be lost on the way, and come again only after ACK_WAIT.
        with contextlib.suppress(NatsError, TimeoutError):
            await asyncio.wait_for(self._subscription.drain(), timeout=STOP_SECONDS)
        waiting, self._waiting = self._waiting, deque()
        await _give_back([message for _, message in waiting])

    async def batch(self, limit: int, max_bytes: int = MAX_BYTES) -> list[Msg]:
        """Wait for messages, and return what is there: at least one, at most `limit` or about `max_bytes` bytes."""
        while True:
            taken = self._take(limit, max_bytes)
            if taken:
                await self._top_up()
                return taken
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), timeout=1.0)
            except TimeoutError:
                # Requests end with a server or a leader without notice: silence longer than two heartbeats shows it.
                if time.monotonic() - self._heard > 2.5 * HEARTBEAT:
                    self._asked = 0
                await self._top_up()

    @contextlib.asynccontextmanager
    async def held(self, messages: Sequence[Msg]) -> AsyncIterator[None]:
        """Keep messages from being delivered again while they are worked on, and acknowledge those not given back.

        When the work is cancelled, as at the end of the process, they are given back for others at once.
        """

        async def extend() -> None:
            while True:
                await asyncio.sleep(ACK_WAIT / 3)
                for message in messages:
                    if not message.is_acked:
                        with contextlib.suppress(NatsError):
                            await message.in_progress()

        self._at_work += 1
        task = asyncio.create_task(extend())
        try:
            yield
            for message in messages:
                if not message.is_acked:  # else it was given back
                    with contextlib.suppress(NatsError):  # a lost acknowledgement only means one more delivery
                        await message.ack()
        except asyncio.CancelledError:
            await _give_back(messages)
            raise
        finally:
            task.cancel()
            self._at_work -= 1

    @property
    def busy(self) -> bool:
        """Whether messages from here are being worked on."""
        return self._at_work > 0

    async def renew(self) -> None:
        """Request again after a reconnect: the server has forgotten the requests before."""
        self._asked = 0
        await self._ask()

    def _take(self, limit: int, max_bytes: int) -> list[Msg]:
        taken: list[Msg] = []
        size = 0
        # With the first extension of held() still to come in a third of the time, before the server delivers it again.
        stale = time.monotonic() - ACK_WAIT / 2
        while self._waiting and len(taken) < limit and not self._stopped:
            arrived, message = self._waiting[0]
            if taken and size + len(message.data) > max_bytes:
                break
            self._waiting.popleft()
            if arrived < stale:
                continue  # waited here too long: the server will deliver it again
            taken.append(message)
            size += len(message.data)
        return taken

    async def _receive(self, message: Msg) -> None:
        self._heard = time.monotonic()
        status = message.headers.get("Status") if message.headers and not message.data else None
        if status is None or message.reply.startswith("$JS.ACK."):
            self._asked = max(0, self._asked - 1)
            self._waiting.append((self._heard, message))
            self._arrived.set()
        elif status != "100":  # anything but a heartbeat ends a request
            pending = (message.headers or {}).get("Nats-Pending-Messages")
            if pending is None:  # nobody answers for the consumer, or it takes no requests now: batch() asks again
                self._asked = 0
            else:
                self._asked = max(0, self._asked - int(pending))
                await self._top_up()

    async def _top_up(self) -> None:
        if self._asked + len(self._waiting) <= self._window // 2:
            await self._ask()

    async def _ask(self) -> None:
        wanted = self._window - self._asked - len(self._waiting)
        if wanted <= 0 or self._stopped or not self._client.is_connected:
            return
        self._asked += wanted
        self._heard = time.monotonic()
        request = {
            "batch": wanted,
            "max_bytes": MAX_BYTES,
            "expires": int(EXPIRES * 1e9),
            "idle_heartbeat": int(HEARTBEAT * 1e9),
        }
        with contextlib.suppress(NatsError):
            await self._client.publish(self._request_subject, json.dumps(request).encode(), reply=self._inbox)


async def _give_back(messages: Iterable[Msg]) -> None:
    """Have messages delivered to others at once; without it they would wait for the end of ACK_WAIT."""
    for message in messages:
        if not message.is_acked:
            with contextlib.suppress(NatsError):
                await message.nak()
