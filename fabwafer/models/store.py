"""The model store: versions of the model in a folder or in an S3 bucket, each complete or absent.

`versions/<version>/` holds a model's files and its card; of a retrained model also its archive and `report/`. A version
is made in a local work folder. A killed run leaves it there, and the next run with the same version goes on with it.
"""

import errno
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
from fabwafer.models.answers import check_answers
from fabwafer.models.card import CARD_NAME, ModelCard, ModelRefusedError, read_card, verify

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_S3 = "s3://"


class StoreError(FabwaferError):
    """A store that cannot be used, or a version that cannot be read or written. The text says why."""


class StoreUnavailableError(StoreError):
    """A store that does not answer now, or refuses this user. The text says why; a later try may succeed."""


class DamagedError(StoreError):
    """A version whose card cannot be read, or whose files are not those of its card."""


class Store(ABC):
    """Versions of the model. Every method raises StoreError when the store does not answer or a name is not valid.

    Only one run at a time may make a version. A retraining names its version by a digest of its input, and its Job
    forbids a second one at the same time.

    Args:
        address: The folder or the URL.
    """

    def __init__(self, address: str) -> None:
        self.address = address

    def __str__(self) -> str:
        return self.address

    def location(self, version: str) -> str:
        """Return the folder or the URL of a version, whether or not it is there."""
        return f"{self.address}/versions/{checked_version(version)}"

    @abstractmethod
    def work_folder(self, version: str) -> Path:
        """Return the local folder in which a version is made; it stays until the version is published."""

    @abstractmethod
    def names(self) -> list[str]:
        """Return the names of the versions, damaged ones included."""

    @abstractmethod
    def read(self, version: str, name: str) -> bytes:
        """Return the content of one file of a version, such as `report/gate.json`."""

    def card(self, version: str) -> ModelCard | None:
        """Return a version's card, or None where there is no such version; its files are not checked.

        Raises:
            DamagedError: The version's card cannot be read.
        """
        return self._read_card(version) if checked_version(version) in self.names() else None

    def versions(self) -> tuple[list[ModelCard], list[str]]:
        """Return the cards of all versions; the files are checked when a version is used.

        Returns:
            The cards, the oldest first; and a sentence on each version whose card is damaged.
        """
        cards, damaged = [], []
        for name in self.names():
            try:
                cards.append(self._read_card(name))
            except DamagedError as error:
                damaged.append(str(error))
        return sorted(cards, key=lambda card: card.created), damaged

    def published(self, version: str) -> ModelCard | None:
        """Return the card of a version after checking its files, or None where there is no such version.

        Raises:
            DamagedError: The version is damaged.
        """
        if checked_version(version) not in self.names():
            return None
        with tempfile.TemporaryDirectory(prefix="fabwafer-version-") as folder:
            return read_card(self.fetch(version, Path(folder)))

    def fetch(self, version: str, to: Path) -> Path:
        """Return a local folder with a version, checked against its card.

        Args:
            version: The version.
            to: A folder to load it into, where the store is not a folder itself.

        Raises:
            StoreError: There is no such version.
            DamagedError: The version is damaged.
        """
        if checked_version(version) not in self.names():
            raise StoreError(f"there is no version {version} in {self}")
        folder = self._local(version, to)
        try:
            _check(folder, version)
        except ModelRefusedError as error:
            raise self._damaged(version, str(error).replace(str(folder), self.location(version))) from None
        return folder

    def check_answers(self, version: str) -> None:
        """Check that a version can serve: it is intact, and has finite answers for the smoke set.

        Raises:
            StoreError: There is no such version.
            DamagedError: The version is damaged, or its model has no finite answers.
        """
        with tempfile.TemporaryDirectory(prefix="fabwafer-version-") as folder:
            try:
                check_answers(self.fetch(version, Path(folder)))
            except ModelRefusedError as error:
                raise self._damaged(version, str(error)) from None

    @abstractmethod
    def new_work_folder(self, version: str) -> Path:
        """Return an empty folder of the caller's own, for a version that another process may make at the same time."""

    def publish(self, version: str, work: Path | None = None) -> str:
        """Move a finished version from its work folder into the store.

        Args:
            version: The version.
            work: Where it was made; by default its `work_folder`.

        Returns:
            Its location.

        Raises:
            StoreError: The work folder does not hold a complete model of this version, the model has no finite answers,
                or the version exists already.
        """
        work = work or self.work_folder(version)
        try:
            _check(work, version)
        except ModelRefusedError as error:
            raise StoreError(f"the new version {version} is not complete: {error}") from None
        try:
            check_answers(work)
        except ModelRefusedError as error:
            raise StoreError(f"the new version {version} is refused: {error}") from None
        if version in self.names():
            raise self._exists(version)
        self._store(work, version)
        return self.location(version)

    def _read_card(self, version: str) -> ModelCard:
        try:
            card = ModelCard.model_validate_json(self.read(version, CARD_NAME))
        except ValidationError as error:
            raise self._damaged(version, f"its card is not valid: {error.errors()[0]['msg']}") from None
        if card.version != version:
            raise self._damaged(version, f"its card is of version {card.version}")
        return card

    def _exists(self, version: str) -> StoreError:
        return StoreError(f"the version {version} is in {self} already")

    def _damaged(self, version: str, reason: str) -> DamagedError:
        return DamagedError(f"the version {version} in {self} is damaged: {reason}")

    @abstractmethod
    def _local(self, version: str, to: Path) -> Path:
        """Return a local folder with a version's files."""

    @abstractmethod
    def _store(self, work: Path, version: str) -> None:
        """Store a work folder's content as a version, and remove the work folder."""


class FolderStore(Store):
    """A store in a folder, for example on a volume that Jobs and model servers share.

    Args:
        folder: The folder; made by the first version.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self._versions = folder / "versions"
        self._work = folder / ".work"

    def work_folder(self, version: str) -> Path:
        """Return a folder in the store itself, so that publishing is a rename."""
        return _make_folder(self._work / checked_version(version))

    def new_work_folder(self, version: str) -> Path:
        """Return a new folder in the store itself."""
        folder = Path(tempfile.mkdtemp(prefix=f"{checked_version(version)}-", dir=_make_folder(self._work)))
        folder.chmod(0o755)  # it becomes the version's, which model servers of other users read
        return folder

    def names(self) -> list[str]:
        """Return the names of the versions, damaged ones included."""
        try:
            found = [path.name for path in self._versions.iterdir() if path.is_dir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreUnavailableError(f"the model store {self} cannot be used: {error.strerror}") from None
        return sorted(name for name in found if _NAME.fullmatch(name))

    def read(self, version: str, name: str) -> bytes:
        """Return the content of one file of a version."""
        try:
            return (self._versions / checked_version(version) / name).read_bytes()
        except OSError as error:
            raise self._damaged(version, f"{name}: {error.strerror}") from None

    def _local(self, version: str, to: Path) -> Path:
        return self._versions / version

    def _store(self, work: Path, version: str) -> None:
        try:
            self._versions.mkdir(parents=True, exist_ok=True)
            _flush(work)  # a version must be complete after a power cut as well
            work.rename(self._versions / version)
            _flush(self._versions)
        except OSError as error:
            raise StoreError(f"cannot move {work} to {self.location(version)}: {error.strerror}") from None


class BucketStore(Store):
    """A store in a bucket of S3, or of another server with the same protocol.

    S3 has no rename. So the card is written last, and a folder without a card is not a version: the files that a killed
    upload leaves are not seen, and the next upload replaces them.

    Args:
        url: `s3://BUCKET` or `s3://BUCKET/PREFIX`; server and credentials come from the usual variables,
            `AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_DEFAULT_REGION` and so on.
        work: The folder in which versions are made; by default one of the user's own in the temporary directory.
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
            raise StoreError(
                f"a model store by URL needs the module {error.name}: install it with pip install 'fabwafer[s3]'"
            ) from None
        # No caches: they would hide the writes of other processes, and survive a change of the environment.
        self._files: Any = S3FileSystem(
            skip_instance_cache=True,
            use_listings_cache=False,
            # A server that accepts and never answers must not hold a start up for minutes.
            config_kwargs={"connect_timeout": 5, "read_timeout": 20, "retries": {"max_attempts": 2}},
        )
        self._work = work

    def work_folder(self, version: str) -> Path:
        """Return a folder on this machine."""
        return _make_folder((self._work or _own_temporary()) / checked_version(version))

    def new_work_folder(self, version: str) -> Path:
        """Return a new folder on this machine."""
        return Path(
            tempfile.mkdtemp(prefix=f"{checked_version(version)}-", dir=_make_folder(self._work or _own_temporary()))
        )

    def names(self) -> list[str]:
        """Return the names of the versions, damaged ones included; a folder without a card is not a version."""
        with self._reporting():
            try:
                found = self._files.ls(f"{self._root}/versions", detail=False)
            except FileNotFoundError:
                self._files.ls(self._bucket)  # raises for a missing bucket, which is not an empty store
                return []
        names = (PurePosixPath(path).name for path in found)
        return sorted(name for name in names if _NAME.fullmatch(name) and self._card_file(name) is not None)

    def read(self, version: str, name: str) -> bytes:
        """Return the content of one file of a version."""
        with self._reporting():
            try:
                return bytes(self._files.cat_file(self._key(version, name)))
            except FileNotFoundError:
                raise self._damaged(version, f"it has no {name}") from None

    def _local(self, version: str, to: Path) -> Path:
        folder = _make_folder(to)
        start = self._key(version, "")
        with self._reporting():
            for path in self._files.find(start):
                name = PurePosixPath(path.removeprefix(start))
                if ".." in name.parts:
                    raise self._damaged(version, f"it has a file named {name}")
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                self._files.get_file(path, str(folder / name))
        return folder

    def _store(self, work: Path, version: str) -> None:
        with self._reporting():
            for file in sorted(work.rglob("*")):
                if file.is_file() and file != work / CARD_NAME:
                    self._files.put_file(str(file), self._key(version, file.relative_to(work).as_posix()))
            card = (work / CARD_NAME).read_bytes()
            try:
                self._files.pipe_file(self._key(version, CARD_NAME), card, mode="create")
            except OSError:
                written = self._card_file(version)
                if written is None:
                    raise
                if written != card:  # an equal card was written by this upload: its answer was lost
                    raise self._exists(version) from None
        shutil.rmtree(work)

    def _card_file(self, version: str) -> bytes | None:
        with self._reporting():
            try:
                return bytes(self._files.cat_file(self._key(version, CARD_NAME)))
            except FileNotFoundError:
                return None

    def _key(self, version: str, name: str) -> str:
        return f"{self._root}/versions/{checked_version(version)}/{name}"

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError

        try:
            yield
        except (OSError, BotoCoreError) as error:
            # This machine's disk, on which nothing changes by waiting for the store.
            here = getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
            kind = StoreError if here else StoreUnavailableError
            raise kind(f"the model store {self} cannot be used: {error}") from None


def open_store(address: str, work: Path | None = None) -> Store:
    """Return the model store at an address.

    Args:
        address: A folder, or `s3://BUCKET/PREFIX`.
        work: The folder in which versions are made for a store by URL; see BucketStore.

    Raises:
        StoreError: The address is neither.
    """
    if "://" not in address:
        return FolderStore(Path(address).expanduser())
    if not address.startswith(_S3):
        raise StoreError(f"expected the model store as a folder or s3://BUCKET/PREFIX, got {address!r}")
    return BucketStore(address, work)


def checked_version(version: str) -> str:
    """Return a version's name after checking that it is a valid one, which keeps its folder inside the store.

    Raises:
        StoreError: It is not valid.
    """
    if not _NAME.fullmatch(version):
        raise StoreError(f"expected a version of letters, digits, dots, dashes and underscores, got {version!r}")
    return version


def _check(folder: Path, version: str) -> None:
    """Check that a folder holds a version, with files that are those of its card."""
    card = read_card(folder)
    if card.version != version:
        raise ModelRefusedError(f"expected a card of version {version}, found {card.version}")
    verify(folder, card)


def _make_folder(folder: Path, mode: int = 0o777) -> Path:
    """Make a folder where it is missing, and return it."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=mode)
    except OSError as error:
        raise StoreError(f"cannot make the folder {folder}: {error.strerror}") from None
    return folder


def _own_temporary() -> Path:
    # The name is fixed, so that the next run finds a killed one's work; another user may have made the folder first.
    folder = _make_folder(Path(tempfile.gettempdir()) / f"fabwafer-work-{os.getuid()}", mode=0o700)
    if folder.stat().st_uid != os.getuid():
        raise StoreError(f"the folder {folder} belongs to another user: name one to work in with --work")
    return folder


def _flush(folder: Path) -> None:
    """Have the disk write a folder's files and entries."""
    for path in (*(path for path in folder.iterdir() if path.is_file()), folder):
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
