"""The model store's versions: one folder each, complete or not there at all.

`<store>/versions/<version>/` holds a model's files, its card, the archive for the model server and `report/`. What a
killed run leaves is under `<store>/.work/` and is taken up by the next run with the same version, or never looked at.
"""

import re
from pathlib import Path

from fabwafer.modelcard import ModelCard, ModelRefusedError, read_card, verify

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class StoreError(Exception):
    """A version that cannot be written. The text is one sentence."""


def version_folder(store: Path, version: str) -> Path:
    """Returns where a version is, or would be.

    Raises:
        StoreError: The version is no name for a folder.
    """
    if not _NAME.fullmatch(version):
        raise StoreError(f"expected a version of letters, digits, dots, dashes and underscores, got {version!r}")
    return store / "versions" / version


def work_folder(store: Path, version: str) -> Path:
    """Returns the folder in which a version is made; it is kept from run to run until the version is published."""
    folder = store / ".work" / version_folder(store, version).name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def published(store: Path, version: str) -> ModelCard | None:
    """Returns the card of a version that is in the store, or None.

    Raises:
        StoreError: The version is there and damaged.
    """
    folder = version_folder(store, version)
    if not folder.is_dir():
        return None
    try:
        card = read_card(folder)
        verify(folder, card)
    except ModelRefusedError as error:
        raise StoreError(f"the version {version} in the store is damaged: {error}") from None
    return card


def publish(store: Path, version: str) -> Path:
    """Moves a finished version from its work folder into the store, in a single step.

    Returns:
        Where it is now.

    Raises:
        StoreError: The work folder holds no sound model of this version, or the version is there already.
    """
    work, folder = work_folder(store, version), version_folder(store, version)
    try:
        card = read_card(work)
        verify(work, card)
    except ModelRefusedError as error:
        raise StoreError(f"the new version {version} is not complete: {error}") from None
    if card.version != version:
        raise StoreError(f"expected a card of version {version}, found {card.version}")
    if folder.exists():
        raise StoreError(f"the version {version} is in the store already")
    folder.parent.mkdir(parents=True, exist_ok=True)
    work.rename(folder)
    return folder
