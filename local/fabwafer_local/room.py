"""The room on a local system's disk: what the streams may hold of it, and waiting while there is none."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from fabwafer.errors import FabwaferError
from fabwafer.service.disk import readable, space_of
from fabwafer.service.settings import variable
from fabwafer_bridge.settings import StreamSettings
from fabwafer_bridge.streams import LARGEST_IMAGE, LARGEST_MESSAGE, sum_of_limits

LOOK_EVERY: Final = 1.0
"""Seconds between looks at a full disk."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """What the streams may hold in bytes: `$MQTT_msgs`, and each of IMAGES, PREDICTIONS and DEAD."""

    mqtt: int
    stream: int

    @property
    def total(self) -> int:
        """The sum over all streams."""
        return sum_of_limits(self.mqtt, self.stream)

    def environment(self) -> dict[str, str]:
        """Return the environment of `fabwafer streams` with these limits."""
        return os.environ | {
            variable("mqtt_max_bytes"): str(self.mqtt),
            variable("stream_max_bytes"): str(self.stream),
        }


def stream_limits(room: int, settings: StreamSettings) -> StreamLimits:
    """Return limits whose sum is half of the room, and the defaults at most; the records grow into the other half.

    Each stream can hold its largest message, however little room there is: the intake stops before the disk is full.

    Args:
        room: Bytes that the streams and the records may take.
        settings: A limit that the operator set is not changed.
    """
    share = min(1.0, room / 2 / sum_of_limits(settings.mqtt_max_bytes, settings.stream_max_bytes))

    def fitting(name: str, largest_message: int) -> int:
        limit: int = getattr(settings, name)
        return limit if name in settings.model_fields_set else max(largest_message, int(limit * share))

    return StreamLimits(fitting("mqtt_max_bytes", LARGEST_MESSAGE), fitting("stream_max_bytes", LARGEST_IMAGE))


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
