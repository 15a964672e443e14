"""Counts what a nats-server's MQTT listener drops, from the server's log."""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import structlog
from nats.errors import Error as NatsError
from prometheus_client import Counter

from fabwafer_bridge.listener_log import REASONS, LogFollower, grouped
from fabwafer_bridge.system_account import ServerConnection

READ_LOG_EVERY: Final = 0.2
USERS_REMEMBERED: Final = 1024

DROPPED: Final = Counter("fabwafer_mqtt_dropped_total", "What the MQTT listener dropped by itself.", ["reason"])
for _reason in REASONS:
    DROPPED.labels(_reason)

log = structlog.get_logger()


class DropCounter:
    """Counts dropped messages by reason, and logs the device that each came from.

    Args:
        follower: Reads the server's log.
        server: Returns the connection to the server, or None while there is none.
    """

    def __init__(self, follower: LogFollower, server: Callable[[], ServerConnection | None]) -> None:
        self._follower = follower
        self._server = server
        self._users: OrderedDict[int, str | None] = OrderedDict()

    async def run(self) -> None:
        """Follow the log until cancelled."""
        while True:
            lines = self._follower.read()
            for drop, times in grouped(lines).values():
                DROPPED.labels(drop.reason).inc(times)
                log.warning(
                    "dropped",
                    reason=drop.reason,
                    times=times,
                    user=drop.user or await self._user_of(drop.connection),
                    client_id=drop.client_id,
                    address=drop.address,
                    what=drop.what,
                )
            if lines:
                with contextlib.suppress(OSError):  # a full disk: the next time; at worst lines are counted twice
                    self._follower.remember()
            else:
                await asyncio.sleep(READ_LOG_EVERY)

    async def _user_of(self, number: int) -> str | None:
        """Return the user of a connection, which the log does not name, as far as the server still knows it."""
        for _ in range(2):
            server = self._server()
            if number in self._users or server is None:
                break
            try:
                found: dict[str, Any] | None = await server.connection(number)
            except (NatsError, OSError):
                break
            if found is not None:
                self._users[number] = found.get("authorized_user")
                if len(self._users) > USERS_REMEMBERED:
                    self._users.popitem(last=False)
            else:  # for a moment, a closing connection is neither among the open ones nor among the closed ones
                await asyncio.sleep(0.1)
        return self._users.get(number)
