"""Requests to one nats-server, through its system account."""

import asyncio
import json
from datetime import datetime
from typing import Any, Final, Self

import nats
import structlog
from nats.aio.client import Client
from nats.errors import TimeoutError as NatsTimeoutError

from fabwafer.errors import FabwaferError
from fabwafer.service.addresses import split_credentials

ANSWER_SECONDS: Final = 10
ALL_ANSWERS_SECONDS: Final = 0.5
"""Servers of a cluster answer one after the other; none does after a pause of this length."""
_OPEN_AND_CLOSED: Final = 2

log = structlog.get_logger()


class ReloadRefusedError(FabwaferError):
    """The server did not accept its configuration. The text is the server's."""


class ServerConnection:
    """A connection to the system account, which sends requests to its own server and to no other of its cluster."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.name = str(client._server_info["server_name"])
        """The server's name."""

    @classmethod
    async def open(cls, url: str, lost: asyncio.Event) -> Self:
        """Connect to a server; see `connect_once`."""
        return cls(await connect_once(url, "device-auth of the server", lost))

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()

    async def reload(self) -> None:
        """Have the server read its configuration again.

        Raises:
            ReloadRefusedError: The configuration is wrong; the server goes on with what it had.
        """
        answer = await self._request("RELOAD", {})
        if "error" in answer:
            raise ReloadRefusedError(str(answer["error"].get("description")))

    async def configuration_loaded(self) -> float:
        """Return when the server last read its configuration, in seconds since 1970."""
        answer = await self._request("VARZ", {})
        return datetime.fromisoformat(answer["data"]["config_load_time"]).timestamp()

    async def connection(self, number: int) -> dict[str, Any] | None:
        """Return what the server knows of a client's connection, open or closed; None if it does not know it."""
        answer = await self._request("CONNZ", {"cid": number, "auth": True, "state": _OPEN_AND_CLOSED})
        found = answer.get("data", {}).get("connections")
        return dict(found[0]) if found else None

    async def newest_user_of(self, client_id: str) -> str | None:
        """Return the user of the newest connection with an MQTT client id, on whatever server of the cluster it is."""
        query = {"mqtt_client": client_id, "auth": True, "state": _OPEN_AND_CLOSED}
        answers = self._client.new_inbox()
        subscription = await self._client.subscribe(answers)
        found: list[dict[str, Any]] = []
        try:
            await self._client.publish("$SYS.REQ.SERVER.PING.CONNZ", json.dumps(query).encode(), reply=answers)
            while True:
                message = await subscription.next_msg(timeout=ALL_ANSWERS_SECONDS)
                found += json.loads(message.data).get("data", {}).get("connections") or ()
        except NatsTimeoutError:  # nobody says how many servers there are
            pass
        finally:
            await subscription.unsubscribe()
        newest = max(found, key=lambda one: datetime.fromisoformat(one["start"]), default=None)
        return newest.get("authorized_user") if newest else None

    async def _request(self, what: str, body: dict[str, Any]) -> dict[str, Any]:
        subject = f"$SYS.REQ.SERVER.{self._client._server_info['server_id']}.{what}"
        answer = await self._client.request(subject, json.dumps(body).encode(), timeout=ANSWER_SECONDS)
        return dict(json.loads(answer.data))


async def connect_once(url: str, name: str, lost: asyncio.Event) -> Client:
    """Connect to one server; the connection is not made again, since in a cluster it could reach another server.

    Args:
        url: `nats://USER:PASSWORD@HOST:PORT`.
        name: Shown in the server's list of connections.
        lost: Set when the connection is lost.

    Raises:
        nats.errors.Error: The server refuses the connection or does not answer.
        OSError: It cannot be reached.
    """

    async def on_closed() -> None:
        lost.set()

    async def on_error(error: Exception) -> None:
        log.info("server", error=repr(error))

    signed_in = split_credentials(url)
    return await nats.connect(
        signed_in.servers,
        user=signed_in.user,
        password=signed_in.password,
        name=name,
        allow_reconnect=False,
        connect_timeout=5,
        ping_interval=5,
        max_outstanding_pings=2,
        closed_cb=on_closed,
        error_cb=on_error,
    )
