"""A folder with a backup: the files of the last run, those of earlier runs that it still needs, and its manifest.

`records/RUN/` holds a file for each table, `images/` tar files by month, `bus/RUN/` devices and unprocessed messages,
`models/RUN/VERSION/` versions of the model. A file is written once, under the name of its run. The manifest names those
that belong to the backup; it is replaced last, so that a run that is killed leaves the backup before it as it was.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Final, Literal

from pydantic import BaseModel, ValidationError, field_validator

from fabwafer.errors import FabwaferError
from fabwafer.service.files import replace_file

MANIFEST: Final = "manifest.json"
_LOCK: Final = ".fabwafer-backup"
"""Locked by whoever writes; it also marks a folder as one of backups, in which files may be removed."""
_OWN: Final = ("records", "images", "bus", "models")


class BackupError(FabwaferError):
    """A backup that cannot be written, or is no whole one. The text says why."""


class FileEntry(BaseModel):
    """A file of the backup."""

    size: int
    sha256: str


class Manifest(BaseModel):
    """What belongs to a backup."""

    format: Literal[1] = 1
    run: str
    """The run that wrote it."""
    created: str
    """When that run began, ISO 8601: what was acknowledged before is in the backup."""
    fabwafer: str
    """The version of the program that wrote it."""
    tables: str
    """The version of the records' tables."""
    rows: dict[str, int]
    """The number of rows, by table."""
    devices: int
    messages: dict[str, int]
    """The number of unprocessed messages, by stream."""
    models: dict[str, str]
    """The folder of each version of the model."""
    files: dict[str, FileEntry]
    """By path below the folder, with slashes."""

    @field_validator("files")
    @classmethod
    def _below_the_folder(cls, files: dict[str, FileEntry]) -> dict[str, FileEntry]:
        for name in files:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or path.parts[0] not in _OWN:
                raise ValueError(f"expected files in {', '.join(_OWN)}, got {name!r}")
        return files


class BackupFolder:
    """A folder with a backup, or one that is to get one.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def images(self) -> Path:
        """The folder of the archives of images."""
        return self.path / "images"

    def records(self, run: str) -> Path:
        """Return the folder of the records of a run."""
        return self.path / "records" / run

    def messages(self, run: str) -> Path:
        """Return the file of the unprocessed messages of a run."""
        return self.path / "bus" / run / "messages.ndjson"

    def devices(self, run: str) -> Path:
        """Return the file of the devices of a run."""
        return self.path / "bus" / run / "devices.ndjson"

    def models(self, run: str) -> Path:
        """Return the folder of the versions of the model that a run wrote."""
        return self.path / "models" / run

    def name_of(self, file: Path) -> str:
        """Return how the manifest names a file or a folder."""
        return file.relative_to(self.path).as_posix()

    def manifest(self) -> Manifest | None:
        """Return the manifest, None where there is none.

        Raises:
            BackupError: It is none that this program can read.
        """
        file = self.path / MANIFEST
        try:
            return Manifest.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BackupError(f"cannot read {file}: {error.strerror}") from None
        except ValidationError as error:
            detail = error.errors()[0]
            where = ".".join(map(str, detail["loc"]))
            raise BackupError(
                f"{file} is damaged, or of another version of fabwafer: {where} {detail['msg']}"
            ) from None

    def checked_manifest(self) -> Manifest:
        """Return the manifest after reading every file that it names.

        Raises:
            BackupError: There is no backup, or a file is missing or not what was written.
        """
        manifest = self.manifest()
        if manifest is None:
            raise BackupError(f"there is no backup in {self.path}: expected a file {MANIFEST}")
        for name, expected in manifest.files.items():
            try:
                found = _entry(self.path / name)
            except OSError as error:
                raise BackupError(f"the backup in {self.path} is damaged: {name}: {error.strerror}") from None
            if found != expected:
                raise BackupError(
                    f"the backup in {self.path} is damaged: {name}: expected {expected.size} bytes with the sha256 "
                    f"{expected.sha256}, found {found.size} bytes with {found.sha256}"
                )
        return manifest

    @contextmanager
    def locked(self) -> Iterator[str]:
        """Lock the folder for a run that writes; yield the run's name. What it leaves unlisted is removed at the end.

        Raises:
            BackupError: Another run writes, the folder is used for something else, or it cannot be written.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)  # images and hashes of passwords are confidential
            marked = (self.path / _LOCK).exists()
            if not marked and (others := [name for name in _OWN if (self.path / name).exists()]):
                raise BackupError(
                    f"{self.path} holds a folder {others[0]} that is of no backup: name a folder of its own for backups"
                )
            with (self.path / _LOCK).open("a") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise BackupError(f"another backup is being written to {self.path}") from None
                self._remove_unlisted()
                for name in _OWN:
                    (self.path / name).mkdir(mode=0o700, exist_ok=True)
                try:
                    yield f"{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}"
                finally:
                    self._remove_unlisted()
        except OSError as error:
            raise BackupError(f"cannot write the backup to {self.path}: {error.strerror or error}") from None

    def whole(self, manifest: Manifest, name: str) -> bool:
        """Return whether a file of an earlier run is there with its size, so that it need not be written again."""
        entry = manifest.files.get(name)
        file = self.path / name
        return entry is not None and file.is_file() and file.stat().st_size == entry.size

    def unchanged(self, manifest: Manifest, name: str) -> bool:
        """Return whether a file is there with the content that the manifest names."""
        return self.whole(manifest, name) and _entry(self.path / name) == manifest.files[name]

    def entries(self, folder: Path, run: str) -> dict[str, FileEntry]:
        """Return the entries of the files that a run wrote below a folder, after they are on the disk."""
        found = {}
        for file in sorted(folder.rglob("*")):
            if run in self.name_of(file) and file.is_file():
                found[self.name_of(file)] = _entry(file, flush=True)
        return found

    def replace_manifest(self, manifest: Manifest) -> None:
        """Make the files of a manifest the backup."""
        above = {folder for name in manifest.files for folder in (self.path / name).parents}
        for folder in {one for one in above if one.is_relative_to(self.path)} | {self.path / name for name in _OWN}:
            _flush(folder)
        replace_file(self.path / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
        _flush(self.path)

    def _remove_unlisted(self) -> None:
        """Remove files that the manifest does not name: of runs that were killed, or no longer needed."""
        manifest = self.manifest()
        listed = set(manifest.files) if manifest else set()
        for name in _OWN:
            for file in sorted((self.path / name).rglob("*"), reverse=True):  # folders after their content
                if not file.is_dir() or file.is_symlink():
                    if self.name_of(file) not in listed:
                        file.unlink()
                elif not any(file.iterdir()):
                    file.rmdir()


def _entry(file: Path, *, flush: bool = False) -> FileEntry:
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
        if flush:
            os.fsync(content.fileno())
        return FileEntry(size=os.fstat(content.fileno()).st_size, sha256=digest)


def _flush(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
