"""The sidecar of a nats-server: writes its users, renews its certificate, and counts what its MQTT listener drops."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError
from prometheus_client import Counter
from pydantic import Field, SecretStr, model_validator

from fabwafer.service.addresses import with_credentials
from fabwafer.service.files import replace_file
from fabwafer.service.settings import BusSettings, MetricsSettings, variable
from fabwafer_bridge import streams
from fabwafer_bridge.certificate import CertificateError, ListenerCertificate
from fabwafer_bridge.devices import APPLIED, CHANGES, Device, Devices
from fabwafer_bridge.drop_counter import DropCounter
from fabwafer_bridge.listener_log import LogFollower
from fabwafer_bridge.system_account import ReloadRefusedError, ServerConnection, connect_once
from fabwafer_bridge.users_file import users

BURST_SECONDS: Final = 0.05
"""Changes that come within this time of each other are applied by one reload."""
POLL_SECONDS: Final = 1.0
"""Seconds after which the registry is read although no change was announced."""
RETRY_SECONDS: Final = 0.5
RETRY_AFTER_REFUSAL_SECONDS: Final = 5.0
STARTUP_SECONDS: Final = 2.0
"""Seconds within which a starting server has read its files."""

RELOADS: Final = Counter("fabwafer_device_auth_reloads_total", "Reloads of the users file.", ["result"])
for _result in ("ok", "refused"):
    RELOADS.labels(_result)

CERTIFICATES: Final = Counter(
    "fabwafer_device_auth_certificates_total", "New certificates of the listener.", ["result"]
)
for _result in ("ok", "refused"):
    CERTIFICATES.labels(_result)

log = structlog.get_logger()


class DeviceAuthSettings(BusSettings, MetricsSettings):
    """Settings of device-auth; each is read from FABWAFER_<NAME>. `nats_url` is its own server's address."""

    nats_system_url: str
    """The same server's address for the system account."""
    nats_system_user: str | None = None
    """A user of the system account, where the URL holds none; `device-auth` in the `nats.conf` shipped."""
    nats_system_password: SecretStr | None = None
    """Its password."""
    users_file: Path
    """The file with the device users that the server's configuration includes."""
    log_file: Path
    """The server's log."""
    replicas: int = Field(default=1, ge=1, le=5)
    """Copies of the registry of devices: 1 on one machine, 3 in a cluster."""
    tls_source: Path | None = None
    """The folder with the listener's `tls.crt` and `tls.key` as others renew them. Default: the listener has no TLS."""
    tls_copy: Path | None = None
    """The folder that the server reads them from; with `tls_source`."""
    echo_log: bool = False
    """Whether the lines of the server's log are repeated on stdout."""

    @model_validator(mode="after")
    def _source_and_copy(self) -> Self:
        if (self.tls_source is None) != (self.tls_copy is None):
            missing, given = ("tls_copy", "tls_source") if self.tls_copy is None else ("tls_source", "tls_copy")
            raise ValueError(f"{missing}: expected a folder, since {variable(given)} is set")
        return self

    @property
    def certificate(self) -> ListenerCertificate | None:
        """The listener's certificate, None where it has no TLS."""
        if self.tls_source is None or self.tls_copy is None:
            return None
        return ListenerCertificate(self.tls_source, self.tls_copy)

    @property
    def server_url(self) -> str:
        """The server's address for the system account, with the credentials."""
        return with_credentials(self.nats_system_url, self.nats_system_user, self.nats_system_password)


class DeviceAuth:
    """The sidecar of one nats-server.

    Args:
        server_url: The server's address, with a user of its system account.
        bus_url: The same server's address, with the bridge's user.
        users_path: The file that the server's configuration includes.
        log_file: The server's log.
        replicas: Copies of the registry, where it does not exist yet.
        certificate: The listener's, None where it has no TLS.
        echo: Called with each line of the server's log.
    """

    def __init__(
        self,
        *,
        server_url: str,
        bus_url: str,
        users_path: Path,
        log_file: Path,
        replicas: int,
        certificate: ListenerCertificate | None = None,
        echo: Callable[[str], None] | None = None,
    ) -> None:
        self._server_url = server_url
        self._bus_url = bus_url
        self._users_path = users_path
        self._replicas = replicas
        self._certificate = certificate
        self._certificate_error = ""
        self._applied: int | None = None
        self._server: ServerConnection | None = None
        self._drops = DropCounter(
            LogFollower(log_file, users_path.with_name("listener-log.position")), lambda: self._server, echo
        )

    @property
    def unready(self) -> str | None:
        """Why the server does not have the right users, or None."""
        return None if self._applied is not None else "the server's users are not in place yet"

    async def run(self) -> None:
        """Work until cancelled, waiting for the server while it is away."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._maintain_users())
            tasks.create_task(self._drops.run())

    async def _maintain_users(self) -> None:
        logged = ""
        while True:
            pause = RETRY_SECONDS
            try:
                await self._session()
            except (NatsError, OSError, ReloadRefusedError) as error:
                if logged != (logged := repr(error)):
                    log.warning("server's users not in place", error=logged)
                if isinstance(error, ReloadRefusedError):
                    pause = RETRY_AFTER_REFUSAL_SECONDS
            finally:
                self._applied = None
                self._server = None
            await asyncio.sleep(pause)

    async def _session(self) -> None:
        """Apply changes while both connections last, assuming nothing about the server's users at the start."""
        lost = asyncio.Event()
        server = await ServerConnection.open(self._server_url, lost)
        try:
            bus = await connect_once(self._bus_url, "device-auth", lost)
            try:
                self._server = server
                await self._apply_changes(server, bus, lost)
            finally:
                await bus.close()
        finally:
            await server.close()

    async def _apply_changes(self, server: ServerConnection, bus: Client, lost: asyncio.Event) -> None:
        changed = asyncio.Event()

        async def on_change(_: Msg) -> None:
            changed.set()

        async def answer(message: Msg) -> None:
            if self._applied is not None:
                await message.respond(json.dumps({"server": server.name, "revision": self._applied}).encode())

        await self._renew_certificate(
            server
        )  # first: with half a copy, as after a kill, the server refuses every reload
        await self._until_intake(server, bus)
        devices = await Devices.make(bus, replicas=self._replicas)
        await bus.subscribe(CHANGES, cb=on_change)
        await bus.subscribe(APPLIED, cb=answer)
        copy = devices.copy()
        while not lost.is_set():
            changed.clear()
            if await copy.catch_up() or self._applied is None:
                await self._apply(server, copy.devices)
                self._applied = copy.revision
            await self._renew_certificate(server)
            await _first(changed, lost, seconds=POLL_SECONDS)
            if changed.is_set():
                await asyncio.sleep(BURST_SECONDS)
        raise ConnectionError("the server is away")

    async def _until_intake(self, server: ServerConnection, bus: Client) -> None:
        """Accept no device before the stream that stores its messages exists, with the intake that consumes them."""
        closed = False
        while True:
            try:
                await bus.jetstream().consumer_info(streams.MQTT, streams.INTAKE)
            except NotFoundError:
                if not closed:
                    await self._apply(server, [])
                    log.info("no device is let in before the streams are made")
                    closed = True
                await asyncio.sleep(0.2)
            else:
                return

    async def _apply(self, server: ServerConnection, devices: list[Device]) -> None:
        """Write the users file and have the server read it.

        Raises:
            ReloadRefusedError: It did not accept it; the file is again what it was.
        """
        fresh = users(devices)
        before = self._users_path.read_text() if self._users_path.exists() else None
        if fresh != before:
            replace_file(self._users_path, fresh)
        elif await self._has_read(server):
            return
        try:
            await server.reload()
        except ReloadRefusedError:
            RELOADS.labels("refused").inc()
            # A server does not start at all with a file that it refuses.
            if before is not None and fresh != before:
                replace_file(self._users_path, before)
            raise
        RELOADS.labels("ok").inc()
        log.info("users in place", devices=len(devices))

    async def _renew_certificate(self, server: ServerConnection) -> None:
        """Have the server read a new certificate; it goes on with the one before where the new one is refused."""
        if self._certificate is None:
            return
        try:
            if not self._certificate.take_over():
                return
            try:
                await server.reload()
            except ReloadRefusedError:
                self._certificate.put_back()
                raise
        except (CertificateError, ReloadRefusedError) as error:
            if self._certificate_error != (sentence := str(error)):
                CERTIFICATES.labels("refused").inc()
                log.error("certificate refused, the one before stays", error=sentence)
            self._certificate_error = sentence
            return
        self._certificate_error = ""
        CERTIFICATES.labels("ok").inc()
        log.info("new certificate in place")

    async def _has_read(self, server: ServerConnection) -> bool:
        """Return whether the server has read the users file and the certificate as they are.

        A reload that is not needed is better left out: right after a start all devices connect, and one that connects
        during a reload may have to wait for 5 s and try again (nats-server 2.15.1).
        """
        changed = max(self._users_path.stat().st_mtime, self._certificate.changed_at if self._certificate else 0.0)
        return changed + STARTUP_SECONDS < await server.configuration_loaded()


async def _first(*events: asyncio.Event, seconds: float) -> None:
    """Wait for the first of several events, for at most `seconds`."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
