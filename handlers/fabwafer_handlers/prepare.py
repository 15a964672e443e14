"""Put the version that a pod is to serve beside its server: the init container of a pod that serves.

`python -m fabwafer_handlers.prepare --version-file FILE --out DIR` fetches the version that FILE names from the store
in $FABWAFER_MODEL_STORE. DIR then holds what either server starts with: for TorchServe `wafer.mar`,
`config.properties` and `log4j2.xml`, for KServe's own server the model's folder `wafer`.
"""

import argparse
import contextlib
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from fabwafer.errors import FabwaferError
from fabwafer.messages.inference import MODEL_NAME
from fabwafer.models.answers import check_answers
from fabwafer.models.archive import ARCHIVE_NAME, build
from fabwafer.models.card import CARD_NAME, ModelRefusedError, read_card, read_checked
from fabwafer.models.shipped import shipped_store
from fabwafer.models.store import Store, StoreError, StoreUnavailableError, open_store
from fabwafer.service.files import replace_file
from fabwafer.service.settings import ServiceSettings

LOOK_SECONDS: Final = 1.0
"""Pause between two looks at the version file."""
STORE_SECONDS: Final = 5.0
"""Pause between two tries of a store that cannot be used."""
MESSAGE_BYTES: Final = 4096
"""Kubernetes reads no more of a termination message."""


class PrepareSettings(ServiceSettings):
    """Settings of the preparation; each is read from FABWAFER_<NAME>."""

    model_store: str
    """The model store, a folder or `s3://BUCKET/PREFIX`."""


def named_version(file: Path, say: Callable[[str], None]) -> str:
    """Return the version that a file names, waiting while it is empty.

    Args:
        file: The file; Kubernetes writes the pod's annotation into it.
        say: Called with a sentence on what is waited for.

    Raises:
        OSError: The file cannot be read.
    """
    waiting = False
    while not (version := file.read_text().strip()):
        if not waiting:
            say(f"{file} is empty: waiting for the rollout to name the version that this pod serves")
        waiting = True
        time.sleep(LOOK_SECONDS)
    return version


def prepare(store: Store, version: str, out: Path, say: Callable[[str], None]) -> None:
    """Write what the servers start with, waiting while the store cannot be used.

    Args:
        store: It holds the version.
        version: The version.
        out: The folder to write to. What an earlier try left there is overwritten.
        say: Called with a sentence on what is waited for.

    Raises:
        OSError: The folder cannot be written.
        StoreError: The version is not in the store, it is damaged, or its model has no finite answers.
    """
    # In the folder itself, which has room for a version; the system's temporary one may have little.
    fetched = out / ".fetched"
    shutil.rmtree(fetched, ignore_errors=True)
    model = _fetch(store, version, fetched, say)
    try:
        check_answers(model)  # TorchServe would only log why it cannot load a model, and go on trying
        _write(model, out)
    except ModelRefusedError as error:
        raise StoreError(f"the version {version} in {store} cannot serve: {error}") from None
    shutil.rmtree(fetched, ignore_errors=True)


def _fetch(store: Store, version: str, to: Path, say: Callable[[str], None]) -> Path:
    said = ""
    while True:
        try:
            return store.fetch(version, to)
        except StoreUnavailableError as error:
            if str(error) != said:
                say(f"{error}; trying again")
            said = str(error)
            time.sleep(STORE_SECONDS)


def _write(model: Path, out: Path) -> None:
    card = read_card(model)
    folder = out / MODEL_NAME
    folder.mkdir(exist_ok=True)
    for entry in [*card.files.values(), *([card.likeness] if card.likeness else [])]:
        replace_file(folder / entry.name, read_checked(model, entry), mode=0o644)
    replace_file(folder / CARD_NAME, (model / CARD_NAME).read_bytes(), mode=0o644)
    build(model, out / ARCHIVE_NAME)
    for name in ("config.properties", "log4j2.xml"):
        text = (shipped_store() / name).read_text()
        replace_file(out / name, re.sub(r"(?m)^model_store=.*$", f"model_store={out}", text), mode=0o644)


def _end_at_once(*_: Any) -> None:
    # A container's first process has no default handler; nothing here needs an orderly end.
    os._exit(128 + signal.SIGTERM)


def main() -> None:
    """Prepare the version that the file names; the sentence of a failure is the container's termination message too."""
    parser = argparse.ArgumentParser(prog="python -m fabwafer_handlers.prepare", description=__doc__)
    parser.add_argument("--version-file", type=Path, required=True, help="names the version; empty: none is named yet")
    parser.add_argument("--out", type=Path, required=True, help="the folder that the server starts from")
    parser.add_argument(
        "--termination-log",
        type=Path,
        default=Path("/dev/termination-log"),
        help="where Kubernetes reads why a container failed; default: where it does unless told otherwise",
    )
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _end_at_once)
    try:
        store = open_store(PrepareSettings.read().model_store)
        version = named_version(arguments.version_file, _say)
        prepare(store, version, arguments.out, _say)
    except (FabwaferError, OSError) as error:
        if arguments.termination_log.exists():
            with contextlib.suppress(OSError):
                arguments.termination_log.write_bytes(str(error).encode()[:MESSAGE_BYTES])
        raise SystemExit(str(error)) from None
    _say(f"model {version} is prepared in {arguments.out}")


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
