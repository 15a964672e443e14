"""Archives of image files: tar files by month of receipt, each written once, and the place of an image in them."""

import hashlib
import io
import tarfile
from collections.abc import Container, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from fabwafer.errors import FabwaferError


class ImageDamagedError(FabwaferError):
    """An archive does not hold at a place the image that should be there."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image is: an archive's path below the archives' folder, the offset of the image's bytes, their number.

    The image can be had without this program, too: `tar` lists it under the sha256 of its bytes.
    """

    archive: str
    offset: int
    size: int


class ArchiveWriter:
    """Writes new archives, one for each month of receipt (UTC).

    Args:
        folder: The archives' folder.
        run: Distinguishes the archives from earlier ones of the same months.
    """

    def __init__(self, folder: Path, run: str) -> None:
        self._folder, self._run = folder, run
        self._open: dict[str, tarfile.TarFile] = {}
        self._stack = ExitStack()
        self.written = 0
        """The number of images written."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def add(self, received: int, digest: bytes, data: bytes) -> Place:
        """Write an image.

        Args:
            received: When it was received, ms.
            digest: The sha256 of its bytes.
            data: The image file's bytes.
        """
        name = f"{datetime.fromtimestamp(received / 1000, UTC):%Y-%m}-{self._run}.tar"
        if name not in self._open:
            self._folder.mkdir(parents=True, exist_ok=True)
            archive = tarfile.open(self._folder / name, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
            self._open[name] = self._stack.enter_context(archive)
        archive = self._open[name]
        member = tarfile.TarInfo(digest.hex())
        member.size, member.mtime = len(data), received // 1000
        offset = archive.offset + tarfile.BLOCKSIZE  # behind the header, which is one block
        archive.addfile(member, io.BytesIO(data))
        self.written += 1
        return Place(name, offset, len(data))


class ArchiveReader:
    """Reads images from archives; those in the order in which they were written are read fastest.

    Args:
        folder: The archives' folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._name = ""
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def read(self, place: Place, digest: bytes) -> bytes:
        """Return the bytes of an image.

        Raises:
            ImageDamagedError: What is there has another sha256, or there is nothing.
        """
        try:
            if self._file is None or place.archive != self._name:
                if self._file is not None:
                    self._file.close()
                self._file, self._name = (self._folder / place.archive).open("rb"), place.archive
            self._file.seek(place.offset)
            data = self._file.read(place.size)
        except OSError as error:
            raise ImageDamagedError(f"cannot read {self._folder / place.archive}: {error.strerror}") from None
        if hashlib.sha256(data).digest() != digest:
            raise ImageDamagedError(
                f"expected an image with the sha256 {digest.hex()} in {self._folder / place.archive} at "
                f"{place.offset}, found another"
            )
        return data


class EarlierPlaces:
    """The places of the images of an earlier dump, asked for in the order of the shots' ids.

    Args:
        rows: The shots of that dump, in the order of their ids; each has `id`, `digest` and `file`, a place or None.
        usable: The names of the archives that are still whole.
    """

    def __init__(self, rows: Iterable[dict[str, Any]], usable: Container[str]) -> None:
        self._rows: Iterator[dict[str, Any]] = iter(rows)
        self._usable = usable
        self.used: set[str] = set()
        """The names of the archives of the places that were found."""
        self._row = next(self._rows, None)

    def find(self, shot: int, digest: str) -> Place | None:
        """Return where the image of a shot is; None where the earlier dump does not have it.

        Args:
            shot: The shot's id, greater than all that were asked for before.
            digest: As in the dump.
        """
        while self._row is not None and self._row["id"] < shot:
            self._row = next(self._rows, None)
        row = self._row
        # Another database may have given the same ids, so the content decides.
        if row is None or row["id"] != shot or row["digest"] != digest or row["file"] is None:
            return None
        place = Place(**row["file"])
        if place.archive not in self._usable:
            return None
        self.used.add(place.archive)
        return place
