"""The addresses of a running system that commands need, from a data directory or from the environment."""

import os
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ValidationError

from fabwafer.errors import FabwaferError
from fabwafer.service.files import replace_file

DATA_VARIABLE: Final = "FABWAFER_DATA"
STORE_VARIABLE: Final = "FABWAFER_MODEL_STORE"
SYSTEM_FILE: Final = "system.json"
RECORDS_FILE: Final = "records.db"
STORE_DIRECTORY: Final = "model-store"
MQTT_CA_VARIABLE: Final = "FABWAFER_MQTT_CA_FILE"
"""Names the file with the certificates to trust where the listener for devices has TLS."""
CAMERA_FILE: Final = "camera.json"
"""The credentials of the camera that `fabwafer up` adds for its samples and for `fabwafer send`."""


class SystemNotFoundError(FabwaferError):
    """There is no running system. The text says where it was looked for, and how to start one."""


class System(BaseModel):
    """The addresses of a running system, with the credentials of its operator.

    `fabwafer up` writes them to `system.json` in its data directory (mode 0600); in a cluster each pod has them in
    its environment.
    """

    nats_url: str
    """`nats://USER:PASSWORD@HOST:PORT` of the bus."""
    mqtt_url: str
    """`mqtt://HOST:PORT` of the listener for devices."""
    inference_url: str
    """`http://HOST:PORT` of the model server."""
    inference_key_file: Path | None = None
    """TorchServe's key file: the tokens that a local system's model server asks for."""
    metrics_url: str
    """`http://HOST:PORT` of the bridge: `/metrics`, `/healthz`, `/readyz`."""
    device_auth_url: str | None = None
    """`http://HOST:PORT` of device-auth: `/metrics` with what the MQTT listener dropped."""
    database_url: str
    """SQLAlchemy URL of the records."""
    pid: int | None = None
    """The process id of a local system's supervisor."""


_VARIABLES: Final = {
    "nats_url": "FABWAFER_NATS_URL",
    "mqtt_url": "FABWAFER_MQTT_URL",
    "inference_url": "FABWAFER_INFERENCE_URL",
    "metrics_url": "FABWAFER_METRICS_URL",
    "database_url": "FABWAFER_DATABASE_URL",
}


def data_directory(data: Path | None) -> Path:
    """Return the absolute data directory: the one given, else $FABWAFER_DATA, else `~/.local/share/fabwafer`."""
    chosen = data or os.environ.get(DATA_VARIABLE) or Path.home() / ".local" / "share" / "fabwafer"
    return Path(chosen).expanduser().absolute()


def address(field: str, data: Path | None) -> str:
    """Return one address of the system, named like a field of `System`, with the credentials.

    A data directory that is given wins; else the environment (a cluster's pods); else the default data directory.
    The records of a local system can be read while it is stopped, so their address needs no running system.

    Raises:
        SystemNotFoundError: No system runs there.
        SettingsError: The credentials in the environment are wrong.
    """
    if data is None and (url := os.environ.get(_VARIABLES[field])):
        return _signed_in(field) or url
    directory = data_directory(data)
    if field == "database_url":
        if not (directory / RECORDS_FILE).exists():
            raise SystemNotFoundError(f"no records in {directory}: start a system with `fabwafer up` first")
        return sqlite_url(directory)
    return str(getattr(read_system(directory), field))


def _signed_in(field: str) -> str | None:
    """Return an address of the environment with the credentials there, or None for one that takes none."""
    if field not in ("nats_url", "database_url"):
        return None
    # Imported only where it is needed: it takes a seventh of a second.
    from fabwafer.service.settings import BusSettings, DatabaseSettings

    return BusSettings.read().bus_url if field == "nats_url" else DatabaseSettings.read().records_url


def store_address(store: str | None, data: Path | None) -> str:
    """Return where the model store is.

    Args:
        store: What a command was given; it wins.
        data: The data directory that a command was given: its `model-store`. Else `$FABWAFER_MODEL_STORE` counts,
            else the `model-store` of the default data directory.
    """
    named = store or (None if data else os.environ.get(STORE_VARIABLE))
    return named or str(data_directory(data) / STORE_DIRECTORY)


def sqlite_url(directory: Path) -> str:
    """Return the SQLAlchemy URL of a local system's records, in its data directory."""
    return f"sqlite:///{directory / RECORDS_FILE}"


def read_system(directory: Path) -> System:
    """Read the addresses of the system that runs on a data directory.

    Raises:
        SystemNotFoundError: None runs there.
    """
    file = directory / SYSTEM_FILE
    try:
        system = System.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        raise SystemNotFoundError(
            f"no system runs on {directory}: start one with `fabwafer up --data {directory}`, "
            "or name another with --data"
        ) from None
    except ValidationError as error:
        raise SystemNotFoundError(f"{file} is not what `fabwafer up` writes: {error}") from None
    if system.pid is not None and not _alive(system.pid):
        raise SystemNotFoundError(f"the system on {directory} has stopped: start it with `fabwafer up`")
    return system


def write_system(directory: Path, system: System) -> None:
    """Write the addresses of a local system, readable by its user alone."""
    replace_file(directory / SYSTEM_FILE, system.model_dump_json(indent=2))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
