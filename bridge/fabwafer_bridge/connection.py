"""The connection to the bus, which is made again for as long as it takes."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import nats
import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError

from fabwafer.service.addresses import split_credentials
from fabwafer.service.backoff import Backoff

RECONNECT_WAIT: Final = 0.2
"""Seconds between tries; a server that was killed is back within a second, and everything waits for it."""

CLOSED_EVERY: Final = 0.5

log = structlog.get_logger()


async def connect(
    url: str,
    *,
    name: str,
    reconnected: Callable[[], Awaitable[None]] | None = None,
) -> Client:
    """Connect to the bus, waiting for it as long as it takes; the client reconnects by itself from then on.

    Args:
        url: One or more `nats://USER:PASSWORD@HOST:PORT`, separated by commas; the credentials of the first are used
            for all.
        name: Shown in the server's list of connections.
        reconnected: Called after each reconnection.
    """
    signed_in = split_credentials(url)

    async def on_error(error: Exception) -> None:
        log.info("bus", error=repr(error))

    async def on_disconnect() -> None:
        log.info("bus disconnected")

    async def on_reconnect() -> None:
        log.info("bus connected again")
        if reconnected is not None:
            await reconnected()

    backoff = Backoff()
    while True:
        try:
            return await nats.connect(
                # Credentials apart from the URLs, for the servers that the bus announces, which come without any.
                servers=signed_in.servers,
                user=signed_in.user,
                password=signed_in.password,
                name=name,
                max_reconnect_attempts=-1,
                reconnect_time_wait=RECONNECT_WAIT,
                connect_timeout=2,
                ping_interval=5,
                max_outstanding_pings=2,
                # The first connection is tried in this loop, which logs each failed try.
                allow_reconnect=True,
                error_cb=on_error,
                disconnected_cb=on_disconnect,
                reconnected_cb=on_reconnect,
                # What is published while the bus is away is tried again by whoever published it.
                pending_size=16 * 1024 * 1024,
            )
        except (NatsError, OSError) as error:
            log.info("bus not there yet", error=repr(error))
            await backoff.wait()


async def until_closed(client: Client) -> None:
    """Return only by raising, when the client has given up for good, as after an error that the server answers with.

    Its own callback for that is not called where closing the connection fails (nats-py 2.16).

    Raises:
        ConnectionError: It has; a new process has to begin anew.
    """
    while not client.is_closed:  # noqa: ASYNC110 - the client tells nobody
        await asyncio.sleep(CLOSED_EVERY)
    raise ConnectionError("the client of the bus has given up; a new process has to begin anew")
