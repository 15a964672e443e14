"""TorchServe on one machine: its configuration, its archives, and how a supervisor starts it."""

import os
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fabwafer.messages.inference import MODEL_NAME
from fabwafer.models.archive import build
from fabwafer.models.card import read_card
from fabwafer.models.key_file import KEY_FILE
from fabwafer.models.shipped import shipped_store
from fabwafer.service.files import replace_file
from fabwafer_local.supervisor import ServerSpec

CONFIG_FILE: Final = "config.properties"
ARCHIVES: Final = "archives"
WORKING_DIRECTORY: Final = "work"
TOKEN_MINUTES: Final = 5_256_000
"""Ten years: a token lasts as long as its server, and a new server makes new ones."""
_LOADED: Final = "load_models"


@dataclass(frozen=True, slots=True)
class TorchServePorts:
    """The ports that TorchServe opens on 127.0.0.1; none of them can be switched off."""

    inference: int
    management: int
    metrics: int
    grpc_inference: int
    grpc_management: int


def prepare(directory: Path, archive: Path, ports: TorchServePorts, workers: int = 1) -> ServerSpec:
    """Write TorchServe's configuration into `directory`, and return how to start it.

    Sockets and pid file are in a short private folder under the system's temporary directory, since the path of a
    socket is limited to 107 bytes and `directory` may be long; the caller removes the folder when the server has
    stopped. All processes of the server have it as TMPDIR in their environment, so that a worker can be found whose
    server was killed while the worker was starting (any other worker ends by itself when its server is gone).

    Each interface asks for a token, since whoever may load an archive runs code as this user, and every user of the
    machine reaches the ports. The tokens are in the working directory, which this user alone may enter.

    Args:
        directory: The server's directory; holds its configuration and its archives.
        archive: The archive to load, as `build_archive` returned it.
        ports: The ports to listen on.
        workers: Python processes, each with one thread for the model.

    Raises:
        OSError: The configuration cannot be written.
    """
    directory = directory.absolute()
    config = directory / CONFIG_FILE
    replace_file(
        config,
        configuration(
            (shipped_store() / CONFIG_FILE).read_text(),
            {
                "inference_address": f"http://127.0.0.1:{ports.inference}",
                "management_address": f"http://127.0.0.1:{ports.management}",
                "metrics_address": f"http://127.0.0.1:{ports.metrics}",
                "grpc_inference_port": str(ports.grpc_inference),
                "grpc_management_port": str(ports.grpc_management),
                "model_store": str(archive.parent),
                _LOADED: f"{MODEL_NAME}={archive.name}",
                "default_workers_per_model": str(workers),
                "disable_token_authorization": "false",
                "token_expiration_min": str(TOKEN_MINUTES),
                "enable_model_api": "true",
            },
        ),
    )
    keys = key_file(directory)
    keys.parent.mkdir(exist_ok=True)
    keys.parent.chmod(0o700)
    temporary = Path(tempfile.mkdtemp(prefix="fabwafer-"))
    return ServerSpec(
        argv=[
            *(sys.executable, "-m", "fabwafer_handlers.serve"),
            *("--config", str(config), "--log-config", str(shipped_store() / "log4j2.xml")),
            *("--working-directory", str(keys.parent)),
        ],
        env=os.environ
        | {
            "TMPDIR": str(temporary),
            "TEMP": str(temporary),
            "LOG_LOCATION": str(temporary),
            "METRICS_LOCATION": str(temporary),
            # A worker uses one thread; more would only spin, and take CPU from the other parts.
            "OMP_NUM_THREADS": "1",
        },
        temporary=temporary,
        ready_url=f"http://127.0.0.1:{ports.inference}/predictions/{MODEL_NAME}",
        key_file=keys,
    )


def key_file(directory: Path) -> Path:
    """Return where the server in `directory` writes its tokens."""
    return directory.absolute() / WORKING_DIRECTORY / KEY_FILE


def candidate_url(inference: str) -> str:
    """Return the URL that takes V2 requests for a loaded version which does not answer the others.

    TorchServe has no V2 path for a version, but the version's own path takes the same body.

    Args:
        inference: The server's `http://HOST:PORT`.

    Returns:
        A URL in which `{version}` stands for the version.
    """
    return f"{inference}/predictions/{MODEL_NAME}/{{version}}"


def configuration(properties: str, changes: dict[str, str]) -> str:
    """Return TorchServe's properties with changes; missing ones are added.

    A backslash is an escape character in such a file, so it is doubled.
    """
    for name, value in changes.items():
        line = f"{name}={value}".replace("\\", "\\\\")
        changed, count = re.subn(rf"(?m)^{re.escape(name)}=.*$", lambda _, line=line: line, properties)  # type: ignore[misc]
        properties = changed if count else f"{properties.rstrip()}\n{line}\n"
    return properties


def build_archive(directory: Path, model: Path) -> Path:
    """Return the archive of a model among those in `directory`; it is built only for a digest that has none yet.

    Args:
        directory: The server's directory; made where it is missing.
        model: The model's folder, with its card.

    Raises:
        ModelRefusedError: The folder holds no model, or its files are not those its card describes.
        OSError: The archive cannot be written.
    """
    path = directory.absolute() / ARCHIVES / f"{read_card(model).digest[:16]}.mar"
    return path if path.exists() else build(model, path).path


def load_at_start(directory: Path, archive: Path) -> None:
    """Let the server that `prepare` described load another archive at its next start."""
    config = directory / CONFIG_FILE
    replace_file(config, configuration(config.read_text(), {_LOADED: f"{MODEL_NAME}={archive.name}"}))


def loaded_at_start(directory: Path) -> Path | None:
    """Return the archive that the server in `directory` loads at its next start, or None where there is none."""
    try:
        found = re.search(rf"(?m)^{_LOADED}={MODEL_NAME}=(.+)$", (directory / CONFIG_FILE).read_text())
    except FileNotFoundError:
        return None
    path = directory.absolute() / ARCHIVES / found[1] if found else None
    return path if path and path.exists() else None
