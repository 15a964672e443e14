"""The local system: NATS server, device-auth, model server and bridge, started and stopped in order."""

import asyncio
import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Awaitable, Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Final

import aiohttp

from fabwafer.commands.system import RECORDS_FILE, STORE_DIRECTORY, SYSTEM_FILE, System, sqlite_url, write_system
from fabwafer.errors import FabwaferError
from fabwafer.models.key_file import authorization
from fabwafer.models.model_server import ServerUnavailableError
from fabwafer.models.reconciler import Reconciler
from fabwafer.models.store import Store
from fabwafer.records import Records, migrate
from fabwafer.service.files import replace_file
from fabwafer_bridge.nats_files import USERS_FILE
from fabwafer_handlers.management import Management, TorchServe
from fabwafer_local import nats, torchserve
from fabwafer_local.ports import Ports, free_ports
from fabwafer_local.private import make_private
from fabwafer_local.rollout import Archives
from fabwafer_local.room import Room
from fabwafer_local.samples import SampleCamera
from fabwafer_local.supervisor import Part, PartFailedError, ServerSpec, Supervisor, fabwafer_command

LOCK_FILE: Final = "lock"
TEMPORARY_FILE: Final = "temporary"
STOP_BRIDGE_SECONDS: Final = 8.0
STOP_SERVERS_SECONDS: Final = 6.0
STOP_BUS_SECONDS: Final = 4.0
"""The three follow each other, since the bridge drains into the others: all processes have ended within 20 s."""
LOOK_AT_BUS_SECONDS: Final = 2.0
LOOK_AT_BRIDGE_SECONDS: Final = 1.0
BRIDGE_USER: Final = "bridge"


class StackError(FabwaferError):
    """The system cannot run here. The text says why."""


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Lock a data directory for one system.

    Raises:
        StackError: Another one runs on it.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)  # images and records are confidential
    with (directory / LOCK_FILE).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackError(
                f"a system runs on {directory} already: stop it, or give this one a directory of its own with --data"
            ) from None
        yield


class Stack:
    """A system on one machine.

    Args:
        directory: Holds streams, records, logs and credentials.
        store: Holds the versions of the model.
        ports: The ports it listens on.
        say: Called with a sentence for the user on whatever happens.
    """

    def __init__(self, directory: Path, store: Store, ports: Ports, say: Callable[[str], None]) -> None:
        self._directory = directory
        self._logs = directory / "logs"
        self._ports = ports
        self._say = say
        self._room = Room(directory, say)
        self._supervisor = Supervisor(directory, say, self._room)
        self._camera = SampleCamera(directory, self._supervisor, say)
        self._device_auth_port, *server_ports = free_ports(5)
        self._server_ports = torchserve.TorchServePorts(ports.inference, *server_ports)
        self._records = Records(sqlite_url(directory))
        self._store = store
        self._archives = Archives(directory / "torchserve", store)
        key_file = torchserve.key_file(directory / "torchserve")
        management = Management(f"http://127.0.0.1:{self._server_ports.management}", key_file)
        server = TorchServe(management, self._archives.of, self._archives.load_at_start)
        self._reconciler = Reconciler(self._records, server, say)
        password, self._device_auth_password = secrets.token_hex(16), secrets.token_hex(16)
        self.system = System(
            nats_url=f"nats://{BRIDGE_USER}:{password}@127.0.0.1:{ports.nats}",
            mqtt_url=f"mqtt://127.0.0.1:{ports.mqtt}",
            inference_url=f"http://127.0.0.1:{ports.inference}",
            inference_key_file=key_file,
            metrics_url=f"http://127.0.0.1:{ports.metrics}",
            device_auth_url=f"http://127.0.0.1:{self._device_auth_port}",
            database_url=sqlite_url(directory),
            pid=os.getpid(),
        )
        self._env = os.environ | nats.environment(
            bridge_user=BRIDGE_USER, bridge_password=password, device_auth_password=self._device_auth_password
        )

    async def start(self) -> None:
        """Start all parts; return when images can be received.

        Raises:
            PartFailedError: A part did not start.
        """
        if ended := self._supervisor.clean():
            self._say(f"ended {ended} processes that a system that was killed had left")
        self._remove_temporary()
        self._make_private()
        await self._room.storing(lambda: migrate(self.system.database_url))
        try:  # before the bus, whose streams may take half of what is left then
            model_server = await self._room.storing(self._prepare_model_server)
        except (FabwaferError, OSError) as error:
            raise StackError(f"the model server cannot start: {error}") from None
        # The model server takes longest, so it starts first; the bridge waits for each part that it needs.
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as http:
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._start_model_server(http, model_server))
                    group.create_task(self._start_bus(http))
            except* (PartFailedError, StackError) as failed:
                raise failed.exceptions[0] from None

    def _make_private(self) -> None:
        """Let nobody else read what is in the data directory, which may have been made by somebody who did not care."""
        private = [self._directory / name for name in ("logs", "nats", "samples", "torchserve")]
        if self._store.address == str(self._directory / STORE_DIRECTORY):  # another one may be for others as well
            private.append(self._directory / STORE_DIRECTORY)
        records = self._directory / RECORDS_FILE
        # SQLite gives the files beside its database the database's permissions, if it makes them.
        make_private(private, {records, *self._directory.glob(f"{RECORDS_FILE}-*"), self._directory / LOCK_FILE})

    async def _start_model_server(self, http: aiohttp.ClientSession, spec: ServerSpec) -> None:
        await self._supervisor.start(
            Part(
                "model server",
                spec.argv,
                spec.env,
                self._logs / "model-server.log",
                _answers(http, spec.ready_url, spec.key_file),
            )
        )
        self._say("model server ready")

    def _prepare_model_server(self) -> ServerSpec:
        archive = self._archives.at_start(self._records, self._say)
        spec = torchserve.prepare(self._directory / "torchserve", archive, self._server_ports)
        replace_file(self._directory / TEMPORARY_FILE, str(spec.temporary))
        return spec

    async def _start_bus(self, http: aiohttp.ClientSession) -> None:
        directory = self._directory / "nats"
        config = await self._room.storing(
            lambda: nats.write_config(directory, client_port=self._ports.nats, mqtt_port=self._ports.mqtt)
        )

        async def bus_ready() -> bool:
            return await asyncio.to_thread(nats.is_ready, self._ports.nats, self._ports.mqtt)

        await self._supervisor.start(
            Part(
                "NATS server",
                [str(nats.binary()), "-c", str(config)],
                self._env,
                self._logs / "nats-stdout.log",
                bus_ready,
                own_log=directory / nats.LOG_FILE,
            )
        )
        await self._room.storing(lambda: write_system(self._directory, self.system))
        await self._make_streams(directory / nats.STORE_DIRECTORY)
        await asyncio.gather(self._start_bridge(http), self._start_device_auth(http, directory))
        await self._camera.make()

    async def _make_streams(self, store: Path) -> None:
        while True:
            arguments = ("--data", str(self._directory), "--room", str(self._room.for_bus(store)))
            done = await self._supervisor.run("streams", fabwafer_command("streams", *arguments))
            if not done.code:
                self._say(done.printed.strip())
                return
            if not await self._room.wait():
                complaint = done.complaint.splitlines() or ["it gave no reason"]
                raise StackError(f"the streams could not be made: {complaint[-1]}")

    async def _start_bridge(self, http: aiohttp.ClientSession) -> None:
        env = self._env | {
            "FABWAFER_NATS_URL": self.system.nats_url,
            "FABWAFER_INFERENCE_URL": self.system.inference_url,
            "FABWAFER_INFERENCE_KEY_FILE": str(self.system.inference_key_file),
            "FABWAFER_CANDIDATE_URL": torchserve.candidate_url(self.system.inference_url),
            "FABWAFER_DATABASE_URL": self.system.database_url,
            "FABWAFER_METRICS_PORT": str(self._ports.metrics),
        }
        await self._supervisor.start(
            Part(
                "bridge",
                fabwafer_command("bridge"),
                env,
                self._logs / "bridge.log",
                _answers(http, f"{self.system.metrics_url}/readyz"),
            )
        )

    async def _start_device_auth(self, http: aiohttp.ClientSession, directory: Path) -> None:
        env = self._env | {
            "FABWAFER_NATS_URL": self.system.nats_url,
            "FABWAFER_NATS_SYSTEM_URL": f"nats://device-auth:{self._device_auth_password}@127.0.0.1:{self._ports.nats}",
        }
        argv = fabwafer_command(
            "device-auth",
            "--users-file",
            str(directory / USERS_FILE),
            "--log-file",
            str(directory / nats.LOG_FILE),
            "--metrics-port",
            str(self._device_auth_port),
        )
        await self._supervisor.start(
            Part(
                "device-auth",
                argv,
                env,
                self._logs / "device-auth.log",
                _answers(http, f"{self.system.device_auth_url}/readyz"),
            )
        )

    async def send_samples(self, images: list[Path], rate: float) -> None:
        """Publish images as a camera does."""
        await self._camera.send(images, rate)

    async def watch(self) -> None:
        """Restart parts that die, and keep the model server at the champion and the candidate. Return only by raising.

        A bus that stores nothing any more is restarted once the disk has room, and what makes the bridge unready is
        shown.

        Raises:
            PartFailedError: A part died too often.
        """
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._supervisor.watch())
                group.create_task(self._reconciler.run())
                group.create_task(self._watch_bus())
                group.create_task(self._watch_bridge())
        except* PartFailedError as failed:
            raise failed.exceptions[0] from None

    async def _watch_bus(self) -> None:
        """Restart a bus that found no room for a message: it stores nothing any more in that stream (2.15.1)."""
        while True:
            await asyncio.sleep(LOOK_AT_BUS_SECONDS)
            if error := await nats.write_error(self._ports.nats, "device-auth", self._device_auth_password):
                self._say(f"the bus stores nothing any more: {error}")
                await self._room.wait()
                self._say("NATS server is started again, so that it stores messages")
                await self._supervisor.restart("NATS server")

    async def _watch_bridge(self) -> None:
        shown = ""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as http:
            while True:
                reason = await _unready(http, self.system.metrics_url)
                if reason is not None and reason != shown:
                    self._say(f"bridge: {reason}" if reason else "bridge: ready again")
                    shown = reason
                await asyncio.sleep(LOOK_AT_BRIDGE_SECONDS)

    async def stop(self) -> None:
        """Let the bridge finish what is under way, then end all parts."""
        async with contextlib.AsyncExitStack() as last:  # whatever fails, no process stays
            last.callback(self._remove_temporary)
            last.callback(self._records.close)
            last.push_async_callback(self._supervisor.stop, ["NATS server"], STOP_BUS_SECONDS)
            last.push_async_callback(self._supervisor.stop, ["device-auth", "model server"], STOP_SERVERS_SECONDS)
            last.push_async_callback(self._supervisor.stop, ["bridge"], STOP_BRIDGE_SECONDS)
            (self._directory / SYSTEM_FILE).unlink(missing_ok=True)

    def _remove_temporary(self) -> None:
        """Remove the private folder of this system's model server, or of a killed system's."""
        note = self._directory / TEMPORARY_FILE
        if note.exists():
            shutil.rmtree(note.read_text(), ignore_errors=True)
            note.unlink()


def _answers(http: aiohttp.ClientSession, url: str, key_file: Path | None = None) -> Callable[[], Awaitable[bool]]:
    async def ready() -> bool:
        try:
            async with http.get(url, headers=authorization(key_file, "inference")) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError, ServerUnavailableError):
            return False

    return ready


async def _unready(http: aiohttp.ClientSession, url: str) -> str | None:
    """Return why a part says that it is not ready, an empty text where it is; None where it does not answer."""
    try:
        async with http.get(f"{url}/readyz") as response:
            return "" if response.status == HTTPStatus.OK else (await response.text()).strip()
    except (aiohttp.ClientError, TimeoutError, OSError):
        return None
