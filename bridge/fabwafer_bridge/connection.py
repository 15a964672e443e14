"""The connection to the bus: made again for as long as it takes."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import nats
import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import NoServersError

RECONNECT_WAIT: Final = 0.2
"""Seconds between tries; a server that was killed is back within a second, and everything waits for it."""

log = structlog.get_logger()


async def connect(
    url: str,
    *,
    name: str,
    reconnected: Callable[[], Awaitable[None]] | None = None,
    closed: Callable[[], Awaitable[None]] | None = None,
) -> Client:
    """Connects to the bus, waiting for it as long as it takes, and from then on connects again by itself.

    Args:
        url: One or more `nats://USER:PASSWORD@HOST:PORT`, separated by commas; the first one's user serves for all.
        name: Shown in the server's list of connections.
        reconnected: Called after each time that the connection was made again.
        closed: Called when the client has given up for good, as it does when a server refuses it in a running
            connection.
    """
    servers = [urlsplit(one) for one in url.split(",")]

    async def on_error(error: Exception) -> None:
        log.info("bus", error=repr(error))

    async def on_disconnect() -> None:
        log.info("bus disconnected")

    async def on_reconnect() -> None:
        log.info("bus connected again")
        if reconnected is not None:
            await reconnected()

    pause = 0.1
    while True:
        try:
            return await nats.connect(
                # Servers that the bus names by itself come without credentials, and are tried again and again.
                servers=[urlunsplit(one._replace(netloc=one.netloc.rpartition("@")[2])) for one in servers],
                user=servers[0].username,
                password=servers[0].password,
                name=name,
                max_reconnect_attempts=-1,
                reconnect_time_wait=RECONNECT_WAIT,
                connect_timeout=2,
                ping_interval=5,
                max_outstanding_pings=2,
                # The first connection is tried here, where each failed try is named.
                allow_reconnect=True,
                error_cb=on_error,
                disconnected_cb=on_disconnect,
                reconnected_cb=on_reconnect,
                closed_cb=closed,
                # What is published while the bus is away is tried again by whoever published it.
                pending_size=16 * 1024 * 1024,
            )
        except (NatsError, NoServersError, OSError, TimeoutError) as error:
            log.info("bus not there yet", error=repr(error))
            await asyncio.sleep(pause)
            pause = min(2 * pause, 2.0)
