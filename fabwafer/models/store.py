"""The model store: versions of the model in a folder or in an S3 bucket, each complete or not there at all.

`versions/<version>/` in it holds a model's files, its card, the archive for the model server and `report/`. A version
is made in a local work folder, which a killed run leaves for the next run with the same version.
"""

import os
import re
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError

from fabwafer.errors import FabwaferError
from fabwafer.models.card import CARD_NAME, ModelCard, ModelRefusedError, read_card, verify

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_S3 = "s3://"


class StoreError(FabwaferError):
    """A store that cannot be used, or a version that cannot be read or written. The text is one sentence."""


class DamagedError(StoreError):
    """A version whose files are not those that its card was written for."""


class Store(ABC):
    """Versions of the model. Every method raises StoreError when the store does not answer or a name is no version's.

    One run at a time makes a version: a name that follows from what goes in, and a Job that allows no second one at
    the same time, see to that.
    """

    def __init__(self, address: str) -> None:
        self.address = address

    def __str__(self) -> str:
        return self.address

    def place(self, version: str) -> str:
        """Returns where a version is, or would be: a folder or a URL."""
        return f"{self.address}/versions/{checked_version(version)}"

    @abstractmethod
    def work_folder(self, version: str) -> Path:
        """Returns the folder in which a version is made; it is kept from run to run until the version is published."""

    @abstractmethod
    def names(self) -> list[str]:
        """Returns the names of the versions, damaged ones among them."""

    @abstractmethod
    def read(self, version: str, name: str) -> bytes:
        """Reads one file of a version, such as `report/gate.json`."""

    def versions(self) -> tuple[list[ModelCard], list[str]]:
        """Reads the cards of all versions; their files are checked when a version is used.

        Returns:
            The cards, the oldest first; and a sentence on each version whose card is damaged.
        """
        cards, damaged = [], []
        for name in self.names():
            try:
                card = ModelCard.model_validate_json(self.read(name, CARD_NAME))
                if card.version != name:
                    raise DamagedError(
                        f"the version {name} in {self} is damaged: its card is of version {card.version}"
                    )
                cards.append(card)
            except ValidationError as error:
                why = error.errors()[0]["msg"]
                damaged.append(f"the version {name} in {self} is damaged: its card is not valid: {why}")
            except DamagedError as error:
                damaged.append(str(error))
        return sorted(cards, key=lambda card: card.created), damaged

    def published(self, version: str) -> ModelCard | None:
        """Returns the card of a version that is in the store and sound, or None where there is no such version.

        Raises:
            DamagedError: The version is there and damaged.
        """
        if checked_version(version) not in self.names():
            return None
        with tempfile.TemporaryDirectory(prefix="fabwafer-version-") as folder:
            return read_card(self.fetch(version, Path(folder)))

    def fetch(self, version: str, to: Path) -> Path:
        """Returns a local folder with a version, checked against its card.

        Args:
            version: The version.
            to: A folder to load it into, where the store is not a folder itself.

        Raises:
            StoreError: There is no such version.
            DamagedError: It is damaged.
        """
        if checked_version(version) not in self.names():
            raise StoreError(f"there is no version {version} in {self}")
        folder = self._local(version, to)
        try:
            _sound(folder, version)
        except ModelRefusedError as error:
            said = str(error).replace(str(folder), self.place(version))
            raise DamagedError(f"the version {version} in {self} is damaged: {said}") from None
        return folder

    def publish(self, version: str) -> str:
        """Brings a finished version from its work folder into the store.

        Returns:
            Where it is now.

        Raises:
            StoreError: The work folder holds no sound model of this version, or the version is there already.
        """
        work = self.work_folder(version)
        try:
            _sound(work, version)
        except ModelRefusedError as error:
            raise StoreError(f"the new version {version} is not complete: {error}") from None
        if version in self.names():
            raise self._there_already(version)
        self._take(work, version)
        return self.place(version)

    def _there_already(self, version: str) -> StoreError:
        return StoreError(f"the version {version} is in {self} already")

    @abstractmethod
    def _local(self, version: str, to: Path) -> Path:
        """Returns a local folder with a version's files."""

    @abstractmethod
    def _take(self, work: Path, version: str) -> None:
        """Takes a work folder's content in as a version."""


class FolderStore(Store):
    """A store in a folder, for example on a volume that Jobs and model servers share."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self._versions = folder / "versions"
        self._work = folder / ".work"

    def work_folder(self, version: str) -> Path:
        """Returns a folder in the store itself, so that publishing is a rename."""
        return _made(self._work / checked_version(version))

    def names(self) -> list[str]:
        """Returns the names of the versions, damaged ones among them."""
        if not self._versions.is_dir():
            return []
        return sorted(path.name for path in self._versions.iterdir() if path.is_dir() and _NAME.fullmatch(path.name))

    def read(self, version: str, name: str) -> bytes:
        """Reads one file of a version."""
        try:
            return (self._versions / checked_version(version) / name).read_bytes()
        except OSError as error:
            raise DamagedError(f"the version {version} in {self} is damaged: {name}: {error.strerror}") from None

    def _local(self, version: str, to: Path) -> Path:
        return self._versions / version

    def _take(self, work: Path, version: str) -> None:
        try:
            self._versions.mkdir(parents=True, exist_ok=True)
            work.rename(self._versions / version)
        except OSError as error:
            raise StoreError(f"cannot move {work} to {self.place(version)}: {error.strerror}") from None


class BucketStore(Store):
    """A store in an S3 bucket, or in one of another server that speaks S3.

    S3 has no rename. So the card is written last, and a version without a card is none: what a killed upload leaves
    is not seen, and the next one writes over it.

    Args:
        url: `s3://BUCKET` or `s3://BUCKET/PREFIX`; the rest comes from the usual variables, `AWS_ENDPOINT_URL`,
            `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_DEFAULT_REGION` and so on.
        work: The folder in which versions are made; else one of the user's own among the temporary files.
    """

    def __init__(self, url: str, work: Path | None = None) -> None:
        super().__init__(url.rstrip("/"))
        self._root = self.address.removeprefix(_S3)
        self._bucket = self._root.partition("/")[0]
        if not self._bucket:
            raise StoreError(f"expected a bucket in the model store's URL, s3://BUCKET/PREFIX, got {url!r}")
        try:
            from s3fs import S3FileSystem
        except ModuleNotFoundError as error:
            raise StoreError(f"a model store by URL needs the module {error.name}, which is not installed") from None
        # No caches: they would hide what another process wrote, and outlive a change of the environment.
        self._files: Any = S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
        self._work = work

    def work_folder(self, version: str) -> Path:
        """Returns a folder on this machine."""
        return _made((self._work or _own_temporary()) / checked_version(version))

    def names(self) -> list[str]:
        """Returns the names of the versions, damaged ones among them; what has no card is none."""
        with self._asked():
            try:
                found = self._files.ls(f"{self._root}/versions", detail=False)
            except FileNotFoundError:
                self._files.ls(self._bucket)  # a bucket that is not there is no empty store
                return []
        names = (PurePosixPath(path).name for path in found)
        return sorted(name for name in names if _NAME.fullmatch(name) and self._card(name) is not None)

    def read(self, version: str, name: str) -> bytes:
        """Reads one file of a version."""
        with self._asked():
            try:
                return bytes(self._files.cat_file(self._key(version, name)))
            except FileNotFoundError:
                raise DamagedError(f"the version {version} in {self} is damaged: it has no {name}") from None

    def _local(self, version: str, to: Path) -> Path:
        folder = _made(to)
        start = self._key(version, "")
        with self._asked():
            for path in self._files.find(start):
                name = PurePosixPath(path.removeprefix(start))
                if ".." in name.parts:
                    raise DamagedError(f"the version {version} in {self} is damaged: it has a file named {name}")
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                self._files.get_file(path, str(folder / name))
        return folder

    def _take(self, work: Path, version: str) -> None:
        with self._asked():
            for file in sorted(work.rglob("*")):
                if file.is_file() and file != work / CARD_NAME:
                    self._files.put_file(str(file), self._key(version, file.relative_to(work).as_posix()))
            card = (work / CARD_NAME).read_bytes()
            try:
                self._files.pipe_file(self._key(version, CARD_NAME), card, mode="create")
            except OSError:
                written = self._card(version)
                if written is None:
                    raise
                if written != card:  # else it is ours: the first try was stored, and its answer lost
                    raise self._there_already(version) from None
        shutil.rmtree(work)

    def _card(self, version: str) -> bytes | None:
        with self._asked():
            try:
                return bytes(self._files.cat_file(self._key(version, CARD_NAME)))
            except FileNotFoundError:
                return None

    def _key(self, version: str, name: str) -> str:
        return f"{self._root}/versions/{checked_version(version)}/{name}"

    @contextmanager
    def _asked(self) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError

        try:
            yield
        except (OSError, BotoCoreError) as error:
            raise StoreError(f"the model store {self} cannot be used: {error}") from None


def open_store(address: str, work: Path | None = None) -> Store:
    """Opens a model store.

    Args:
        address: A folder, or `s3://BUCKET/PREFIX`.
        work: Where versions are made for a store by URL; see BucketStore.

    Raises:
        StoreError: The address is neither.
    """
    if "://" not in address:
        return FolderStore(Path(address).expanduser())
    if not address.startswith(_S3):
        raise StoreError(f"expected the model store as a folder or s3://BUCKET/PREFIX, got {address!r}")
    return BucketStore(address, work)


def checked_version(version: str) -> str:
    """Returns a version's name, if it can be one.

    Raises:
        StoreError: It cannot be: it names a folder.
    """
    if not _NAME.fullmatch(version):
        raise StoreError(f"expected a version of letters, digits, dots, dashes and underscores, got {version!r}")
    return version


def _sound(folder: Path, version: str) -> None:
    card = read_card(folder)
    if card.version != version:
        raise ModelRefusedError(f"expected a card of version {version}, found {card.version}")
    verify(folder, card)


def _made(folder: Path, mode: int = 0o777) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=mode)
    except OSError as error:
        raise StoreError(f"cannot make the folder {folder}: {error.strerror}") from None
    return folder


def _own_temporary() -> Path:
    # Its name is known in advance, so that a killed run is taken up; so another user may have made it first.
    folder = _made(Path(tempfile.gettempdir()) / f"fabwafer-work-{os.getuid()}", mode=0o700)
    if folder.stat().st_uid != os.getuid():
        raise StoreError(f"the folder {folder} belongs to another user: name one to work in with --work")
    return folder
