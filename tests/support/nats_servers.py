"""Real NATS servers for tests: each on free loopback ports, in a private directory, ended with the test."""

import json
import os
import secrets
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import bcrypt
import pytest

from fabwafer_bridge.devices import BCRYPT_COST, Device
from fabwafer_bridge.nats_files import USERS_FILE
from fabwafer_bridge.users_file import user_line
from fabwafer_local import nats
from fabwafer_local.ports import free_ports

BRIDGE_USER: Final = "bridge"
BRIDGE_PASSWORD: Final = "12k-bridge-for-tests"  # a number to the server, were it not quoted
DEVICE_AUTH_PASSWORD: Final = "device-auth-for-tests"
START_SECONDS: Final = 30


class NatsServer:
    """A nats-server in a directory of its own; its ports and its streams survive kill, stop and start."""

    def __init__(
        self,
        directory: Path,
        *,
        sync_interval: str = "always",
        server_name: str = "fabwafer",
        cluster: nats.Cluster | None = None,
    ) -> None:
        self.directory = directory
        self.server_name = server_name
        self._sync_interval = sync_interval
        self._cluster = cluster
        self._process: subprocess.Popen[bytes] | None = None
        self._take_ports()

    def _take_ports(self) -> None:
        self.client_port, self.mqtt_port, self.monitor_port = free_ports(3)
        self.config = nats.write_config(
            self.directory,
            client_port=self.client_port,
            mqtt_port=self.mqtt_port,
            monitor_port=self.monitor_port,
            sync_interval=self._sync_interval,
            server_name=self.server_name,
            cluster=self._cluster,
        )

    @property
    def url(self) -> str:
        """The bridge's address of the bus, credentials included."""
        return f"nats://{BRIDGE_USER}:{BRIDGE_PASSWORD}@127.0.0.1:{self.client_port}"

    @property
    def plain_url(self) -> str:
        """The server's address, without credentials."""
        return f"nats://127.0.0.1:{self.client_port}"

    @property
    def mqtt_url(self) -> str:
        """The listener for devices."""
        return f"mqtt://127.0.0.1:{self.mqtt_port}"

    @property
    def log_file(self) -> Path:
        """The server's log."""
        return self.directory / nats.LOG_FILE

    @property
    def users_file(self) -> Path:
        """The file with the users of the account FAB."""
        return self.directory / USERS_FILE

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process is not None, "the server does not run"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    def start(self, *, wait: bool = True) -> None:
        """Start the server on its ports, and `wait` until it takes connections."""
        assert not self.running, "the server runs already"
        self._process = subprocess.Popen(
            [nats.binary(), "-c", self.config],
            env=os.environ
            | nats.environment(
                bridge_user=BRIDGE_USER, bridge_password=BRIDGE_PASSWORD, device_auth_password=DEVICE_AUTH_PASSWORD
            ),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until the server takes connections.

        Raises:
            RuntimeError: It ended, or took none for half a minute; the text has the end of its log.
        """
        deadline = time.monotonic() + START_SECONDS
        while not nats.is_ready(self.client_port, self.mqtt_port):
            if not self.running or time.monotonic() > deadline:
                raise RuntimeError(f"nats-server did not start: {self._last_words()}")
            time.sleep(0.02)

    def _last_words(self) -> str:
        words = self.log_file.read_text()[-2000:] if self.log_file.exists() else ""
        if self._process is not None and not self.running and self._process.stderr is not None:
            words += self._process.stderr.read().decode()
        return words

    def kill(self) -> None:
        """Kill the server with SIGKILL, like a power cut."""
        assert self._process is not None
        self._process.kill()
        self._reap()

    def stop(self) -> None:
        """End the server in order; a server that does not run is left alone."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._reap()

    def _reap(self) -> None:
        assert self._process is not None
        self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()

    def restart(self) -> None:
        """Start the server again, on the same ports and streams."""
        self.stop()
        self.start()

    def reload(self) -> None:
        """Have the server read its configuration again, and wait until it has."""
        before = self.log_file.read_text().count("Reloaded server configuration")
        subprocess.run([nats.binary(), "--signal", f"reload={self.pid}"], check=True, capture_output=True)
        deadline = time.monotonic() + START_SECONDS
        while self.log_file.read_text().count("Reloaded server configuration") == before:
            if time.monotonic() > deadline:
                raise RuntimeError(f"nats-server did not reload: {self._last_words()}")
            time.sleep(0.01)

    def __enter__(self) -> Self:
        for attempt in range(5):
            try:
                self.start()
                break
            except RuntimeError as error:
                self.stop()
                # Another process can take a port between finding it free and binding it.
                if "address already in use" not in str(error) or attempt == 4:
                    raise
                self._take_ports()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class NatsCluster:
    """Three nats-servers on loopback that store each stream three times."""

    def __init__(self, directory: Path, *, sync_interval: str = "always") -> None:
        routes = free_ports(3)
        self.servers = [
            NatsServer(
                directory / f"nats-{index}",
                sync_interval=sync_interval,
                server_name=f"nats-{index}",
                cluster=nats.Cluster("fabwafer", route, routes),
            )
            for index, route in enumerate(routes)
        ]

    @property
    def urls(self) -> list[str]:
        """The bridge's addresses of all three."""
        return [server.url for server in self.servers]

    def server_named(self, name: str) -> NatsServer:
        """Return a server by the name that JetStream uses, for example for a stream's leader."""
        return next(server for server in self.servers if server.server_name == name)

    def __enter__(self) -> Self:
        try:
            for server in self.servers:
                server.start(wait=False)
            for server in self.servers:
                server.wait_ready()
            self.wait_for_meta_leader()
        except BaseException:
            self.stop()
            raise
        return self

    def wait_for_meta_leader(self) -> None:
        """Wait until JetStream is healthy on every running server."""
        deadline = time.monotonic() + START_SECONDS
        for server in self.servers:
            while server.running and not _healthy(server.monitor_port):
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{server.server_name} found no cluster")
                time.sleep(0.05)

    def stop(self) -> None:
        """End all three."""
        for server in self.servers:
            server.stop()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _healthy(monitor_port: int) -> bool:
    from urllib.error import URLError
    from urllib.request import urlopen

    try:
        with urlopen(f"http://127.0.0.1:{monitor_port}/healthz", timeout=2) as answer:
            return bool(json.load(answer)["status"] == "ok")
    except (URLError, OSError):
        return False


def add_device(servers: NatsServer | Iterable[NatsServer], fab: str, camera: str) -> tuple[str, str]:
    """Give a device credentials without device-auth: write the users files and have the servers read them.

    A test that does so makes `$MQTT_msgs` first where it needs its limits: the server makes it for the first device.

    Returns:
        User and password for MQTT.
    """
    password = secrets.token_hex(16)
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(BCRYPT_COST)).decode()
    device = Device(fab=fab, camera=camera, hash=hashed, created=0)
    for server in [servers] if isinstance(servers, NatsServer) else servers:
        text = server.users_file.read_text()
        server.users_file.write_text(text.removesuffix("]\n") + user_line(device) + "]\n")
        if server.running:
            server.reload()
    return device.user, password


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    """One server on its own; every write is on disk before it is answered."""
    with NatsServer(tmp_path / "nats") as server:
        yield server


@pytest.fixture
def nats_cluster(tmp_path: Path) -> Iterator[NatsCluster]:
    """Three servers."""
    with NatsCluster(tmp_path / "cluster") as cluster:
        yield cluster
