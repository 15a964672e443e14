"""The files of a nats-server's configuration: `nats.conf`, the same everywhere, and those that it includes.

`python -m fabwafer_bridge.nats_files --pieces FROM --out TO` puts them together where a server starts with what others
wrote, as in a cluster, whose ConfigMap has what differs from one installation to another.
"""

import argparse
from importlib.resources import files
from pathlib import Path
from typing import Final

from fabwafer.service.files import replace_file

CONFIG_FILE: Final = "nats.conf"
SERVER_FILE: Final = "server.conf"
JETSTREAM_FILE: Final = "jetstream.conf"
MQTT_FILE: Final = "mqtt.conf"
USERS_FILE: Final = "users.conf"
PIECES: Final = (SERVER_FILE, JETSTREAM_FILE, MQTT_FILE)
"""What differs from one server to another."""

_SHIPPED: Final = files("fabwafer_bridge")


def write(directory: Path, pieces: dict[str, str]) -> Path:
    """Write a server's configuration. A users file that exists is left to device-auth.

    Args:
        directory: An existing folder.
        pieces: The content of each file of PIECES.

    Returns:
        The file for `nats-server -c`.
    """
    for name in PIECES:
        replace_file(directory / name, pieces[name])
    users = directory / USERS_FILE
    if not users.exists():
        replace_file(users, (_SHIPPED / USERS_FILE).read_bytes())
    config = directory / CONFIG_FILE
    replace_file(config, (_SHIPPED / CONFIG_FILE).read_bytes())
    return config


def main() -> None:
    """Put a server's configuration together."""
    parser = argparse.ArgumentParser(prog="python -m fabwafer_bridge.nats_files", description=__doc__)
    parser.add_argument("--pieces", type=Path, required=True, help=f"the folder with {', '.join(PIECES)}")
    parser.add_argument("--out", type=Path, required=True, help="the folder that the server starts from")
    arguments = parser.parse_args()
    try:
        print(write(arguments.out, {name: (arguments.pieces / name).read_text() for name in PIECES}))
    except OSError as error:
        raise SystemExit(f"cannot put the configuration together: {error.filename}: {error.strerror}") from None


if __name__ == "__main__":
    main()
