"""The room on a local system's disk, and waiting while there is none."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from fabwafer.errors import FabwaferError
from fabwafer.service.disk import readable, space_of

LOOK_EVERY: Final = 1.0
"""Seconds between looks at a full disk."""

T = TypeVar("T")


class Room:
    """The room on the disk of a folder.

    Args:
        folder: On that disk.
        say: Shows the user what happens, a line at a time.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._folder, self._say = folder, say

    def short(self) -> bool:
        """Return whether there is too little room to store anything new."""
        try:
            return space_of(self._folder).short
        except OSError:
            return False

    def for_bus(self, store: Path) -> int:
        """Return the bytes that streams and records may take, with what the streams in `store` take already."""
        space = space_of(self._folder)
        in_use = sum(file.stat().st_size for file in store.rglob("*") if file.is_file())
        return max(0, space.free - space.reserve + in_use)

    async def wait(self) -> bool:
        """Wait while there is no room; return whether there was none."""
        if not self.short():
            return False
        space = space_of(self._folder)
        self._say(
            f"the disk of {self._folder} is full: expected {readable(space.reserve)} free, got "
            f"{readable(space.free)}; waiting for room"
        )
        while not space_of(self._folder).ample:  # noqa: ASYNC110 - nobody tells when there is room
            await asyncio.sleep(LOOK_EVERY)
        self._say("the disk has room again")
        return True

    async def storing(self, work: Callable[[], T]) -> T:
        """Do work that stores something, in a thread, again and again while it fails on a full disk.

        Raises:
            FabwaferError: It failed, and not for want of room.
            OSError: It failed, and not for want of room.
        """
        while True:
            await self.wait()
            try:
                return await asyncio.to_thread(work)
            except (FabwaferError, OSError):
                if not self.short():
                    raise
