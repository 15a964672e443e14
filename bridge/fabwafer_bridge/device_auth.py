"""Device-auth: the sidecar that writes a nats-server's device users, and counts what its MQTT listener drops."""

import asyncio
import json
from collections import OrderedDict
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import nats
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError
from prometheus_client import Counter

from fabwafer.errors import FabwaferError
from fabwafer.service.files import replace_file
from fabwafer_bridge import listener_log, streams
from fabwafer_bridge.devices import APPLIED, CHANGES, Device, Devices

BURST_SECONDS: Final = 0.05
"""Changes that come within this time of each other are applied by one reload."""
LOOK_EVERY: Final = 1.0
"""Seconds after which the registry is looked at although nothing was heard."""
READ_LOG_EVERY: Final = 0.2
AGAIN_AFTER: Final = 0.5
AFTER_REFUSAL: Final = 5.0
USERS_REMEMBERED: Final = 1024
READ_WITHIN: Final = 2.0
"""Seconds within which a server that starts has surely read its files."""

# The bridge's own user. The server takes these from its environment, so no file holds them.
_BRIDGE: Final = "  {user: $FABWAFER_BRIDGE_USER, password: $FABWAFER_BRIDGE_PASSWORD}\n"

DROPPED: Final = Counter("fabwafer_mqtt_dropped_total", "What the MQTT listener dropped by itself.", ["reason"])
for _reason in listener_log.REASONS:
    DROPPED.labels(_reason)
RELOADS: Final = Counter("fabwafer_device_auth_reloads_total", "Reloads of the list of users.", ["result"])
for _result in ("ok", "refused"):
    RELOADS.labels(_result)

log = structlog.get_logger()


class ReloadRefusedError(FabwaferError):
    """The server did not take the list of users. The text is the server's."""


def users_file(devices: Iterable[Device]) -> str:
    """The server's list of users: the bridge's own, then the devices'."""
    return "users = [\n" + _BRIDGE + "".join(user_line(device) for device in devices) + "]\n"


def user_line(device: Device) -> str:
    """The line of the users file for a device: what it may do.

    The server needs no more permissions for its MQTT sessions than those. `name/#` covers `name` itself in MQTT, so a
    device that subscribes to all of its own needs that subject as well. With publish permissions alone, it could
    read everything.
    """
    own = f"fabwafer.{device.fab}.{device.camera}"
    return (
        f'  {{user: "{device.user}", password: "{device.hash}", allowed_connection_types: ["MQTT"], permissions: '
        f'{{publish: ["{own}.img.*", "{own}.prediction.*"], subscribe: ["{own}", "{own}.>"]}}}}\n'
    )


class DeviceAuth:
    """The sidecar of one nats-server.

    Args:
        server_url: The server's own address, with the device-auth's user of the system account.
        bus_url: The same server's address, with the bridge's user.
        users_path: The file that the server's configuration includes.
        log_file: The server's log.
        replicas: Copies of the registry, should it have to be made.
    """

    def __init__(self, *, server_url: str, bus_url: str, users_path: Path, log_file: Path, replicas: int) -> None:
        self._server_url = server_url
        self._bus_url = bus_url
        self._users_path = users_path
        self._follower = listener_log.LogFollower(log_file, users_path.with_name("listener-log.position"))
        self._replicas = replicas
        self._applied: int | None = None
        self._server: Client | None = None
        self._users: OrderedDict[int, str | None] = OrderedDict()

    @property
    def unready(self) -> str | None:
        """Why the server's users are not as they should be, or None."""
        return None if self._applied is not None else "the server's users are not in place yet"

    async def run(self) -> None:
        """Works until it is cancelled; a server that is away is waited for."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_users())
            tasks.create_task(self._count_drops())

    async def _keep_users(self) -> None:
        said = ""
        while True:
            pause = AGAIN_AFTER
            try:
                await self._session()
            except (NatsError, OSError, TimeoutError, ReloadRefusedError) as error:
                if said != (said := repr(error)):
                    log.warning("server's users not in place", error=said)
                if isinstance(error, ReloadRefusedError):
                    pause = AFTER_REFUSAL
            finally:
                self._applied = None
                self._server = None
            await asyncio.sleep(pause)

    async def _session(self) -> None:
        """Keeps the users right for as long as both connections hold, starting from nothing known.

        The connections do not make themselves again: in a cluster they would end up at another server.
        """
        lost = asyncio.Event()
        server = await _connect(self._server_url, "device-auth of the server", lost)
        try:
            bus = await _connect(self._bus_url, "device-auth", lost)
            try:
                self._server = server
                await self._apply_changes(server, bus, lost)
            finally:
                await bus.close()
        finally:
            await server.close()

    async def _apply_changes(self, server: Client, bus: Client, lost: asyncio.Event) -> None:
        changed = asyncio.Event()

        async def hear(_: Msg) -> None:
            changed.set()

        async def answer(message: Msg) -> None:
            if self._applied is not None:
                answer = {"server": server._server_info["server_name"], "revision": self._applied}
                await message.respond(json.dumps(answer).encode())

        await self._until_intake(server, bus)
        devices = await Devices.make(bus, replicas=self._replicas)
        await bus.subscribe(CHANGES, cb=hear)
        await bus.subscribe(APPLIED, cb=answer)
        copy = devices.copy()
        while not lost.is_set():
            changed.clear()
            if await copy.catch_up() or self._applied is None:
                await self._apply(server, copy.devices)
                self._applied = copy.revision
            await _first(changed, lost, seconds=LOOK_EVERY)
            if changed.is_set():
                await asyncio.sleep(BURST_SECONDS)
        raise ConnectionError("the server is away")

    async def _until_intake(self, server: Client, bus: Client) -> None:
        """Lets no device in before the stream that keeps its messages stands with the consumer they are kept for."""
        shut = False
        while True:
            try:
                await bus.jetstream().consumer_info(streams.MQTT, streams.INTAKE)
            except NotFoundError:
                if not shut:
                    await self._apply(server, [])
                    log.info("no device is let in before the bridge has made its streams")
                    shut = True
                await asyncio.sleep(0.2)
            else:
                return

    async def _apply(self, server: Client, devices: list[Device]) -> None:
        """Writes the users file and has the server read it.

        Raises:
            ReloadRefusedError: It did not take it; the file is again what it was.
        """
        fresh = users_file(devices)
        before = self._users_path.read_text() if self._users_path.exists() else None
        if fresh != before:
            replace_file(self._users_path, fresh)
        elif await self._has_read(server):
            return
        answer = await _ask(server, "RELOAD", {})
        if "error" not in answer:
            RELOADS.labels("ok").inc()
            log.info("users in place", devices=len(devices))
            return
        RELOADS.labels("refused").inc()
        # A server that starts with a broken file does not start at all.
        if before is not None and fresh != before:
            replace_file(self._users_path, before)
        raise ReloadRefusedError(str(answer["error"].get("description")))

    async def _has_read(self, server: Client) -> bool:
        """Whether the server has read the users file as it is.

        A reload that is not needed is better left out: right after a start all devices connect, and one that does so
        during a reload can be made to wait for 5 s and to try again (2.15.1).
        """
        loaded = datetime.fromisoformat((await _ask(server, "VARZ", {}))["data"]["config_load_time"])
        return self._users_path.stat().st_mtime + READ_WITHIN < loaded.timestamp()

    async def _count_drops(self) -> None:
        while True:
            lines = self._follower.read()
            for drop, times in listener_log.grouped(lines).values():
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
                self._follower.remember()
            else:
                await asyncio.sleep(READ_LOG_EVERY)

    async def _user_of(self, connection: int) -> str | None:
        """Who a connection belongs to, as far as the server still knows: its log does not say."""
        for _ in range(2):
            if connection in self._users or self._server is None:
                break
            try:
                # State 2: whether it is open or closed.
                answer = await _ask(self._server, "CONNZ", {"cid": connection, "auth": True, "state": 2})
            except (NatsError, OSError, TimeoutError):
                break
            if found := answer.get("data", {}).get("connections"):
                self._users[connection] = found[0].get("authorized_user")
                if len(self._users) > USERS_REMEMBERED:
                    self._users.popitem(last=False)
            else:  # for a moment, a connection that closes is neither among the open nor among the closed ones
                await asyncio.sleep(0.1)
        return self._users.get(connection)


async def _connect(url: str, name: str, lost: asyncio.Event) -> Client:
    async def on_closed() -> None:
        lost.set()

    async def on_error(error: Exception) -> None:
        log.info("server", error=repr(error))

    return await nats.connect(
        url,
        name=name,
        allow_reconnect=False,
        connect_timeout=5,
        ping_interval=5,
        max_outstanding_pings=2,
        closed_cb=on_closed,
        error_cb=on_error,
    )


async def _ask(server: Client, what: str, body: dict[str, Any]) -> dict[str, Any]:
    """Asks the server that this connection is with, and no other of its cluster."""
    subject = f"$SYS.REQ.SERVER.{server._server_info['server_id']}.{what}"
    answer = await server.request(subject, json.dumps(body).encode(), timeout=10)
    return dict(json.loads(answer.data))


async def _first(*events: asyncio.Event, seconds: float) -> None:
    """Waits for the first of some events, but not for longer than `seconds`."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
