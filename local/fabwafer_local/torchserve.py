"""TorchServe on one machine: its configuration, its archive, and how a supervisor starts it."""

import os
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fabwafer.models.archive import MODEL_NAME, build
from fabwafer.models.card import read_card
from fabwafer.models.shipped import shipped_store
from fabwafer.service.files import replace_file
from fabwafer_local.supervisor import ServerSpec

PID_FILE: Final = ".model_server.pid"
CONFIG_FILE: Final = "config.properties"


@dataclass(frozen=True, slots=True)
class TorchServePorts:
    """All ports that TorchServe opens on 127.0.0.1; it has no way to leave one of them closed."""

    inference: int
    management: int
    metrics: int
    grpc_inference: int
    grpc_management: int


def prepare(directory: Path, model: Path, ports: TorchServePorts, workers: int = 1) -> ServerSpec:
    """Writes what TorchServe needs into `directory`, and says how to start it.

    The sockets and the pid file lie in a short private folder under the system's temporary directory, since a socket's
    path ends at 107 bytes and `directory` may be long; the caller removes it when the server has stopped. Everything
    that the server starts has this folder as TMPDIR in its environment, by which a worker can be found whose server was
    killed while the worker was starting (any other ends by itself when its server is gone).

    Args:
        directory: Made where it is missing; holds configuration and archives.
        model: The model's folder, with its card.
        ports: The ports to listen on.
        workers: Python processes, each with one thread for the model.

    Raises:
        ModelRefusedError: The model's folder holds none, or its files are not those its card describes.
        OSError: A file cannot be written.
    """
    directory = directory.absolute()
    made = archive(directory, model)
    temporary = Path(tempfile.mkdtemp(prefix="fabwafer-"))
    config = directory / CONFIG_FILE
    config.write_text(
        configuration(
            (shipped_store() / CONFIG_FILE).read_text(),
            {
                "inference_address": f"http://127.0.0.1:{ports.inference}",
                "management_address": f"http://127.0.0.1:{ports.management}",
                "metrics_address": f"http://127.0.0.1:{ports.metrics}",
                "grpc_inference_port": str(ports.grpc_inference),
                "grpc_management_port": str(ports.grpc_management),
                "model_store": str(made.parent),
                "load_models": f"{MODEL_NAME}={made.name}",
                "default_workers_per_model": str(workers),
            },
        )
    )
    return ServerSpec(
        argv=[
            *(sys.executable, "-m", "fabwafer_handlers.serve"),
            *("--config", str(config), "--log-config", str(shipped_store() / "log4j2.xml")),
        ],
        env=os.environ
        | {
            "TMPDIR": str(temporary),
            "TEMP": str(temporary),
            "LOG_LOCATION": str(temporary),
            "METRICS_LOCATION": str(temporary),
            # Each worker is one thread; what spins beside it only takes the processor from the other parts.
            "OMP_NUM_THREADS": "1",
        },
        temporary=temporary,
        pid_file=temporary / PID_FILE,
        ready_url=f"http://127.0.0.1:{ports.inference}/predictions/{MODEL_NAME}",
    )


def candidate_url(inference: str) -> str:
    """Returns where a version takes V2 requests that is loaded and is not the one that answers.

    TorchServe has no V2 address for a version, but its own takes the same body.

    Args:
        inference: The server's `http://HOST:PORT`.

    Returns:
        An address in which `{version}` stands for the version.
    """
    return f"{inference}/predictions/{MODEL_NAME}/{{version}}"


def configuration(properties: str, changes: dict[str, str]) -> str:
    """Returns TorchServe's properties with some of them changed; those that are not there yet are added.

    A backslash would be an escape in such a file, so it is doubled.
    """
    for name, value in changes.items():
        line = f"{name}={value}".replace("\\", "\\\\")
        changed, count = re.subn(rf"(?m)^{re.escape(name)}=.*$", lambda _, line=line: line, properties)  # type: ignore[misc]
        properties = changed if count else f"{properties.rstrip()}\n{line}\n"
    return properties


def archive(directory: Path, model: Path) -> Path:
    """Return the archive of a model among those in `directory`; it is built only for a digest that has none yet.

    Args:
        directory: What `prepare` was given.
        model: The model's folder, with its card.

    Raises:
        ModelRefusedError: The folder holds no model, or its files are not those its card describes.
        OSError: The archive cannot be written.
    """
    path = directory.absolute() / "archives" / f"{read_card(model).digest[:16]}.mar"
    return path if path.exists() else build(model, path).path


def load_at_start(directory: Path, made: Path) -> None:
    """Let the server that `prepare` described load another archive at its next start.

    Args:
        directory: What `prepare` was given.
        made: What `archive` returned.
    """
    config = directory / CONFIG_FILE
    replace_file(config, configuration(config.read_text(), {"load_models": f"{MODEL_NAME}={made.name}"}))
