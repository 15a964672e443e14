"""Small file systems for tests: they fill up, and have room again."""

import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from fabwafer.service.disk import space_of

BALLAST: Final = "ballast"
PIECE: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """A file system in memory, and a file that fills it."""

    path: Path

    @property
    def free(self) -> int:
        return space_of(self.path).free

    def fill(self, leave: int = 0) -> None:
        """Fills it, up to so many bytes."""
        with (self.path / BALLAST).open("ab", buffering=0) as file:
            while (more := self.free - leave) > 0:
                try:
                    file.write(bytes(min(more, PIECE)))
                except OSError:  # somebody else took the last bytes
                    break

    def empty(self) -> None:
        """Takes out what filled it."""
        (self.path / BALLAST).unlink(missing_ok=True)


@pytest.fixture
def small_disk() -> Iterator[SmallDisk]:
    """64 MB; skips where this user may not mount anything."""
    # Not in the test's own folder, which the user that PostgreSQL runs as may not enter.
    path = Path(tempfile.mkdtemp(prefix="small-disk-", dir="/tmp"))
    path.chmod(0o711)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", path], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        path.rmdir()
        pytest.skip(f"needs a small file system, and none can be mounted here: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)
        path.rmdir()
