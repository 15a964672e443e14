"""The space of a file system, and when too little of it is left to take in anything new."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LARGEST_RESERVE: Final = 256 * 1024**2
SMALLEST_SHARE: Final = 8
"""The reserve is this part of the file system, where that is less."""


@dataclass(frozen=True, slots=True)
class Space:
    """The space of a file system.

    Attributes:
        total: Its size in bytes.
        free: Bytes that this user may still write.
    """

    total: int
    free: int

    @property
    def reserve(self) -> int:
        """Bytes that are left for what is under way: with less of them free, nothing new is taken in."""
        return min(LARGEST_RESERVE, self.total // SMALLEST_SHARE)

    @property
    def short(self) -> bool:
        """Whether there is too little to take in anything new."""
        return self.free < self.reserve

    @property
    def ample(self) -> bool:
        """Whether there is enough to take in something again; more than `short` asks for, so as not to alternate."""
        return self.free >= self.reserve + self.reserve // 4


def space_of(folder: Path) -> Space:
    """Return the space of the file system that a folder is on.

    Raises:
        OSError: There is no such folder, or it cannot be asked.
    """
    usage = shutil.disk_usage(folder)
    return Space(usage.total, usage.free)


def readable(size: int) -> str:
    """Return a size in bytes as people read it, such as `12.5 MiB`."""
    return f"{size / 1024**2:.1f} MiB" if size < 1024**3 else f"{size / 1024**3:.1f} GiB"
