"""Counts what a nats-server's MQTT listener drops, from the server's log."""

import asyncio
import contextlib
import json
from collections import Counter as Tally
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import structlog
from nats.errors import Error as NatsError
from prometheus_client import Counter

from fabwafer_bridge.listener_log import REASONS, LogFollower, TakenClientId, grouped, read_taken_client_id
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
        echo: Called with each line of the log.
    """

    def __init__(
        self,
        follower: LogFollower,
        server: Callable[[], ServerConnection | None],
        echo: Callable[[str], None] | None = None,
    ) -> None:
        self._follower = follower
        self._echo = echo
        self._server = server
        self._users: OrderedDict[int, str | None] = OrderedDict()
        self._users_of: ServerConnection | None = None

    async def run(self) -> None:
        """Follow the log until cancelled."""
        while True:
            lines = self._follower.read()
            if self._echo is not None:
                for line in lines:
                    self._echo(line)
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
            await self._count_taken([taken for line in lines if (taken := read_taken_client_id(line)) is not None])
            if lines:
                with contextlib.suppress(OSError):  # a full disk: the next time; at worst lines are counted twice
                    self._follower.remember()
            else:
                await asyncio.sleep(READ_LOG_EVERY)

    async def _count_taken(self, taken: list[TakenClientId]) -> None:
        """Count client ids that another user took; a device that connects anew takes its own, and is not counted."""
        times: Tally[tuple[str, str, str]] = Tally()
        addresses: dict[str, str] = {}
        elsewhere: dict[str, str | None] = {}
        for one in taken:
            user = await self._user_of(one.closed)
            if one.by is not None:
                by = await self._user_of(one.by)
            else:
                if one.client_id not in elsewhere:
                    elsewhere[one.client_id] = await self._newest_user_of(one.client_id)
                by = elsewhere[one.client_id]
            if user is None or by is None:
                log.info("client id taken", client_id=one.client_id, user=user, by=by, address=one.address)
            elif user != by:
                times[user, by, one.client_id] += 1
                addresses[user] = one.address
        for (user, by, client_id), count in times.items():
            DROPPED.labels("client_id_taken").inc(count)
            log.warning(
                "dropped",
                reason="client_id_taken",
                times=count,
                user=user,
                by=by,
                client_id=client_id,
                address=addresses[user],
                what=f"{by} connected with the client id of {user}, whose connection was closed; its session is "
                "erased if the new one is a clean one",
            )

    async def _newest_user_of(self, client_id: str) -> str | None:
        """Return the user who last connected with a client id, to any server of the cluster."""
        server = self._server()
        if server is None:
            return None
        try:
            # The log has it as Go quotes a string, which is JSON but for what no sane client id holds.
            return await server.newest_user_of(json.loads(f'"{client_id}"'))
        except (NatsError, OSError, ValueError):
            return None

    async def _user_of(self, number: int) -> str | None:
        """Return the user of a connection, which the log does not name, as far as the server still knows it."""
        for _ in range(2):
            server = self._server()
            if server is not self._users_of:  # a server that was started again counts its connections anew
                self._users.clear()
                self._users_of = server
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
